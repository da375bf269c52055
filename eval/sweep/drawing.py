"""The figures of a sweep, each as SVG and PNG: what scales with which side's parameters, and what goes with what."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter

from eval.report.drawing import ROUND_STEPS, STYLE, shortened
from eval.sweep.plots import Plot, Series, plots
from eval.sweep.results import Results

INK, LINE = "#52525b", "#d4d4d8"
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
MARKERS = "osD^vPX*"
ASIDE = 0.015
"""How far lines are moved apart on a logarithmic axis, as a share of the place."""
PLAIN: dict[Any, Any] = STYLE | {
    "svg.hashsalt": "sweep",
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "grid.color": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
}


@dataclass(frozen=True)
class Picture:
    """A figure that was drawn.

    Attributes:
        name: the name of its files, without their endings.
        title: what it shows.
        svg: the vector file; a PNG of the same name lies beside it.
    """

    name: str
    title: str
    svg: Path


def draw_all(results: Results, folder: Path) -> list[Picture]:
    """Every figure that has something to show, in the order of the page.

    Args:
        results: the contents of ``sweep.json``.
        folder: for the files; is made where it is absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = [draw(plot, folder) for plot in plots(results)]
    drawn.append(draw_coefficients(results, folder))
    return [picture for picture in drawn if picture is not None]


def draw(plot: Plot, folder: Path) -> Picture | None:
    """One figure of points; None where nothing has both coordinates."""
    series = [one for one in plot.series if any(point.place for point in one.points)]
    if not series:
        return None
    markers = markers_of(series)
    with rc_context(PLAIN):
        figure, axes = _canvas(5.6, 3.4, plot.title)
        for number, (one, colour) in enumerate(zip(series, itertools.cycle(COLOURS), strict=False)):
            # Side by side, or intervals at the same size would cover each other.
            aside = 1 + ASIDE * (number - (len(series) - 1) / 2) if plot.log_x else 1.0
            _draw_series(axes, one, colour, markers, aside)
            if plot.curves and one.name in plot.curves:
                _draw_curve(axes, one, plot.curves[one.name], colour)
        _set_axes(axes, plot)
        _draw_legend(axes, markers, plot.colours)
        return _saved(figure, plot.name, plot.title, folder)


def markers_of(series: Sequence[Series]) -> dict[str, str]:
    """A marker for every family, in the order they come."""
    families = dict.fromkeys(point.family for one in series for point in one.points)
    return dict(zip(families, itertools.cycle(MARKERS), strict=False))


def _draw_series(axes: Axes, series: Series, colour: str, markers: Mapping[str, str], aside: float) -> None:
    placed = [((place[0] * aside, place[1]), point) for point in series.points if (place := point.place)]
    placed.sort(key=lambda pair: pair[0])
    if series.joined:
        axes.plot(*zip(*(place for place, _ in placed), strict=True), color=colour, linewidth=1.4, alpha=0.85)
    for (x, y), point in placed:
        low, high = point.y["low"], point.y["high"]
        if low is not None and high is not None:
            axes.plot([x, x], [low, high], color=colour, linewidth=1.2, alpha=0.45, zorder=1)
        axes.plot(x, y, marker=markers[point.family], markersize=5.5, color=colour, zorder=3)
    axes.plot([], [], color=colour, linewidth=3, label=shortened(series.name, 30))


def _draw_curve(axes: Axes, series: Series, curve: Callable[[np.ndarray], np.ndarray], colour: str) -> None:
    rates = [place[0] for point in series.points if (place := point.place)]
    grid = np.linspace(min(rates), max(rates), 80)
    axes.plot(grid, curve(grid), color=colour, linewidth=1.1, linestyle=(0, (4, 3)), zorder=2)


def _draw_legend(axes: Axes, markers: Mapping[str, str], title: str) -> None:
    """Colours and, where there are several families, markers, right of the axes."""
    if len(markers) > 1:
        for family, marker in markers.items():
            axes.plot([], [], linestyle="", marker=marker, color=INK, label=shortened(f"family {family}", 30))
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title=title, alignment="left")


def _set_axes(axes: Axes, plot: Plot) -> None:
    if plot.log_x:
        axes.set_xscale("log")
        places = sorted({place[0] for one in plot.series for point in one.points if (place := point.place)})
        if len(places) <= 6:
            axes.set_xticks(places, [magnitude(place) for place in places])
        else:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: magnitude(value)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    axes.margins(x=0.1, y=0.12)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    if plot.share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel(plot.x)
    axes.set_ylabel(plot.y)


def magnitude(value: float) -> str:
    """A count in short: 525696 is 526k, 7e9 is 7B."""
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def draw_coefficients(results: Results, folder: Path) -> Picture | None:
    """Log-odds of the regression with their intervals; None where nothing was fitted."""
    coefficients = (results["regression_with_matching"]["coefficients"] or results["regression"]["coefficients"])[::-1]
    if not coefficients:
        return None
    title = "What a right answer depends on"
    with rc_context(PLAIN):
        figure, axes = _canvas(5.6, 1.1 + 0.36 * len(coefficients), title)
        axes.axvline(0, color=INK, linewidth=0.8, alpha=0.5)
        for height, coefficient in enumerate(coefficients):
            low, high = coefficient["log_odds"]["low"], coefficient["log_odds"]["high"]
            axes.plot([low, high], [height, height], color=COLOURS[0], linewidth=1.6, alpha=0.5)
            axes.plot(coefficient["log_odds"]["value"], height, marker="o", markersize=6, color=COLOURS[0])
        axes.set_ylim(-0.6, len(coefficients) - 0.4)
        axes.set_yticks(
            range(len(coefficients)), [shortened(coefficient_name(coefficient), 44) for coefficient in coefficients]
        )
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
        axes.set_xlabel("change in log-odds, 95% interval")
        return _saved(figure, "regression", title, folder)


def coefficient_name(coefficient: Mapping[str, Any]) -> str:
    """A coefficient in words."""
    factor = coefficient["factor"].replace("_", " ")
    return (
        f"{factor}: {coefficient['level']} against {coefficient['reference']}"
        if coefficient["reference"]
        else f"{factor}: a {coefficient['level']}"
    )


def _canvas(width: float, height: float, title: str) -> tuple[Canvas, Axes]:
    figure = Canvas(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=INK)
    return figure, axes


def _saved(figure: Canvas, name: str, title: str, folder: Path) -> Picture:
    svg = folder / f"{name}.svg"
    figure.savefig(svg, metadata={"Date": None, "Creator": None})
    figure.savefig(svg.with_suffix(".png"), dpi=160)
    return Picture(name, title, svg)
