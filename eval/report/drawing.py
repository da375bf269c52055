"""What every figure of the report shares: its colours, its style, and how it becomes an element of the page.

Colours are names of CSS custom properties, so a figure follows the page into dark mode.
"""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from html import escape
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


class Colour(StrEnum):
    """A placeholder that matplotlib accepts as a colour; the SVG has the page's custom property in its place."""

    MUTED = "#0a0b00"
    LINE = "#0a0b01"
    BEFORE = "#0a0b02"
    AFTER = "#0a0b03"
    SECOND = "#0a0b04"
    THIRD = "#0a0b05"
    FOURTH = "#0a0b06"
    FIFTH = "#0a0b07"

    @property
    def custom_property(self) -> str:
        """The colour's name in the style sheet of the page."""
        return f"--{self.name.lower()}"


STYLE: dict[Any, Any] = {
    # Text stays text, to be searched and read aloud, and ids do not change from run to run.
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    # A dollar in a task's name is a dollar.
    "text.parse_math": False,
    "font.size": 9,
    "text.color": Colour.MUTED,
    "axes.edgecolor": Colour.LINE,
    "axes.labelcolor": Colour.MUTED,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": Colour.LINE,
    "grid.linewidth": 0.6,
    "xtick.color": Colour.LINE,
    "ytick.color": Colour.LINE,
    "xtick.labelcolor": Colour.MUTED,
    "ytick.labelcolor": Colour.MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 5,
}

LONGEST_LABEL = 24
"""Characters of a label beside the axes: about 1.5 inches of a figure that is 4.4 inches wide."""

LABEL_GAP = 0.068
"""Height of a line of labels, as a share of the axes: 9 points and a third of that as space, in axes of 2.5 inches."""

ROUND_STEPS = (1, 2, 2.5, 5, 10)
"""Distances between ticks, times a power of ten: matplotlib's own choice includes 1.5, 3 and 8 as well."""

Position = tuple[float, float]
"""x and y in data coordinates."""


@dataclass(frozen=True)
class Drawing:
    """A figure ready for the page.

    Attributes:
        title: what it shows; plain text.
        svg: the element, to be placed in HTML as it is; matplotlib has escaped the texts in it.
        legend: names and custom properties of the lines, where there are several.
        description: a sentence for those who cannot see the figure.
    """

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...]
    description: str


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A transparent figure of that many inches with one pair of axes, in the style of the report."""
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        axes = figure.add_subplot()
        axes.patch.set_visible(False)
        yield figure, axes


def set_round_ticks(axis: Axis, most: int) -> None:
    """Ticks at round numbers, with at most that many intervals between them."""
    axis.set_major_locator(MaxNLocator(most, steps=ROUND_STEPS))


def inline_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an SVG element for a page: its ids made unique, its colours and fonts left to the style sheet.

    Args:
        figure: the figure.
        name: a prefix for ids, which no other figure of the page has.
        title: what the figure shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    # Its metadata names external vocabularies and its style rule would apply to the whole page.
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'\bid="|xlink:href="#|url\(#', rf"\g<0>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*|font-size: ([\d.]+)px; font-family: [^;\"]*", r"font-size: \1\2px", svg)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    for colour in Colour:
        svg = svg.replace(colour, f"var({colour.custom_property})")
    start = f'role="img" aria-label="{escape(title)}">'
    return re.sub(r'<svg [^>]*viewBox="([^"]*)"[^>]*>', lambda tag: f'<svg viewBox="{tag[1]}" {start}', svg)


def standalone(drawing: Drawing, style: str) -> str:
    """A figure as a file of its own, on paper, with the legend in its labels alone.

    Args:
        drawing: the figure.
        style: the style sheet whose first values of the custom properties it takes.
    """
    values: dict[str, str] = {}
    for name, value in re.findall(r"(--[a-z]+): (#[0-9a-f]{6});", style):
        values.setdefault(name, value)
    svg = re.sub(r"var\((--[a-z]+)\)", lambda use: values[use[1]], drawing.svg)
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" font-family="sans-serif"'
    paper = f'<rect width="100%" height="100%" fill="{values["--card"]}"/>'
    return re.sub(r"<svg ([^>]*)>", lambda tag: f"<svg {names} {tag[1]}>{paper}", svg, count=1) + "\n"


def label_points(axes: Axes, points: Sequence[tuple[str, Position]]) -> None:
    """Names in a column right of the axes, each with a thin line to its point, so that none covers another.

    Args:
        axes: with its final limits.
        points: names and positions.
    """
    bottom, top = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point[1][1])
    heights = spread_out([(position[1] - bottom) / (top - bottom) for _, position in ordered], LABEL_GAP)
    for (name, position), height in zip(ordered, heights, strict=True):
        axes.annotate(
            shortened(name),
            position,
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            color=Colour.MUTED,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": Colour.MUTED,
                "alpha": 0.35,
                "linewidth": 0.5,
                "shrinkA": 1,
                "shrinkB": 5,
            },
        )


def spread_out(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights at least a gap apart, close to where they were; the uppermost stays below 1 where all fit."""
    raised: list[float] = []
    for height in heights:
        raised.append(max(height, raised[-1] + gap) if raised else height)
    ceiling, lowered = 1.0, []
    for height in reversed(raised):
        lowered.append(min(height, ceiling))
        ceiling = lowered[-1] - gap
    return lowered[::-1]


def shortened(name: str, longest: int = LONGEST_LABEL) -> str:
    """A name that leaves the axes most of the figure's width."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"
