"""The results of a run as aligned plain text on the console."""

from collections.abc import Callable, Iterable, Sequence

from eval.report.formats import printable
from eval.report.headline import headline
from eval.report.results import Decoding, Results, StageFigures, decodings
from eval.report.rows import COLUMNS, LEADING, Column, Row, changes, is_compared, is_measured, missing_note, rows

ARROW = " -> "


def console_table(results: Results) -> str:
    """The results as aligned plain text.

    Args:
        results: the contents of ``results.json``.

    Returns:
        The headline, then of greedy and of sampled messages the leading figures with their changes and intervals, and
        the values of every task; at last the other figures overall. No trailing newline.
    """
    answer, chosen = headline(results), decodings(results)
    blocks = ["\n".join(filter(None, (answer.sentence, answer.second, answer.explanation)))]
    for decoding in chosen:
        blocks.append(aligned(_overall_lines(decoding)))
        if len(decoding.summary["tasks"]) > 1:
            blocks.append(aligned(_task_lines(decoding)))
    row = rows(results)[0]
    if others := [column for column in COLUMNS[len(LEADING) :] if is_measured(row, column)]:
        title = f"{chosen[-1].title}, other figures"
        blocks.append(aligned([[title, _stages(chosen[-1])], *(_figure_line(row, column) for column in others)]))
    return "\n\n".join(filter(None, [*blocks, missing_note(results)]))


def _stages(decoding: Decoding) -> str:
    return "before -> after" if is_compared(decoding.summary) else ""


def _overall_lines(decoding: Decoding) -> list[list[str]]:
    """The leading figures over all tasks, each with its change."""
    row = rows(decoding.summary)[0]
    if not is_compared(decoding.summary):
        return [[decoding.title], *(_figure_line(row, column) for column in LEADING)]
    lines = [[decoding.title, _stages(decoding), "95% intervals", "change", "95% interval"]]
    for column, change in zip(LEADING, changes(decoding.summary), strict=True):
        lines.append([*_figure_line(row, column), change.amount, change.interval])
    return lines


def _task_lines(decoding: Decoding) -> list[list[str]]:
    """The values of every task; their intervals are in the report."""
    lines = [["by task", "n", *(column.label for column in LEADING)]]
    for row in rows(decoding.summary)[1:]:
        lines.append([row.name, row.count, *(_across_stages(row, column.value) for column in LEADING)])
    return lines


def _figure_line(row: Row, column: Column) -> list[str]:
    """The column's label, its values and its intervals, from stage to stage."""
    return [column.label, _across_stages(row, column.value), _across_stages(row, column.bounds)]


def _across_stages(row: Row, text: Callable[[StageFigures], str]) -> str:
    texts = [text(figures) for figures in row.sides.values()]
    return ARROW.join(texts) if any(texts) else ""


def aligned(lines: Iterable[Sequence[str]]) -> str:
    """Columns padded to their widest cell, two spaces apart; what does not print becomes a space."""
    cells = [[printable(cell) for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in cells if column < len(line)) for column in range(max(map(len, cells)))]
    padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)) for line in cells)
    return "\n".join(line.rstrip() for line in padded)
