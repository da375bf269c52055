"""The results of a run as aligned plain text on the console."""

from collections.abc import Callable, Iterable, Sequence

from eval.report.formats import Format, bounds_text, printable, value_text
from eval.report.headline import headline
from eval.report.results import Figure, Results, Summary
from eval.report.rows import COLUMNS, LEADING, Column, Row, changes, is_compared, is_measured, missing_note, rows

ARROW = " -> "


def console_table(results: Results) -> str:
    """The results as aligned plain text.

    Args:
        results: the contents of ``results.json``.

    Returns:
        The headline, a line and an interval line per task for the leading figures, the changes, the other figures
        overall, and the changes of greedy messages where there are such; no trailing newline.
    """
    table = rows(results)
    blocks = [headline(results).sentence, aligned(_leading_lines(table))]
    if is_compared(results):
        lines = [[change.label, change.amount, change.interval] for change in changes(results)]
        blocks.append(aligned([["Change", "", "95% interval"], *lines]))
    others = [_figure_line(table[0], column) for column in COLUMNS[len(LEADING) :] if is_measured(table[0], column)]
    if others:
        blocks.append(aligned([["Overall", "before -> after" if is_compared(results) else ""], *others]))
    if "greedy" in results:
        blocks.append(aligned(_greedy_lines(results["greedy"])))
    return "\n\n".join(filter(None, [*blocks, missing_note(results)]))


def _leading_lines(table: Sequence[Row]) -> list[list[str]]:
    """A line of values and a line of intervals for every row."""
    columns = [_leading_column(table, column) for column in LEADING]
    lines = [["", "n", *(column.label for column in LEADING)]]
    for index, row in enumerate(table):
        lines.append([row.name, row.count, *(cells[2 * index] for cells in columns)])
        lines.append(["", "", *(cells[2 * index + 1] for cells in columns)])
    return lines


def _leading_column(table: Sequence[Row], column: Column) -> list[str]:
    """Values and intervals of one column by turns, the arrows below each other."""
    cells = [
        [text(figures[column.figure], column.format) for figures in row.sides.values()]
        for row in table
        for text in (value_text, bounds_text)
    ]
    width = max(len(first) for first, *_ in cells)
    return [ARROW.join([first.ljust(width), *rest]) if first or any(rest) else "" for first, *rest in cells]


def _greedy_lines(results: Summary) -> list[list[str]]:
    """The leading figures of greedy messages over all tasks, each with its change."""
    row = rows(results)[0]
    if not is_compared(results):
        return [["Greedy messages"], *(_figure_line(row, column) for column in LEADING)]
    lines = [["Greedy messages", "before -> after", "", "change", "95% interval"]]
    for column, change in zip(LEADING, changes(results), strict=True):
        lines.append([*_figure_line(row, column), change.amount, change.interval])
    return lines


def _figure_line(row: Row, column: Column) -> list[str]:
    """The column's label, its values and its intervals, from stage to stage."""
    return [column.label, _across_stages(row, column, value_text), _across_stages(row, column, bounds_text)]


def _across_stages(row: Row, column: Column, text: Callable[[Figure, Format], str]) -> str:
    texts = [text(figures[column.figure], column.format) for figures in row.sides.values()]
    return ARROW.join(texts) if any(texts) else ""


def aligned(lines: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell, two spaces apart; what does not print becomes a space."""
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in cells if column < len(line)) for column in range(max(map(len, cells)))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) for line in cells)
    return "\n".join(line.rstrip() for line in padded)
