"""What other readers make of the same messages: the ``readers`` of a run as a table."""

from collections.abc import Sequence

from eval.report.formats import UNMEASURED, figure_text, number, percent
from eval.report.results import ReaderEntry, ReaderFigures, check_entries
from eval.report.tables import Table


def reader_table(entries: Sequence[ReaderEntry]) -> Table | None:
    """A line for every entry of ``readers`` in ``results.json``; None where nobody else was asked.

    Raises:
        DataError: an entry lacks a figure.
    """
    check_entries("readers", entries, ReaderEntry)
    if not entries:
        return None
    compared = any("before" in entry for entry in entries)
    lines = tuple(
        (entry["name"], entry["model"], *(_cells(entry.get("before")) if compared else ()), *_cells(entry["after"]))
        for entry in entries
    )
    stages = ("before", "after") if compared else ("after",)
    figures = tuple(f"{label}, {stage}" for stage in stages for label in ("Accuracy", "Portability"))
    note = "Portability is a reader's accuracy over that of the predictor, from the same messages."
    return Table("readers", "Read by others", ("Reader", "Model", *figures), lines, note, names=2)


def _cells(figures: ReaderFigures | None) -> tuple[str, str]:
    if figures is None:
        return UNMEASURED, UNMEASURED
    return figure_text(figures["accuracy"], percent), figure_text(figures["portability"], number)
