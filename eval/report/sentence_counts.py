"""How far messages keep to an exact number of sentences: the ``sentences`` of a run as a table."""

from collections.abc import Sequence

from eval.report.formats import figure_text, number, percent
from eval.report.results import SentenceEntry, check_entries
from eval.report.tables import Table


def sentence_table(entries: Sequence[SentenceEntry]) -> Table | None:
    """A line for every entry of ``sentences`` in ``results.json``; None where no number was asked for.

    Raises:
        DataError: an entry lacks a figure.
    """
    check_entries("sentences", entries, SentenceEntry)
    if not entries:
        return None
    lines = tuple(
        (
            str(entry["name"]),
            f"{entry['asked']:,}",
            f"{entry['n']:,}",
            figure_text(entry["obeyed"], percent),
            figure_text(entry["sentences"], number),
        )
        for entry in entries
    )
    heading = ("Messages", "Sentences asked for", "Messages counted", "With exactly so many", "Sentences written")
    return Table("sentences", "Sentences asked for and written", heading, lines)
