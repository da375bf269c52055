"""The report of a run as one self-contained page: answer first, then figures, pictures and the messages themselves.

The page loads nothing. Contexts, messages and names are untrusted: what Python writes is escaped, what the page's
script shows goes through textContent, and the page's policy lets no other script run.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from eval.analysis.density import STAGES
from eval.analysis.rate_distortion import fit
from eval.report.baselines import (
    Point,
    baseline_drawing,
    baseline_points,
    baseline_sheet,
    comparison,
    compressor_points,
)
from eval.report.correlations import Correlation, correlation_drawing, correlation_sheet, correlations
from eval.report.costs import cost_sheet
from eval.report.drawing import Drawing
from eval.report.figures import Operating, rate_distortion, smoothing_window, training_curves
from eval.report.headline import Results, headline
from eval.report.latex import latex
from eval.report.markdown import markdown
from eval.report.samples import Record, browser_data, chosen_pairs, json_lines, script_json
from eval.report.sentences import sentence_sheet
from eval.report.sheets import Sheet, result_sheets
from eval.report.table import (
    COLUMNS,
    LEADING,
    Column,
    Row,
    bounds_text,
    change_lines,
    count_text,
    is_compared,
    is_measured,
    kind_rows,
    missing_note,
    rows,
    value_text,
)

MAIN_COLUMNS = COLUMNS[:5]
SIDES = 'Before training above, <span class="after">after</span> below, each with its 95% interval.'
ALONE = "Each with its 95% interval. The compressor was held against nothing."
WAY = (
    "Every line is one task, from where the untrained compressor stood to where the trained one stands. Down is more "
    "accurate, right is denser."
)
PERPLEXITY = next(column for column in COLUMNS if column.figure == "perplexity")


def write_report(run_folder: Path, seed: int = 0) -> Path:
    """Write ``report.html``, and its tables as ``tables.md`` and ``tables.tex``, from the files of a run.

    Args:
        run_folder: holds ``results.json``, ``samples.jsonl`` and, for the training curves, ``metrics.jsonl``.
        seed: of the choice of messages where there are more than the page shows.

    Returns:
        The path of the page; the same files give the same bytes.

    Raises:
        FileNotFoundError: there is no ``results.json`` or no ``samples.jsonl``.
        ValueError: a line that is not JSON, a message without a figure for every token, or a baseline, correlation or
            count of sentences that lacks what it must have.
    """
    for name in ("results.json", "samples.jsonl"):
        if not (run_folder / name).is_file():
            raise FileNotFoundError(f"{run_folder / name} is missing: the report is made from it")
    results = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
    metrics_path = run_folder / "metrics.jsonl"
    metrics = list(json_lines(metrics_path)) if metrics_path.is_file() else []
    pairs, total = chosen_pairs(run_folder / "samples.jsonl", seed)
    page, sheets = run_folder / "report.html", report_sheets(results)
    _write(page, _page(run_folder.resolve().name, results, metrics, browser_data(pairs), total))
    _write(run_folder / "tables.md", markdown(results, sheets))
    _write(run_folder / "tables.tex", latex(results, sheets))
    return page


def _write(path: Path, text: str) -> None:
    # Half of a surrogate pair has no UTF-8 form; a truncated message can hold one.
    path.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")


def report_sheets(results: Results) -> list[Sheet]:
    """Every table of the report, the same for Markdown, LaTeX and W&B.

    Raises:
        ValueError: a baseline, correlation or count of sentences lacks what it must have.
    """
    baselines, found = baseline_points(results), correlations(results)
    sheets = result_sheets(results)
    if sentences := sentence_sheet(results):
        sheets.append(sentences)
    if baselines:
        sheets.append(baseline_sheet(baselines, compressor_points(results)))
    if costs := cost_sheet(results):
        sheets.append(costs)
    if found:
        sheets.append(correlation_sheet(found))
    return sheets


def _page(name: str, results: Results, metrics: Sequence[Record], data: Mapping[str, Any], total: int) -> str:
    answer, table = headline(results), rows(results)
    script = _asset("page.js")
    drawing, statement = _rate(results)
    main, more = _columns(table)
    parts = {
        "title": escape(f"Shorthand: {name}"),
        "run": escape(name),
        "headline": _bracketed(escape(_typeset(answer.sentence))),
        "evidence": escape(answer.evidence),
        "tiles": _tiles(results, table[0]),
        "sides": SIDES if is_compared(results) else ALONE,
        "way": WAY if is_compared(results) else "Every point is one task. Down is more accurate, right is denser.",
        "missing": escape(missing_note(results)),
        "table": _table(table, main),
        "more": _more(table, more) + _kinds(results) + _sentences(sentence_sheet(results)),
        "greedy": _greedy(results),
        "baselines": _baselines(baseline_points(results), compressor_points(results)),
        "fit": escape(_typeset(statement)),
        "rate": _drawing(drawing) if drawing else "",
        "costs": _costs(cost_sheet(results)),
        "correlations": _correlations(correlations(results)),
        "curves": _curves(metrics),
        "shown": escape(_shown(len(data["pairs"]), total, is_compared(results))),
        "scale": f"{data['scale']:.1f}",
        "meta": _meta(results.get("meta", {})),
        "style": _asset("page.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": script_json(data),
    }
    return Template(_asset("page.html")).substitute(parts)


def _columns(table: Sequence[Row]) -> tuple[list[Column], list[Column]]:
    """The columns in view and those behind a click; where a task has no accuracy its perplexity comes into view."""
    needs_perplexity = any(not is_measured(row, COLUMNS[0]) for row in table)
    main = [column for column in COLUMNS if column in MAIN_COLUMNS or (column == PERPLEXITY and needs_perplexity)]
    return main, [column for column in COLUMNS if column not in main]


def _bracketed(html: str) -> str:
    """Intervals in smaller type."""
    return re.sub(r" (\[[^\]]*\])", r" <small>\1</small>", html)


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _tiles(results: Mapping[str, Any], overall: Row) -> str:
    tiles = (
        _tile(column, overall, how_much, ends)
        for column, (_, how_much, ends) in zip(LEADING, change_lines(results), strict=True)
    )
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _tile(column: Column, overall: Row, how_much: str, ends: str) -> str:
    if len(overall.sides) == 1:
        figure = overall.after[column.figure]
        value, bounds = value_text(figure, column.format), bounds_text(figure, column.format)
        return (
            f'<div class="tile"><dt>{escape(column.label)}</dt><dd class="pair">{escape(value)}</dd>'
            f'<dd class="change"><span>{escape(_typeset(bounds))}</span></dd></div>'
        )
    before, after = (escape(value_text(side[column.figure], column.format)) for side in (overall.before, overall.after))
    return (
        f'<div class="tile"><dt>{escape(column.label)}</dt>'
        f'<dd class="pair"><span class="from">{before}</span><span class="to"> → </span>{after}</dd>'
        f'<dd class="change">{escape(_typeset(how_much))} <span>{escape(_typeset(ends))}</span></dd></div>'
    )


def _typeset(text: str) -> str:
    """Plain text with the signs print has: minus, times and apostrophe."""
    text = re.sub(r"(?<!\w)-(?=[\d.])", "−", text)
    return re.sub(r"(?<=\d)x\b", "×", text).replace("'", "’")


def _table(table: Sequence[Row], columns: Sequence[Column], total: bool = True) -> str:
    """``total``: the first row is everything."""
    measured = [column for column in columns if any(is_measured(row, column) for row in table)]
    head = "".join(f'<th scope="col">{escape(column.label)}</th>' for column in measured)
    body = "".join(_table_row(row, measured, "overall" if total and row is table[0] else "") for row in table)
    return f'<table><thead><tr><th scope="col">Task</th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _more(table: Sequence[Row], columns: Sequence[Column]) -> str:
    measured = [column for column in columns if any(is_measured(row, column) for row in table)]
    if not measured:
        return ""
    labels = ", ".join(column.label.split(",")[0] for column in measured)
    return f"<details><summary>More: {escape(labels)}</summary>{_table(table, measured)}</details>"


def _kinds(results: Results) -> str:
    """The kinds of question, behind a click, each with the figures it has; nothing where every task has one kind."""
    table = kind_rows(results)
    if not table:
        return ""
    return f"<details><summary>By kind of question</summary>{_table(table, COLUMNS, total=False)}</details>"


def _sentences(sheet: Sheet | None) -> str:
    """How far messages keep to the number of sentences asked for, behind a click."""
    if sheet is None:
        return ""
    return f"<details><summary>{escape(sheet.title)}</summary>{_sheet(sheet)}</details>"


def _table_row(row: Row, columns: Sequence[Column], kind: str) -> str:
    cells = "".join(
        f'<td data-label="{escape(column.label)}">'
        f"{_side(row.before, column, 'from') if len(row.sides) > 1 else ''}{_side(row.after, column, 'now')}</td>"
        for column in columns
    )
    size = f"{count_text(row)} questions, {row.after['documents']:,} documents"
    return f'<tr class="{kind}"><th scope="row">{escape(row.name)} <small>{escape(size)}</small></th>{cells}</tr>'


def _side(figures: Mapping[str, Any], column: Column, kind: str) -> str:
    value = _typeset(value_text(figures[column.figure], column.format))
    ends = _typeset(bounds_text(figures[column.figure], column.format))
    return f'<span class="{kind}"><b>{escape(value)}</b> <i>{escape(ends)}</i></span>'


def _greedy(results: Mapping[str, Any]) -> str:
    """The leading figures of the most likely messages, where they were evaluated: a line a figure, with its change."""
    if "greedy" not in results:
        return ""
    overall = rows(results["greedy"])[0]
    if not is_compared(results):
        return _greedy_alone(overall)
    head = "".join(f'<th scope="col">{name}</th>' for name in ("Figure", "Before", "After", "Change"))
    body = "".join(
        _greedy_row(column, overall, how_much, ends)
        for column, (_, how_much, ends) in zip(LEADING, change_lines(results["greedy"]), strict=True)
    )
    return (
        '<section aria-labelledby="greedy"><h2 id="greedy">Greedy messages</h2>'
        '<p class="note">The same questions, with the most likely token at every step instead of a sampled one.</p>'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></section>"
    )


def _greedy_alone(overall: Row) -> str:
    return (
        '<section aria-labelledby="greedy"><h2 id="greedy">Greedy messages</h2>'
        '<p class="note">The same questions, with the most likely token at every step instead of a sampled one.</p>'
        f"{_table([overall], LEADING)}</section>"
    )


def _greedy_row(column: Column, overall: Row, how_much: str, ends: str) -> str:
    change = f"<span><b>{escape(_typeset(how_much))}</b> <i>{escape(_typeset(ends))}</i></span>"
    cells = {
        "Before": _side(overall.before, column, "from"),
        "After": _side(overall.after, column, "now"),
        "Change": change,
    }
    body = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells.items())
    return f'<tr><th scope="row">{escape(column.label)}</th>{body}</tr>'


def _baselines(baselines: Sequence[Point], compressors: Sequence[Point]) -> str:
    if not baselines:
        return ""
    drawing = baseline_drawing(baselines, compressors)
    return (
        '<section aria-labelledby="baselines"><h2 id="baselines">Beside the baselines</h2>'
        f'<p class="note">{escape(comparison(baselines, compressors[-1]))}</p>'
        f'<div class="wide">{_drawing(drawing) if drawing else ""}</div>'
        f"<details><summary>As a table</summary>{_sheet(baseline_sheet(baselines, compressors))}</details></section>"
    )


def _costs(sheet: Sheet | None) -> str:
    if sheet is None:
        return ""
    return (
        f'<section aria-labelledby="costs"><h2 id="costs">{escape(sheet.title)}</h2>'
        f'<p class="note">Floating-point operations, counted from the models’ sizes and the tokens.</p>{_sheet(sheet)}'
        "</section>"
    )


def _correlations(found: Sequence[Correlation]) -> str:
    if not found:
        return ""
    drawing = correlation_drawing(found)
    return (
        '<section aria-labelledby="correlations"><h2 id="correlations">What goes with what</h2>'
        '<p class="note">1 where one figure rises with the other, −1 where it falls.</p>'
        f'<div class="wide">{_drawing(drawing) if drawing else ""}</div>'
        f"<details><summary>As a table</summary>{_sheet(correlation_sheet(found))}</details></section>"
    )


def _sheet(sheet: Sheet) -> str:
    """A plain-text table as HTML; its first column heads the lines."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in sheet.columns)
    body = "".join(
        f'<tr><th scope="row">{escape(line[0])}</th>'
        + "".join(
            f'<td data-label="{escape(column)}"><span>{_figure(cell)}</span></td>'
            for column, cell in zip(sheet.columns[1:], line[1:], strict=True)
        )
        + "</tr>"
        for line in sheet.lines
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure(cell: str) -> str:
    """A value and, in smaller type, its interval."""
    return re.sub(r" (\[[^\]]*\])", r" <i>\1</i>", escape(_typeset(cell)))


def _rate(results: Mapping[str, Any]) -> tuple[Drawing | None, str]:
    """The rate-distortion drawing and the sentence about its curve."""
    operating = [
        Operating(task, *(_operating_point(stages[stage]) for stage in STAGES))
        for task, stages in results["tasks"].items()
    ]
    places = [place for point in operating for place in (point.before, point.after) if place is not None]
    if not places:
        return None, "No task has both an accuracy and a rate, so there is nothing to draw."
    fitted = fit([rate for rate, _ in places], [distortion for _, distortion in places])
    return rate_distortion(operating, fitted), fitted.statement


def _operating_point(figures: Mapping[str, Any]) -> tuple[float, float] | None:
    rate, accuracy = figures["bits_per_token"]["value"], figures["accuracy"]["value"]
    return None if rate is None or accuracy is None else (rate, 1 - accuracy)


def _curves(metrics: Sequence[Record]) -> str:
    drawings = training_curves(metrics)
    if not drawings:
        return '<p class="note">This run folder has no metrics.jsonl with training steps, so there are no curves.</p>'
    window = smoothing_window(len(metrics))
    how = f"Faint: every step. Full: running mean over {window} steps." if window > 1 else "Every step."
    return f'<p class="note">{how}</p><div class="curves">{"".join(map(_drawing, drawings))}</div>'


def _drawing(drawing: Drawing) -> str:
    """A figure with its caption; the SVG is matplotlib's, which escapes the texts in it."""
    keys = "".join(
        f'<span class="key" style="--key: var({custom_property})">{escape(name)}</span>'
        for name, custom_property in drawing.legend
    )
    return (
        f"<figure><figcaption>{escape(drawing.title)}{keys}"
        f'<span class="spoken">{escape(drawing.last)}</span></figcaption>{drawing.svg}</figure>'
    )


def _shown(pairs: int, total: int, compared: bool) -> str:
    if pairs == total:
        return f"All {total:,} questions, with the message{' before and after' if compared else ''}."
    return f"{pairs:,} of {total:,} questions, drawn evenly over the tasks; samples.jsonl holds them all."


def _meta(meta: Mapping[str, Any]) -> str:
    if not meta:
        return '<p class="note">The results carry no record of how they were made.</p>'
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _flattened(meta))
    return f'<dl class="terms">{lines}</dl>'


def _flattened(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and texts of a nested mapping, in its order."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)
