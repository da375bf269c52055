"""Baselines, correlations and costs in the report: what is drawn, what is said, and what is refused by name."""

import re
from typing import Any

import pytest

from eval.analysis.correlation import correlations as measure_correlations
from eval.analysis.density import summarise
from eval.analysis.flops import DecoderSize, cost
from eval.analysis.significance import Bootstrap
from eval.report.baselines import (
    LINE_STYLES,
    Method,
    baseline_drawing,
    baseline_methods,
    baseline_table,
    comparison,
    compressor_methods,
    lead_table,
)
from eval.report.correlations import correlation_drawing, correlation_table
from eval.report.costs import cost_table
from eval.report.formats import quantity
from eval.report.page import report_tables


def figure(value: float | None, spread: float = 0.0) -> dict[str, float | None]:
    if value is None:
        return {"value": None, "low": None, "high": None}
    return {"value": value, "low": value - spread, "high": value + spread}


def baseline(name: str, accuracy: float | None, tokens: float, budget: int | None = None) -> Any:
    measured = {"accuracy": figure(accuracy, 0.05), "message_tokens": figure(tokens)}
    return {"name": name, "budget_tokens": budget, **measured}


@pytest.fixture
def results(records: Any) -> Any:
    """Messages of 6 tokens before and 3 after, with four baselines."""
    baselines = [
        baseline("head", 0.3, 3, 3),
        baseline("head", 0.5, 6, 6),
        baseline("bm25 <b>$x$</b>", 0.4, 3, 3),
        baseline("full-context", 0.9, 900),
    ]
    return summarise(records) | {"baselines": baselines}


def methods(results: Any) -> tuple[list[Method], list[Method]]:
    return baseline_methods(results["baselines"]), compressor_methods(results)


def test_a_line_for_every_baseline_and_the_compressor_before_and_after(results: Any) -> None:
    drawing = baseline_drawing(*methods(results))
    assert drawing is not None
    names = re.findall(r"<text[^>]*>([^<]*)</text>", drawing.svg)
    assert {"head", "bm25 &lt;b&gt;$x$&lt;/b&gt;", "full-context", "untrained", "adapter"} <= set(names)
    assert "var(--after)" in drawing.svg and re.findall(r"#[0-9a-f]{6}\b", drawing.svg) == []
    assert "full-context, 90.0% in 900 tokens" in drawing.description


def test_no_two_lines_of_baselines_look_alike() -> None:
    assert len(set(LINE_STYLES)) == 35


def test_the_sentence_compares_with_the_best_baseline_of_the_same_length(results: Any) -> None:
    before, after = compressor_methods(results)
    assert comparison(baseline_methods(results["baselines"]), after) == (
        "Of the baselines no longer than the adapter’s messages the best is bm25 <b>$x$</b>, 40.0% in 3.00 tokens; "
        "the adapter reaches 66.7% in 3.00. The best of all is full-context, 90.0% in 900 tokens."
    )
    assert "the best is head, 50.0% in 6.00 tokens" in comparison(baseline_methods(results["baselines"]), before)


def test_without_a_baseline_as_short_the_sentence_says_so(results: Any) -> None:
    _, (_, after) = methods(results | {"baselines": [baseline("full-context", 0.9, 900)]})
    text = comparison(baseline_methods([baseline("full-context", 0.9, 900)]), after)
    assert text.startswith("No baseline writes as few tokens as the adapter; the adapter reaches 66.7% in 3.00 tokens.")


def test_a_baseline_without_an_accuracy_is_in_the_table_and_not_in_the_figure(results: Any) -> None:
    unscored = results | {"baselines": [baseline("unscored", None, 5, 8)]}
    baselines, compressors = methods(unscored)
    drawing = baseline_drawing(baselines, compressors)
    assert drawing is not None and "unscored" not in drawing.svg
    assert baseline_table(baselines, compressors).lines[0] == ("unscored", "8", "5.00 [within rounding]")
    assert comparison(baselines, compressors[1]).startswith("No baseline has both")


def test_the_table_has_what_a_baseline_measured_for_the_adapter_too(results: Any) -> None:
    table = baseline_table(*methods(results))
    assert table.columns == ("Messages by", "Budget, tokens", "Accuracy", "Message tokens")
    assert [line[0] for line in table.lines][-3:] == ["full-context", "untrained", "adapter"]
    assert table.lines[3][1] == "none"


@pytest.mark.parametrize("key", ["name", "accuracy", "message_tokens"])
def test_a_baseline_that_lacks_something_is_named(results: Any, key: str) -> None:
    del results["baselines"][2][key]
    with pytest.raises(ValueError, match=rf"results.json: baselines\[2\] has no '{key}'"):
        report_tables(results)


def test_correlations_are_shown_as_the_evaluation_writes_them(records: Any) -> None:
    after = [record for record in records if record["stage"] == "after"]
    measured: Any = [estimate.as_dict() for estimate in measure_correlations(after, bootstrap=Bootstrap(50))]
    table = correlation_table(measured)
    assert table is not None
    assert [line[0] for line in table.lines][:2] == [
        "information bits and perplexity, Pearson",
        "information bits and perplexity, Spearman",
    ]
    assert table.lines[0][1:] == ("samples", "not measured", "24", "0")
    assert re.fullmatch(r"[-+]\d\.\d\d \[[-+]\d\.\d\d, [-+]\d\.\d\d\]", table.lines[2][2])
    drawing = correlation_drawing(measured)
    assert drawing is not None and "perplexity" not in drawing.svg and "accuracy, Spearman" in drawing.svg


def test_no_defined_correlation_makes_no_figure(records: Any) -> None:
    measured: Any = [
        correlation.as_dict() for correlation in measure_correlations(records[:1], bootstrap=Bootstrap(10))
    ]
    assert correlation_drawing(measured) is None


def test_a_correlation_that_lacks_something_is_named(results: Any) -> None:
    with pytest.raises(ValueError, match=r"results.json: correlations\[0\] has no 'y'"):
        report_tables(results | {"correlations": [{"x": "accuracy"}]})


def test_costs_are_shown_as_the_evaluation_counts_them() -> None:
    spent = cost(DecoderSize(10**9, 10**8, 24, 1024), prompt_tokens=1000, generated_tokens=20).as_dict()
    entries: Any = [{"name": "compressor", **spent}, {"name": "predictor", "prompt_tokens": 30}]
    table = cost_table(entries)
    assert table is not None
    assert table.columns == (
        "Model",
        "Tokens read",
        "Reading (prefill), FLOPs",
        "Writing, FLOPs",
        "FLOPs a token written",
    )
    assert table.lines[0] == ("compressor", "not measured", "1.82 T", "41.0 G", "2.05 G")
    assert table.lines[1] == ("predictor", "30.0", "not measured", "not measured", "not measured")


def test_without_costs_there_is_no_table_and_a_cost_without_a_name_is_refused() -> None:
    nameless: Any = [{"prefill_flops": 1}]
    assert cost_table([]) is None
    with pytest.raises(ValueError, match=r"results.json: flops\[0\] has no 'name'"):
        cost_table(nameless)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (950_000, "950,000"), (2.1e12, "2.10 T"), (6.4e19, "64.0 E")])
def test_large_counts_have_a_prefix(value: float, text: str) -> None:
    assert quantity(value) == text


def test_every_table_of_a_run_is_listed_once(results: Any) -> None:
    names = [table.name for table in report_tables(results | {"flops": [{"name": "compressor", "prefill_flops": 1e9}]})]
    assert names == ["summary", "tasks", "changes", "baselines", "flops"]


def test_further_estimators_are_listed_with_their_side(results: Any) -> None:
    figures = {"nwj": {"side": "lower", **figure(1.5, 0.25), "missing": 2}}
    table = next(t for t in report_tables(results | {"diagnostics": {"after": figures}}) if t.name == "diagnostics")
    assert table.lines == (("NWJ", "after", "lower", "1.50 [1.25, 1.75]", "2"),)


def test_leads_at_equal_tokens_are_a_table_and_nothing_without_them() -> None:
    entry: Any = {"name": "bm25", "accuracy": {"value": 0.125, "low": -0.02, "high": 0.2}}
    table = lead_table([entry | {"from_tokens": 12.0, "to_tokens": 12.0}])
    assert table is not None and table.lines[0][:2] == ("bm25", "12.0")
    assert "+12.5" in table.lines[0][2] and "-2.0" in table.lines[0][2].replace("\u2212", "-")
    assert lead_table([]) is None
