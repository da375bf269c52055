"""Figures as plain text: values, intervals and counts, the same in every table of the report."""

import math
from collections.abc import Callable

from eval.report.results import Figure

Format = Callable[[float], str]

UNMEASURED = "not measured"


def percent(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{100 * value:.1f}%"


def number(value: float) -> str:
    """A quantity to three significant digits, without exponents and with at most three decimals."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    # Of the rounded value, or 0.9996 would be 1.000 beside 1.00.
    decimals = min(3, max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}"))))))
    return f"{value:,.{decimals}f}"


def quantity(value: float) -> str:
    """A large count to three significant digits with a prefix of the SI: 1.20 G."""
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{number(value / size)} {prefix}"
    return number(value)


def points(value: float) -> str:
    """A change of a share in percentage points, signed."""
    return f"{100 * value:+.1f}"


def signed(value: float) -> str:
    """A coefficient or a change with its sign and two decimals; what rounds to nothing is +0.00."""
    return f"{round(value, 2) + 0.0:+.2f}"


def value_text(figure: Figure, form: Format) -> str:
    """The value of a figure, without its interval."""
    return UNMEASURED if figure["value"] is None else form(figure["value"])


def bounds_text(figure: Figure, form: Format) -> str:
    """The interval in brackets; it says so where there is none or one side is open."""
    low, high = figure["low"], figure["high"]
    if low is None and high is None:
        return "" if figure["value"] is None else "[no interval]"
    return ends_text(low, high, form)


def ends_text(low: float | None, high: float | None, form: Format, unit: str = "") -> str:
    """The ends of an interval in brackets, one of them at least; it says so where rounding makes them one number."""
    ends = ["no bound" if end is None else form(end) for end in (low, high)]
    return "[within rounding]" if ends[0] == ends[1] else f"[{', '.join(ends)}{unit}]"


def figure_text(figure: Figure, form: Format) -> str:
    """A value and its interval in brackets."""
    return f"{value_text(figure, form)} {bounds_text(figure, form)}".strip()


def printable(text: str) -> str:
    """A name with spaces for what does not print: a line break or an escape sequence must not reach a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)
