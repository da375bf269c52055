"""The tables of the report as plain text, once, for Markdown, LaTeX, the page and W&B."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.results import Decoding, Results, Stage, StageFigures, decodings
from eval.report.rows import (
    LEADING,
    Column,
    Row,
    changes,
    is_compared,
    is_measured,
    kind_rows,
    measured_columns,
    missing_note,
    rows,
)


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        name: a short key, as of a file or a label.
        title: what the table shows.
        columns: their headings.
        lines: cells of plain text, as many a line as there are columns; not escaped for any format.
        note: what a reader must know beside the cells; empty where that is nothing.
        names: how many leading columns hold names; the others hold figures.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]
    note: str = ""
    names: int = 1


def result_tables(results: Results) -> list[Table]:
    """The tables of the evaluation itself: greedy beside sampled, then of each what the tasks and kinds show."""
    chosen = decodings(results)
    tables = [table for decoding in chosen for table in _summary_tables(decoding, len(chosen) > 1)]
    return [summary_table(results), *tables]


def summary_table(results: Results) -> Table:
    """The leading figures over all tasks: greedy messages and sampled ones side by side."""
    chosen = decodings(results)
    columns = [column for column in LEADING if any(is_measured(rows(d.summary)[0], column) for d in chosen)]
    heading = [
        f"{prefix}{part}" for d in chosen for prefix in [f"{d.name.capitalize()} ".lstrip()] for part in _parts(d)
    ]
    lines = tuple((column.label, *(cell for d in chosen for cell in _summary_cells(d, column))) for column in columns)
    return Table("summary", "Summary", ("Figure", *map(_sentence_case, heading)), lines)


def _parts(decoding: Decoding) -> tuple[str, ...]:
    return ("before", "after", "change") if is_compared(decoding.summary) else ("value",)


def _sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def _summary_cells(decoding: Decoding, column: Column) -> tuple[str, ...]:
    row = rows(decoding.summary)[0]
    sides = tuple(column.text(side) for side in row.sides.values())
    if not is_compared(decoding.summary):
        return sides
    change = changes(decoding.summary)[LEADING.index(column)]
    return (*sides, f"{change.amount} {change.interval}".strip())


def _summary_tables(decoding: Decoding, named: bool) -> list[Table]:
    """The tables of one way of choosing tokens; that of the kinds only where a task has several."""
    results = decoding.summary
    greedy, suffix = named and decoding.name == "greedy", f", {decoding.title.lower()}" if named else ""
    prefix, tasks = ("greedy_", "greedy") if greedy else ("", "tasks")
    tables = [_stage_table(rows(results), tasks, f"Results by task{suffix}", "Task", missing_note(results))]
    if by_kind := kind_rows(results):
        tables.append(_stage_table(by_kind, f"{prefix}kinds", f"Results by kind of question{suffix}", "Task and kind"))
    if is_compared(results):
        heading = ("Figure", "Change", "95% interval")
        lines = tuple(tuple(change) for change in changes(results))
        tables.append(Table(f"{prefix}changes", f"What training changed{suffix}", heading, lines))
    return tables


def _stage_table(table: Sequence[Row], name: str, title: str, row_heading: str, note: str = "") -> Table:
    """A line for every row and stage."""
    columns = measured_columns(table)
    lines = (_stage_line(row.name, stage, side, columns) for row in table for stage, side in row.sides.items())
    heading = (row_heading, "Training", "Questions", "Documents", *(column.label for column in columns))
    return Table(name, title, heading, tuple(lines), note, names=2)


def _stage_line(name: str, stage: Stage, side: StageFigures, columns: Sequence[Column]) -> tuple[str, ...]:
    figures = (column.text(side) for column in columns)
    return (name, stage, f"{side['n']:,}", f"{side['documents']:,}", *figures)
