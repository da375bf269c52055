"""The tables of the report as plain text, once, for Markdown, LaTeX, the page and W&B."""

from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.formats import figure_text
from eval.report.results import Results, Stage, StageFigures, Summary
from eval.report.rows import Column, Row, changes, is_compared, kind_rows, measured_columns, missing_note, rows


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
    """The tables of the evaluation itself: by task, by kind of question, what changed; greedy messages likewise."""
    tables = _summary_tables(results)
    if "greedy" in results:
        tables += _summary_tables(results["greedy"], prefix="greedy_", suffix=", greedy messages")
    return tables


def _summary_tables(results: Summary, prefix: str = "", suffix: str = "") -> list[Table]:
    """The tables of one summary; that of the kinds only where a task has several."""
    tasks = "greedy" if prefix else "tasks"
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
    figures = (figure_text(side[column.figure], column.format) for column in columns)
    return (name, stage, f"{side['n']:,}", f"{side['documents']:,}", *figures)
