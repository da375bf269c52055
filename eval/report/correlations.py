"""How two figures of the same questions move together: the ``correlations`` of a run as a figure and a table."""

from collections.abc import Sequence

from eval.report.drawing import Colour, Drawing, canvas, inline_svg, shortened
from eval.report.formats import figure_text, signed
from eval.report.results import CorrelationEntry, check_entries
from eval.report.tables import Table

LONGEST_PAIR_LABEL = 44
"""Characters of the names of two figures beside the axes; they fill half of a figure 4.6 inches wide."""


def correlation_table(entries: Sequence[CorrelationEntry]) -> Table | None:
    """A line for every entry of ``correlations`` in ``results.json``, in its order; None where there is none.

    Raises:
        DataError: an entry lacks what the table shows.
    """
    check_entries("correlations", entries, CorrelationEntry)
    if not entries:
        return None
    lines = tuple(
        (
            _pair_name(entry),
            str(entry["over"]),
            figure_text(entry["coefficient"], signed),
            f"{entry['n']:,}",
            f"{entry['missing']:,}",
        )
        for entry in entries
    )
    heading = ("Figures", "Points are", "Coefficient", "Points", "Records without a score")
    return Table("correlations", "Correlations", heading, lines, names=2)


def correlation_drawing(entries: Sequence[CorrelationEntry]) -> Drawing | None:
    """Coefficients with their intervals between -1 and 1; None where none is defined."""
    defined = [
        (_pair_name(entry), entry["coefficient"], value)
        for entry in entries
        if (value := entry["coefficient"]["value"]) is not None
    ]
    if not defined:
        return None
    with canvas(4.6, 0.75 + 0.34 * len(defined)) as (figure, axes):
        axes.axvline(0, color=Colour.MUTED, linewidth=0.8, alpha=0.5)
        for height, (_, coefficient, value) in enumerate(reversed(defined)):
            low, high = coefficient["low"], coefficient["high"]
            if low is not None and high is not None:
                axes.plot(
                    [low, high], [height, height], color=Colour.AFTER, linewidth=1.6, alpha=0.5, solid_capstyle="round"
                )
            axes.plot(value, height, marker="o", markersize=6, color=Colour.AFTER)
        axes.set_xlim(-1.05, 1.05)
        axes.set_ylim(-0.6, len(defined) - 0.4)
        labels = [shortened(name, LONGEST_PAIR_LABEL) for name, _, _ in reversed(defined)]
        axes.set_yticks(range(len(defined)), labels)
        axes.set_xlabel("correlation")
        svg = inline_svg(figure, "correlations", "Correlations")
    described = "; ".join(f"{name}: {figure_text(coefficient, signed)}" for name, coefficient, _ in defined)
    return Drawing("Correlations, with 95% intervals", svg, (), f"{described}.")


def _pair_name(entry: CorrelationEntry) -> str:
    """Both figures and the method, such as "information bits and accuracy, Spearman"."""
    return f"{entry['x']} and {entry['y']}, {entry['method'].capitalize()}".replace("_", " ")
