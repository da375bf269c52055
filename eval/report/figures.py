"""The pictures of a run: training curves and rate against distortion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eval.analysis.rate_distortion import Fit
from eval.report.drawing import (
    AFTER,
    BEFORE,
    CUSTOM_PROPERTIES,
    INK,
    ROUND_STEPS,
    SECOND,
    STYLE,
    THIRD,
    Drawing,
    canvas,
    inline_svg,
    name_points,
)

MOST_POINTS = 240


@dataclass(frozen=True)
class Line:
    """One line of a training curve: a key of ``metrics.jsonl``, and its name where the panel has several."""

    key: str
    colour: str = AFTER
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """One training curve: a title and the lines under it; a share is shown in percent."""

    title: str
    lines: tuple[Line, ...]
    is_share: bool = False


PANELS = (
    Panel("Reward", (Line("reward"),)),
    Panel(
        "Reward by component",
        (
            Line("rewards/accuracy/mean", AFTER, "accuracy"),
            Line("rewards/information/mean", SECOND, "information"),
            Line("rewards/length/mean", THIRD, "length"),
        ),
    ),
    Panel("Accuracy", (Line("accuracy"),), is_share=True),
    Panel("Tokens a message", (Line("message_tokens"),)),
    Panel(
        "Information passed, bits",
        (Line("information_bits", AFTER, "lower bound"), Line("information_upper_bits", SECOND, "upper bound")),
    ),
    Panel("Bits per token", (Line("bits_per_token"),)),
    Panel("Task information, bits", (Line("task_information_bits"),)),
    Panel("Messages at the ceiling", (Line("saturated_share"),), is_share=True),
)


def smoothing_window(steps: int) -> int:
    """The width of the running mean drawn over that many steps."""
    return max(1, steps // 20)


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> list[Drawing]:
    """One drawing per panel that has data: every step faint, its running mean in full colour.

    Args:
        metrics: the lines of ``metrics.jsonl``; of several lines of one step the last counts, as after a resumption.
    """
    by_step = {int(line["step"]): line for line in metrics if _is_number(line.get("step"))}
    rows = [by_step[step] for step in sorted(by_step)]
    drawings = (_training_curve(panel, rows, index) for index, panel in enumerate(PANELS))
    return [drawing for drawing in drawings if drawing is not None]


def _training_curve(panel: Panel, rows: Sequence[Mapping[str, Any]], index: int) -> Drawing | None:
    series = [(line, *_series(rows, line.key)) for line in panel.lines]
    series = [(line, steps, values) for line, steps, values in series if len(steps)]
    if not series:
        return None
    with rc_context(STYLE):
        figure, axes = canvas(3.5, 2.0)
        for line, steps, values in series:
            _draw_line(axes, line.colour, steps, values, smoothing_window(len(rows)))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=ROUND_STEPS))
        if panel.is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        svg = inline_svg(figure, f"curve{index}", panel.title)
    legend = tuple((line.name, CUSTOM_PROPERTIES[line.colour]) for line, _, _ in series if line.name)
    ends = "; ".join(f"{line.name} {_ends(values)}".strip() for line, _, values in series)
    return Drawing(panel.title, svg, legend, f"Over steps {series[0][1][0]:.0f} to {series[0][1][-1]:.0f}: {ends}.")


def _ends(values: Float[np.ndarray, " steps"]) -> str:
    return f"from {values[0]:.3g} to {values[-1]:.3g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _series(
    rows: Sequence[Mapping[str, Any]], key: str
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """Steps and values of one metric, without the steps that lack it."""
    kept = [(row["step"], row[key]) for row in rows if _is_number(row.get(key))]
    steps, values = np.array(kept, dtype=float).reshape(-1, 2).T
    return steps, values


def _draw_line(
    axes: Axes, colour: str, steps: Float[np.ndarray, " steps"], values: Float[np.ndarray, " steps"], window: int
) -> None:
    if window > 1:
        axes.plot(*_thinned(steps, values), color=colour, alpha=0.28, linewidth=0.7)
    smooth = _running_mean(values, window)
    axes.plot(*_thinned(steps, smooth), color=colour, linewidth=1.7, solid_capstyle="round")
    if len(steps) == 1:
        axes.plot(steps, values, marker="o", color=colour)


def _running_mean(values: Float[np.ndarray, " steps"], window: int) -> Float[np.ndarray, " steps"]:
    """Centred mean over the window, over what there is of it at the ends."""
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _thinned(
    steps: Float[np.ndarray, " steps"], values: Float[np.ndarray, " steps"]
) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Means over neighbouring steps, so that a long run does not make a large page."""
    bins = np.array_split(np.arange(len(steps)), min(len(steps), MOST_POINTS))
    return np.array([steps[part].mean() for part in bins]), np.array([values[part].mean() for part in bins])


@dataclass(frozen=True)
class Operating:
    """Where one task stands before and after: (bits per token, 1 - accuracy), None where not measured."""

    task: str
    before: tuple[float, float] | None
    after: tuple[float, float] | None


def rate_distortion(points: Sequence[Operating], fitted: Fit) -> Drawing:
    """Each task's way through the plane of rate and distortion, and the curve through all points where one was fitted.

    Args:
        points: one per task.
        fitted: of all points together.
    """
    with rc_context(STYLE):
        figure, axes = canvas(4.4, 3.0)
        axes.margins(0.08)
        for point in points:
            _draw_operating(axes, point)
        _draw_fit(axes, points, fitted)
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        named = [(point.task, point.after or point.before) for point in points]
        name_points(axes, [(task, place) for task, place in named if place])
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
        axes.set_xlabel("rate: bits per token")
        axes.set_ylabel("distortion: 1 − accuracy")
        svg = inline_svg(figure, "rate", "Rate against distortion")
    compared = any(point.before for point in points)
    legend = [("before", CUSTOM_PROPERTIES[BEFORE]), ("after", CUSTOM_PROPERTIES[AFTER])] if compared else []
    if fitted.curve is not None:
        legend.append(("fitted curve, dashed", CUSTOM_PROPERTIES[INK]))
    ways = (
        f"{point.task}: {_place(point.before)} before, {_place(point.after)} after"
        if compared
        else f"{point.task}: {_place(point.after)}"
        for point in points
    )
    return Drawing("Rate against distortion", svg, tuple(legend), f"Rate and distortion by task. {'; '.join(ways)}.")


def _place(place: tuple[float, float] | None) -> str:
    return "not measured" if place is None else f"({place[0]:.3g}, {place[1]:.3g})"


def _draw_operating(axes: Axes, point: Operating) -> None:
    if point.before and point.after:
        axes.plot(*zip(point.before, point.after, strict=True), color=BEFORE, linewidth=0.9, alpha=0.55, zorder=2)
    if point.before:
        axes.plot(*point.before, marker="o", markersize=5, color=BEFORE, zorder=3, clip_on=False)
    if point.after:
        axes.plot(*point.after, marker="o", markersize=6.5, color=AFTER, zorder=4, clip_on=False)


def _draw_fit(axes: Axes, points: Sequence[Operating], fitted: Fit) -> None:
    if fitted.curve is None:
        return
    rates = [place[0] for point in points for place in (point.before, point.after) if place]
    grid = np.linspace(min(rates), max(rates), 80)
    axes.plot(grid, fitted.curve.distortion(grid), color=INK, linewidth=1.1, linestyle=(0, (4, 3)), zorder=1)
