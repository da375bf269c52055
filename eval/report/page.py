"""The report of a run as one self-contained page: answer first, then figures, pictures and the messages themselves.

The page loads nothing. Contexts, messages and names are untrusted: what Python writes is escaped, what the page's
script shows goes through textContent, and the page's policy lets no other script run.
"""

import base64
import hashlib
import json
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from eval.density import STAGES
from eval.rate_distortion import fit
from eval.report.figures import Drawing, Operating, rate_distortion, smoothing_window, training_curves
from eval.report.table import (
    COLUMNS,
    LEADING,
    Column,
    Row,
    bounds_text,
    change_lines,
    count_text,
    headline,
    missing_note,
    rows,
    value_text,
)

MOST_PAIRS = 120
MOST_CONTEXT_CHARACTERS = 20_000
MAIN_COLUMNS, MORE_COLUMNS = COLUMNS[:5], COLUMNS[5:]

Record = Mapping[str, Any]
Pair = dict[str, Record]


def write_report(run_folder: Path, seed: int = 0) -> Path:
    """Write ``report.html`` from the files of a run.

    Args:
        run_folder: holds ``results.json``, ``samples.jsonl`` and, for the training curves, ``metrics.jsonl``.
        seed: of the choice of messages where there are more than the page shows.

    Returns:
        The path of the page; the same files give the same bytes.

    Raises:
        FileNotFoundError: there is no ``results.json`` or no ``samples.jsonl``.
        ValueError: a line that is not JSON, or a message without a figure for every token.
    """
    for name in ("results.json", "samples.jsonl"):
        if not (run_folder / name).is_file():
            raise FileNotFoundError(f"{run_folder / name} is missing: the report is made from it")
    results = json.loads((run_folder / "results.json").read_text(encoding="utf-8"))
    metrics_path = run_folder / "metrics.jsonl"
    metrics = list(_json_lines(metrics_path)) if metrics_path.is_file() else []
    pairs, total = _chosen_pairs(run_folder / "samples.jsonl", seed)
    page = run_folder / "report.html"
    text = _page(run_folder.resolve().name, results, metrics, pairs, total)
    # Half of a surrogate pair has no UTF-8 form; a truncated message can hold one.
    page.write_text(text, encoding="utf-8", errors="xmlcharrefreplace", newline="\n")
    return page


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} line {number} is not JSON: {error}") from error


def _page(name: str, results: Mapping[str, Any], metrics: Sequence[Record], pairs: Sequence[Pair], total: int) -> str:
    answer, table = headline(results), rows(results)
    script, data = _asset("page.js"), _data(pairs)
    drawing, statement = _rate(results)
    parts = {
        "title": escape(f"Shorthand: {name}"),
        "run": escape(name),
        "headline": escape(_typeset(answer.sentence)),
        "evidence": escape(answer.evidence),
        "tiles": _tiles(results, table[0]),
        "missing": escape(missing_note(results)),
        "table": _table(table, MAIN_COLUMNS),
        "more": _more(table),
        "greedy": _greedy(results),
        "fit": escape(_typeset(statement)),
        "rate": _drawing(drawing) if drawing else "",
        "curves": _curves(metrics),
        "shown": escape(_shown(len(pairs), total)),
        "scale": f"{data['scale']:.1f}",
        "meta": _meta(results.get("meta", {})),
        "style": _asset("page.css"),
        "script": script,
        "script_hash": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "data": _script_json(data),
    }
    return Template(_asset("page.html")).substitute(parts)


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _tiles(results: Mapping[str, Any], overall: Row) -> str:
    tiles = (
        _tile(column, overall, how_much, ends)
        for column, (_, how_much, ends) in zip(LEADING, change_lines(results), strict=True)
    )
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _tile(column: Column, overall: Row, how_much: str, ends: str) -> str:
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


def _table(table: Sequence[Row], columns: Sequence[Column]) -> str:
    measured = [column for column in columns if any(_is_measured(row, column) for row in table)]
    head = "".join(f'<th scope="col">{escape(column.label)}</th>' for column in measured)
    body = "".join(_table_row(row, measured, "overall" if row is table[0] else "") for row in table)
    return f'<table><thead><tr><th scope="col">Task</th>{head}</tr></thead><tbody>{body}</tbody></table>'


def _more(table: Sequence[Row]) -> str:
    if not any(_is_measured(row, column) for row in table for column in MORE_COLUMNS):
        return ""
    labels = ", ".join(column.label.split(",")[0].lower() for column in MORE_COLUMNS)
    return f"<details><summary>More: {escape(labels)}</summary>{_table(table, MORE_COLUMNS)}</details>"


def _is_measured(row: Row, column: Column) -> bool:
    return any(side[column.figure]["value"] is not None for side in (row.before, row.after))


def _table_row(row: Row, columns: Sequence[Column], kind: str) -> str:
    cells = "".join(
        f'<td data-label="{escape(column.label)}">'
        f"{_side(row.before, column, 'from')}{_side(row.after, column, 'now')}</td>"
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


def _greedy_row(column: Column, overall: Row, how_much: str, ends: str) -> str:
    change = f"<span><b>{escape(_typeset(how_much))}</b> <i>{escape(_typeset(ends))}</i></span>"
    cells = {
        "Before": _side(overall.before, column, "from"),
        "After": _side(overall.after, column, "now"),
        "Change": change,
    }
    body = "".join(f'<td data-label="{label}">{cell}</td>' for label, cell in cells.items())
    return f'<tr><th scope="row">{escape(column.label)}</th>{body}</tr>'


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


def _shown(pairs: int, total: int) -> str:
    if pairs == total:
        return f"All {total:,} questions, with the message before and after."
    return f"{pairs:,} of {total:,} questions, drawn evenly over the tasks."


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


def _chosen_pairs(path: Path, seed: int) -> tuple[list[Pair], int]:
    """The pairs the page shows, tasks by turns, and how many there are in all.

    The file is read twice, so that memory holds the contexts of the chosen alone.
    """
    tasks: dict[str, dict[str, None]] = {}
    for record in _json_lines(path):
        tasks.setdefault(record["task"], {})[record["id"]] = None
    chosen = _evenly({task: list(ids) for task, ids in tasks.items()}, MOST_PAIRS, seed)
    pairs: dict[str, Pair] = {id_: {} for id_ in chosen}
    for record in _json_lines(path):
        if record["id"] in pairs:
            pairs[record["id"]][record["stage"]] = record
    return list(pairs.values()), sum(map(len, tasks.values()))


def _evenly(ids: Mapping[str, Sequence[str]], most: int, seed: int) -> list[str]:
    """At most that many ids, one of each task by turns, each task's in random order; a short task leaves room."""
    generator = random.Random(seed)
    queues = [generator.sample(ids[task], len(ids[task])) for task in sorted(ids)]
    turns = (queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue))
    return [id_ for _, id_ in zip(range(most), turns, strict=False)]


def _data(pairs: Sequence[Pair]) -> dict[str, Any]:
    """What the page's script shows; contexts are kept once each."""
    contexts: dict[str, int] = {}
    shown = [_pair_data(pair, contexts) for pair in pairs]
    return {
        "tasks": sorted({pair["task"] for pair in shown}),
        "scale": _full_shade(shown),
        "contexts": [{"text": text[:MOST_CONTEXT_CHARACTERS], "characters": len(text)} for text in contexts],
        "pairs": shown,
    }


def _pair_data(pair: Pair, contexts: dict[str, int]) -> dict[str, Any]:
    record = next(iter(pair.values()))
    sides = {stage: _side_data(pair[stage]) if stage in pair else None for stage in STAGES}
    return {
        "task": record["task"],
        "document": record["document_id"],
        "question": record["question"],
        "options": list(record["options"]),
        "answers": list(record["answers"]),
        "context": contexts.setdefault(record["context"], len(contexts)),
        "verdict": _verdict(sides),
        **sides,
    }


def _side_data(record: Record) -> dict[str, Any]:
    tokens, bits = record["tokens"], record["token_bits"] or []
    if bits and len(tokens) != len(bits):
        raise ValueError(
            f"record {record['id']!r} ({record['stage']}): {len(tokens)} tokens, {len(bits)} of them with bits"
        )
    nats = _finite(record["information_nats"])
    return {
        "message": record["message"],
        "message_tokens": record["message_tokens"],
        "tokens": list(tokens) if bits else [],
        "token_bits": [round(value, 3) for value in bits],
        "bits": None if nats is None else round(nats / math.log(2), 3),
        "prediction": record["prediction"],
        "accuracy": _finite(record["accuracy"]),
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _verdict(sides: Mapping[str, Record | None]) -> str:
    """What became of the answer: better, worse, same, or unscored where one side has no score."""
    before, after = (side["accuracy"] if side else None for side in (sides["before"], sides["after"]))
    if before is None or after is None:
        return "unscored"
    return "same" if after == before else "better" if after > before else "worse"


def _full_shade(pairs: Iterable[Record]) -> float:
    """The bits at which a token has the full shade: nearly the most any has, outliers aside."""
    sides = (side for pair in pairs for side in (pair["before"], pair["after"]) if side)
    bits = [value for side in sides for value in side["token_bits"] if value > 0]
    return round(max(0.1, float(np.quantile(bits, 0.98))), 1) if bits else 1.0


def _script_json(data: Mapping[str, Any]) -> str:
    """JSON that no HTML parser can end early: markup characters and all beyond ASCII as escapes."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
