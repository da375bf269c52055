"""The picture of rate against distortion: where each task stands before and after training, and the fitted curve."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes

from eval.analysis.rate_distortion import Fit
from eval.report.drawing import Colour, Drawing, Position, canvas, inline_svg, label_points, set_round_ticks
from eval.report.results import StageFigures, Summary

TITLE = "Rate against distortion"


@dataclass(frozen=True)
class OperatingPoint:
    """Where one task stands before and after: (bits per token, 1 - accuracy), None where not measured."""

    task: str
    before: Position | None
    after: Position | None

    @property
    def positions(self) -> list[Position]:
        """The measured ones of the two, the one before training first."""
        return [position for position in (self.before, self.after) if position is not None]


def operating_points(results: Summary) -> list[OperatingPoint]:
    """The operating points of every task, in the order of the results."""
    return [
        OperatingPoint(task, _position(stages["before"]), _position(stages["after"]))
        for task, stages in results["tasks"].items()
    ]


def _position(figures: StageFigures) -> Position | None:
    rate, accuracy = figures["bits_per_token"]["value"], figures["accuracy"]["value"]
    return None if rate is None or accuracy is None else (rate, 1 - accuracy)


def rate_distortion_drawing(points: Sequence[OperatingPoint], fit: Fit) -> Drawing:
    """Each task's way through the plane of rate and distortion, and the curve through all points where one was fitted.

    Args:
        points: one per task.
        fit: the fit through all points together.
    """
    with canvas(4.4, 3.0) as (figure, axes):
        axes.margins(0.08)
        for point in points:
            _draw_point(axes, point)
        _draw_fit(axes, points, fit)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        label_points(axes, [(point.task, point.positions[-1]) for point in points if point.positions])
        set_round_ticks(axes.xaxis, 5)
        set_round_ticks(axes.yaxis, 5)
        axes.set_xlabel("rate: bits per token")
        axes.set_ylabel("distortion: 1 − accuracy")
        svg = inline_svg(figure, "rate", TITLE)
    compared = any(point.before for point in points)
    legend = [(stage.name.lower(), stage.custom_property) for stage in (Colour.BEFORE, Colour.AFTER) if compared]
    if fit.curve is not None:
        legend.append(("fitted curve, dashed", Colour.MUTED.custom_property))
    ways = (
        f"{point.task}: {_position_text(point.before)} before, {_position_text(point.after)} after"
        if compared
        else f"{point.task}: {_position_text(point.after)}"
        for point in points
    )
    return Drawing(TITLE, svg, tuple(legend), f"Rate and distortion by task. {'; '.join(ways)}.")


def _position_text(position: Position | None) -> str:
    return "not measured" if position is None else f"({position[0]:.3g}, {position[1]:.3g})"


def _draw_point(axes: Axes, point: OperatingPoint) -> None:
    if point.before and point.after:
        way = zip(point.before, point.after, strict=True)
        axes.plot(*way, color=Colour.BEFORE, linewidth=0.9, alpha=0.55, zorder=2)
    if point.before:
        axes.plot(*point.before, marker="o", markersize=5, color=Colour.BEFORE, zorder=3, clip_on=False)
    if point.after:
        axes.plot(*point.after, marker="o", markersize=6.5, color=Colour.AFTER, zorder=4, clip_on=False)


def _draw_fit(axes: Axes, points: Sequence[OperatingPoint], fit: Fit) -> None:
    if fit.curve is None:
        return
    rates = [rate for point in points for rate, _ in point.positions]
    grid = np.linspace(min(rates), max(rates), 80)
    axes.plot(grid, fit.curve.distortion(grid), color=Colour.MUTED, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
