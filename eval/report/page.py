"""The report of a run as one self-contained page: answer first, then figures, pictures and the messages themselves.

The page loads nothing. Contexts, messages and names are untrusted: the templates escape all they show, the page's
script shows texts through textContent, and the page's policy lets no other script run.
"""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from data.errors import DataError
from data.writing import write_text
from eval.analysis.rate_distortion import fit
from eval.report.baselines import (
    baseline_drawing,
    baseline_methods,
    baseline_table,
    comparison,
    compressor_methods,
    lead_table,
)
from eval.report.correlations import correlation_drawing, correlation_table
from eval.report.costs import cost_table
from eval.report.diagnostics import diagnostics_table
from eval.report.drawing import Drawing
from eval.report.example import RULE, example
from eval.report.facts import configuration, facts, kept_step, others
from eval.report.formats import value_text
from eval.report.headline import headline
from eval.report.latex import latex
from eval.report.markdown import markdown
from eval.report.question_costs import question_cost_tables
from eval.report.rate_distortion import operating_points, rate_distortion_drawing
from eval.report.readers import reader_table
from eval.report.results import Decoding, Figure, Results, decodings
from eval.report.rows import (
    COLUMNS,
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
from eval.report.run_files import check_count, json_lines, read_results, with_whole_characters
from eval.report.samples import browser_data, chosen_pairs, script_json
from eval.report.sentence_counts import sentence_table
from eval.report.tables import Table, result_tables
from eval.report.training_curves import is_watched, smoothing_window, training_curves
from eval.report.training_messages import training_messages

TEMPLATES = Path(__file__).parent / "templates"

MAIN_COLUMNS = COLUMNS[:5]
"""The columns in view: a table of more is wider than a laptop's window. The others are one click away."""

GREEDY_SAMPLES = "samples.greedy.jsonl"

FILES = (
    "results.json",
    "samples.jsonl",
    GREEDY_SAMPLES,
    "messages.jsonl",
    "metrics.jsonl",
    "tables.md",
    "tables.tex",
    "config.yaml",
)
"""The files of a run folder that the page links to, where they are."""

PERPLEXITY = next(column for column in COLUMNS if column.figure == "perplexity")


def write_report(run_folder: Path, seed: int = 0) -> Path:
    """Write ``report.html``, and its tables as ``tables.md`` and ``tables.tex``, from the files of a run.

    Args:
        run_folder: holds ``results.json``, ``samples.jsonl`` and, for the training curves, ``metrics.jsonl``.
        seed: draws the messages where there are more than the page shows.

    Returns:
        The path of the page; the same files give the same bytes.

    Raises:
        DataError: ``results.json`` or ``samples.jsonl`` is missing, is not JSON, or lacks what it must have, or one of
            them is of other questions than the other.
    """
    for file in ("results.json", "samples.jsonl"):
        if not (run_folder / file).is_file():
            raise DataError(f"{run_folder / file} is missing: the report is made from it")
    results = read_results(run_folder / "results.json")
    metrics, messages = (_lines(run_folder / file) for file in ("metrics.jsonl", "messages.jsonl"))
    greedy = run_folder / GREEDY_SAMPLES if (run_folder / GREEDY_SAMPLES).is_file() else None
    shown = example(greedy or run_folder / "samples.jsonl")
    chosen = chosen_pairs(run_folder / "samples.jsonl", seed, greedy, shown.id if shown else None)
    check_count(run_folder / "samples.jsonl", results["overall"])
    # A folder's name may hold bytes that are no UTF-8; Python shows them as halves of surrogate pairs.
    name = with_whole_characters(run_folder.resolve().name)
    page, tables = run_folder / "report.html", report_tables(results)
    write_text(run_folder / "tables.md", markdown(results, tables))
    write_text(run_folder / "tables.tex", latex(results, tables))
    files = {
        "example": shown,
        "rule": RULE,
        "written": training_messages(messages),
        "files": [file for file in FILES if (run_folder / file).is_file()],
    }
    write_text(page, render(name, results, metrics, browser_data(chosen), chosen.total, files))
    return page


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a file that not every run has."""
    return list(json_lines(path)) if path.is_file() else []


def report_tables(results: Results) -> list[Table]:
    """Every table of the report, the same for Markdown, LaTeX and W&B.

    Raises:
        DataError: a baseline, correlation, cost or count of sentences lacks what it must have.
    """
    baselines = baseline_methods(results.get("baselines", []))
    optional = (
        sentence_table(results.get("sentences", [])),
        reader_table(results.get("readers", [])),
        baseline_table(baselines, compressor_methods(results)) if baselines else None,
        lead_table(results.get("leads", [])),
        cost_table(results.get("flops", [])),
        *question_cost_tables(results.get("costs", [])),
        correlation_table(results.get("correlations", [])),
        diagnostics_table(results.get("diagnostics", {})),
    )
    return [*result_tables(results), *(table for table in optional if table is not None)]


def render(
    name: str,
    results: Results,
    metrics: Sequence[Mapping[str, Any]],
    data: Mapping[str, Any],
    total: int,
    files: Mapping[str, Any],
) -> str:
    """The page as HTML.

    Args:
        name: the name of the run.
        results: the contents of ``results.json``.
        metrics: the lines of ``metrics.jsonl``.
        data: the messages that the page's script shows.
        total: the number of questions that they are drawn from.
        files: what else of the run folder is shown or named, by the template's names.
    """
    script, meta = asset("page.js"), results.get("meta", {})
    kept = kept_step(meta)
    steps = [line for line in metrics if not is_watched(line)]
    return (
        _environment()
        .get_template("page.html")
        .render(
            run=name,
            style=asset("page.css"),
            script=script,
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            data=script_json(data),
            data_scale=data["scale"],
            shown=_shown(len(data["pairs"]), total, is_compared(results)),
            curves=training_curves(metrics, results["overall"], kept),
            window=smoothing_window(len(steps)),
            watched=len(steps) < len(metrics),
            kept=kept,
            facts=facts(meta),
            configuration=configuration(meta),
            meta=others(meta),
            **files,
            **_figures(results),
            **_comparisons(results),
        )
    )


def _environment() -> Environment:
    """Templates that escape whatever they show and do not pass over a name that is missing."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["typeset"] = typeset
    environment.filters["small_intervals"] = small_intervals
    environment.filters["value"] = _value
    return environment


def typeset(text: str) -> str:
    """Plain text with the signs of print: minus, times and apostrophe."""
    text = re.sub(r"(?<!\w)-(?=[\d.])", "−", text)
    return re.sub(r"(?<=\d)x\b", "×", text).replace("'", "’")


def small_intervals(text: str, tag: str) -> Markup:
    """Escaped text whose intervals, in brackets, stand in an element of smaller type."""
    return Markup(re.sub(r" (\[[^\]]*\])", rf" <{tag}>\1</{tag}>", str(escape(text))))


def _value(figure: Figure, column: Column) -> str:
    return typeset(value_text(figure, column.format))


def asset(name: str) -> str:
    """A file of the page, such as its style sheet."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _figures(results: Results) -> dict[str, Any]:
    """The figures of the evaluation itself, by the names that the template has for them."""
    return {
        "headline": headline(results),
        "compared": is_compared(results),
        "decodings": [_decoding(decoding) for decoding in decodings(results)],
    }


def _decoding(decoding: Decoding) -> dict[str, Any]:
    """The figures of one way of choosing tokens, as the template shows them."""
    table, kinds = rows(decoding.summary), kind_rows(decoding.summary)
    main = _main_columns(table)
    more = [column for column in measured_columns(table) if column not in main]
    return {
        "title": decoding.title,
        "anchor": f"tasks-{decoding.name}" if decoding.name else "tasks",
        "row": table[0],
        "rows": table,
        "leading": measured_columns(table[:1], LEADING),
        "changes": {change.label: change for change in changes(decoding.summary)},
        "missing": missing_note(decoding.summary),
        "main_columns": measured_columns(table, main),
        "more_columns": more,
        "more_labels": ", ".join(column.label.split(",")[0] for column in more),
        "kinds": kinds,
        "kind_columns": measured_columns(kinds),
    }


def _main_columns(table: Sequence[Row]) -> list[Column]:
    """The columns in view; where a task has no accuracy its perplexity comes into view."""
    needs_perplexity = any(not is_measured(row, COLUMNS[0]) for row in table)
    return [column for column in COLUMNS if column in MAIN_COLUMNS or (column == PERPLEXITY and needs_perplexity)]


def _comparisons(results: Results) -> dict[str, Any]:
    """What stands beside the figures: baselines, costs, correlations, rate and distortion."""
    methods, compressors = baseline_methods(results.get("baselines", [])), compressor_methods(results)
    rate_drawing, rate_statement = _rate(results)
    entries = results.get("correlations", [])
    return {
        "diagnostics": diagnostics_table(results.get("diagnostics", {})),
        "sentences": sentence_table(results.get("sentences", [])),
        "readers": reader_table(results.get("readers", [])),
        "baselines": {
            "comparison": comparison(methods, compressors[-1]),
            "drawing": baseline_drawing(methods, compressors),
            "table": baseline_table(methods, compressors),
            "leads": lead_table(results.get("leads", [])),
        }
        if methods
        else None,
        "rate_drawing": rate_drawing,
        "rate_statement": rate_statement,
        "costs": cost_table(results.get("flops", [])),
        "question_costs": question_cost_tables(results.get("costs", [])),
        "correlations": correlation_table(entries),
        "correlation_drawing": correlation_drawing(entries),
    }


def _rate(results: Results) -> tuple[Drawing | None, str]:
    """The drawing of rate and distortion, and the sentence about its curve."""
    points = operating_points(results)
    positions = [position for point in points for position in point.positions]
    if not positions:
        return None, "No task has both an accuracy and a rate, so there is nothing to draw."
    fitted = fit([rate for rate, _ in positions], [distortion for _, distortion in positions])
    return rate_distortion_drawing(points, fitted), fitted.statement


def _shown(pairs: int, total: int, compared: bool) -> str:
    if pairs == total:
        return f"All {total:,} questions, with the message{' before and after' if compared else ''}."
    return f"{pairs:,} of {total:,} questions, drawn evenly over the tasks; samples.jsonl holds them all."
