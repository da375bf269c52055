"""The baselines of a run beside its adapter: accuracy against message tokens, as a figure, a table and a sentence."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from eval.report.drawing import Colour, Drawing, Position, canvas, inline_svg, label_points, set_round_ticks
from eval.report.formats import figure_text, number, percent
from eval.report.results import BaselineFigures, Figure, FigureName, LeadEntry, Results, check_entries
from eval.report.rows import COLUMNS, MISSING
from eval.report.tables import Table

TITLE = "Accuracy against message tokens"

LINE_COLOURS = (Colour.SECOND, Colour.THIRD, Colour.FOURTH, Colour.FIFTH, Colour.MUTED)
LINE_MARKERS = "s^DvoPX"
LINE_STYLES = tuple(
    (LINE_COLOURS[number % len(LINE_COLOURS)], LINE_MARKERS[number % len(LINE_MARKERS)])
    for number in range(len(LINE_COLOURS) * len(LINE_MARKERS))
)
"""Colour and marker of a baseline's line, 35 pairs, as the numbers of colours and markers have no common divisor; the
marker tells the first lines apart for readers who cannot tell the colours."""

TOKEN_TOLERANCE = 1.05
"""A baseline a twentieth longer than the adapter's messages still counts as no longer: lengths of texts are uneven."""

LOGARITHMIC_FROM = 12.0
"""Longest over shortest messages from which the axis is logarithmic: a linear one would crowd the short ones."""

ADAPTER, UNTRAINED, COMPRESSOR = "adapter", "untrained", "compressor"


@dataclass(frozen=True)
class Method:
    """One way of making messages, a baseline at one budget or a compressor, and the figures of its messages.

    Attributes:
        name: what reports call it.
        budget_tokens: of a baseline that has one.
        figures: of its messages.
        held_against: whether it is a compressor that others are held against.
    """

    name: str
    budget_tokens: int | None
    figures: Mapping[FigureName, Figure]
    held_against: bool = False


class Placed(NamedTuple):
    """A method with both an accuracy and a length: what the figure shows of it."""

    name: str
    tokens: float
    accuracy: float
    interval: tuple[float | None, float | None]
    """The ends of the accuracy's 95% interval."""
    held_against: bool

    def __str__(self) -> str:
        return f"{self.name}, {percent(self.accuracy)} in {number(self.tokens)} tokens"


def baseline_methods(entries: Sequence[BaselineFigures]) -> list[Method]:
    """The ``baselines`` of ``results.json``, in its order.

    Raises:
        DataError: a baseline lacks its name, accuracy or message tokens.
    """
    check_entries("baselines", entries, BaselineFigures)
    return [Method(str(entry["name"]), entry.get("budget_tokens"), known_figures(entry)) for entry in entries]


def compressor_methods(results: Results) -> list[Method]:
    """What was held against and the adapter, over all tasks; a compressor alone that was held against nothing."""
    overall = results["overall"]
    after = known_figures(overall["after"])
    if not overall["before"]["n"]:
        return [Method(COMPRESSOR, None, after)]
    start = results.get("meta", {}).get("start", UNTRAINED)
    return [Method(start, None, known_figures(overall["before"]), held_against=True), Method(ADAPTER, None, after)]


def known_figures(figures: Mapping[str, Any]) -> dict[FigureName, Figure]:
    """The figures that a report shows, those that are not there as missing ones."""
    return {name: figures.get(name) or MISSING for name in get_args(FigureName)}


def _placed(methods: Sequence[Method]) -> list[Placed]:
    """The methods that have both coordinates."""
    return [
        Placed(method.name, tokens, accuracy["value"], (accuracy["low"], accuracy["high"]), method.held_against)
        for method in methods
        for accuracy in [method.figures["accuracy"]]
        if (tokens := method.figures["message_tokens"]["value"]) is not None and accuracy["value"] is not None
    ]


def baseline_table(baselines: Sequence[Method], compressors: Sequence[Method]) -> Table:
    """A line for every baseline and budget, then one each for the compressors, of what some baseline measured."""
    columns = [
        column for column in COLUMNS if any(method.figures[column.figure]["value"] is not None for method in baselines)
    ]
    lines = tuple(
        (
            method.name,
            "none" if method.budget_tokens is None else f"{method.budget_tokens:,}",
            *(column.text(method.figures) for column in columns),
        )
        for method in (*baselines, *compressors)
    )
    heading = ("Messages by", "Budget, tokens", *(column.label for column in columns))
    return Table("baselines", "Baselines", heading, lines)


def lead_table(entries: Sequence[LeadEntry]) -> Table | None:
    """A line for every baseline whose line reaches the compressor's length; None where there is none.

    Raises:
        DataError: an entry lacks a figure.
    """
    check_entries("leads", entries, LeadEntry)
    if not entries:
        return None
    lines = tuple(
        (
            str(entry["name"]),
            _range(entry["from_tokens"], entry["to_tokens"]),
            figure_text(entry["accuracy"], lambda share: f"{100 * share:+.1f}"),
        )
        for entry in entries
    )
    heading = ("Baseline", "At tokens", "Compressor's accuracy less the baseline's, points")
    return Table("leads", "At equal tokens", heading, lines)


def _range(low: float, high: float) -> str:
    return number(low) if low == high else f"{number(low)} to {number(high)}"


def comparison(baselines: Sequence[Method], compressor: Method) -> str:
    """How the compressor stands beside the best baseline that is no longer than it, and beside the best of all."""
    rivals, placed = _placed(baselines), _placed([compressor])
    if not placed or not rivals:
        return (
            f"No baseline has both an accuracy and a length beside the {compressor.name}'s, so nothing can be compared."
        )
    [(name, tokens, accuracy, *_)] = placed
    reached = f"the {name} reaches {percent(accuracy)} in {number(tokens)}"
    best = max(rivals, key=_accuracy)
    no_longer = [rival for rival in rivals if rival.tokens <= tokens * TOKEN_TOLERANCE]
    if not no_longer:
        return f"No baseline writes as few tokens as the {name}; {reached} tokens. The best of all is {best}."
    best_no_longer = max(no_longer, key=_accuracy)
    sentence = f"Of the baselines no longer than the {name}’s messages the best is {best_no_longer}; {reached}."
    return sentence if best_no_longer is best else f"{sentence} The best of all is {best}."


def _accuracy(method: Placed) -> float:
    return method.accuracy


def _tokens(method: Placed) -> float:
    return method.tokens


def baseline_drawing(baselines: Sequence[Method], compressors: Sequence[Method]) -> Drawing | None:
    """Accuracy against message tokens: a line for every baseline over its budgets, and where the compressor lies.

    Args:
        baselines: any order; those of one name make one line.
        compressors: what was held against and the adapter, or the one that was evaluated.

    Returns:
        The figure, None where nothing has both coordinates.
    """
    placed_baselines, placed_compressors = _placed(baselines), _placed(compressors)
    placed = [*placed_baselines, *placed_compressors]
    if not placed:
        return None
    with canvas(4.6, 3.2) as (figure, axes):
        labels = _draw_baselines(axes, placed_baselines, list(dict.fromkeys(method.name for method in baselines)))
        labels += _draw_compressors(axes, placed_compressors)
        _set_axes(axes, [method.tokens for method in placed])
        label_points(axes, labels)
        svg = inline_svg(figure, "baselines", TITLE)
    legend = tuple((method.name, _compressor_colour(method).custom_property) for method in compressors)
    return Drawing(TITLE, svg, legend, f"{'; '.join(map(str, placed))}.")


def _draw_baselines(axes: Axes, baselines: Sequence[Placed], names: Sequence[str]) -> list[tuple[str, Position]]:
    """Draw a line for every name; returns each line's name and last position."""
    labels = []
    for name, (colour, marker) in zip(names, itertools.cycle(LINE_STYLES), strict=False):
        line = sorted((method for method in baselines if method.name == name), key=_tokens)
        for method in line:
            _draw_interval(axes, method, colour)
        positions = [(method.tokens, method.accuracy) for method in line]
        if positions:
            coordinates = zip(*positions, strict=True)
            axes.plot(*coordinates, color=colour, marker=marker, markersize=4.2, linewidth=1.2, zorder=2)
            labels.append((name, positions[-1]))
    return labels


def _draw_compressors(axes: Axes, compressors: Sequence[Placed]) -> list[tuple[str, Position]]:
    """Draw a point for every compressor; returns each one's name and position."""
    labels = []
    for method in compressors:
        colour, size = _compressor_colour(method), 6.5 if method.held_against else 8.0
        _draw_interval(axes, method, colour)
        axes.plot(method.tokens, method.accuracy, marker="o", markersize=size, color=colour, zorder=4, clip_on=False)
        labels.append((method.name, (method.tokens, method.accuracy)))
    return labels


def _compressor_colour(method: Method | Placed) -> Colour:
    return Colour.BEFORE if method.held_against else Colour.AFTER


def _draw_interval(axes: Axes, method: Placed, colour: Colour) -> None:
    low, high = method.interval
    if low is not None and high is not None:
        axes.plot([method.tokens] * 2, [low, high], color=colour, linewidth=1.0, alpha=0.45, zorder=1)


def _set_axes(axes: Axes, tokens: Sequence[float]) -> None:
    positive = [value for value in tokens if value > 0]
    if positive and max(positive) > LOGARITHMIC_FROM * min(positive):
        if min(tokens) > 0:
            axes.set_xscale("log")
        else:
            # Methods that write no message have their position on the axis too: linear up to the shortest message.
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.3)
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    else:
        set_round_ticks(axes.xaxis, 5)
        axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    set_round_ticks(axes.yaxis, 5)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_xlabel("message tokens")
    axes.set_ylabel("accuracy")
