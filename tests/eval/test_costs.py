"""What a question costs: prices, means and correct answers by closed form, what is missing, and how it is shown."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.servers import Price
from eval.analysis.flops import DecoderSize, cost
from eval.costs import Prices, cost_row, flops_of_tokens, mean, per_correct
from eval.record import Record, Spent
from eval.report.page import report_tables, write_report
from eval.report.question_costs import NONE_CORRECT, precise, question_cost_tables
from eval.report.run_files import read_results
from tests.records import evaluation_record

PRICE = Price(read=2.0, written=8.0)
NO_FLOPS: Any = {"compressor": None, "predictor": None}


def spent(seconds: float | None = None, read: float | None = None, written: float | None = None) -> Spent:
    return {"seconds": seconds, "joules": None, "tokens_read": read, "tokens_written": written}


def record(accuracy: float | None, compressor: Spent | None, predictor: Spent | None, index: int = 0) -> Record:
    fields: dict[str, Any] = {"compressor_spent": compressor, "predictor_spent": predictor}
    fields = {name: value for name, value in fields.items() if value is not None}
    return evaluation_record(index, "after", accuracy=accuracy, **fields)


MEASURED = [
    record(1.0, spent(0.5, 400, 10), spent(0.1, 30, 2), 0),
    record(0.5, spent(0.7, 600, 20), spent(0.3, 50, 4), 1),
    record(0.0, spent(0.9, 800, 30), spent(0.5, 70, 6), 2),
]


def test_a_price_is_dollars_a_million_tokens() -> None:
    assert PRICE.dollars(1_000_000, 500_000) == 6.0
    row = cost_row("after", None, MEASURED, NO_FLOPS, Prices(Price(read=1.0, written=0.0), PRICE))
    assert row["per_question"]["predictor"]["dollars"] == pytest.approx((2 * 50 + 8 * 4) / 1e6)
    assert row["per_question"]["compressor"]["dollars"] == pytest.approx(600 / 1e6)
    assert row["per_question"]["total"]["dollars"] == pytest.approx(732 / 1e6)
    assert row["per_correct"]["total"]["dollars"] == pytest.approx(3 * 732 / 1.5 / 1e6)


def test_without_a_price_there_are_no_dollars_and_a_compressor_without_one_is_free() -> None:
    unpriced = cost_row("after", None, MEASURED, NO_FLOPS, Prices())
    assert {unpriced["per_question"][name]["dollars"] for name in ("compressor", "predictor", "total")} == {None}
    row = cost_row("after", None, MEASURED, NO_FLOPS, Prices(None, PRICE))
    assert row["per_question"]["compressor"]["dollars"] is None
    assert row["per_question"]["total"]["dollars"] == row["per_question"]["predictor"]["dollars"]
    compressor_alone = cost_row("after", None, MEASURED, NO_FLOPS, Prices(PRICE))
    assert compressor_alone["per_question"]["compressor"]["dollars"] is not None
    assert compressor_alone["per_question"]["total"]["dollars"] is None


def test_means_are_over_questions_and_a_correct_answer_costs_all_over_those_that_are_right() -> None:
    row = cost_row("after", 8, MEASURED, {"compressor": 1e9, "predictor": 5e8}, Prices())
    assert (row["name"], row.get("budget_tokens"), row["n"], row["correct"]) == ("after", 8, 3, 1.5)
    assert row["per_question"]["compressor"]["seconds"] == pytest.approx(0.7)
    assert row["per_question"]["predictor"]["seconds"] == pytest.approx(0.3)
    assert row["per_question"]["total"]["seconds"] == pytest.approx(1.0)
    assert row["per_correct"]["total"]["seconds"] == pytest.approx(3.0 / 1.5)
    assert row["per_correct"]["predictor"].get("tokens_read") == pytest.approx(150 / 1.5)
    assert row["per_question"]["total"]["flops"] == pytest.approx(1.5e9)
    assert row["per_correct"]["total"]["flops"] == pytest.approx(3 * 1.5e9 / 1.5)


def test_what_was_not_measured_is_missing_and_not_zero() -> None:
    unmeasured, half = record(1.0, None, None, 3), record(1.0, spent(None, 600, 20), spent(0.3, 50, 4), 4)
    row = cost_row("after", None, [*MEASURED, unmeasured, half], NO_FLOPS, Prices(None, PRICE))
    assert row["n"] == 5
    assert row["missing"]["compressor"] == {"seconds": 2, "joules": 5, "tokens_read": 1, "tokens_written": 1}
    assert row["missing"]["predictor"] == {"seconds": 1, "joules": 5, "tokens_read": 1, "tokens_written": 1}
    assert row["per_question"]["compressor"]["seconds"] == pytest.approx(0.7)
    # Of the questions whose time is known, 1.5 are right.
    assert row["per_correct"]["total"]["seconds"] == pytest.approx(3.0 / 1.5)
    assert row["per_question"]["total"]["dollars"] == pytest.approx((2 * 50 + 8 * 4) / 1e6)
    assert row["per_question"]["total"]["joules"] is None


def test_nothing_right_or_nothing_scored_has_no_cost_of_a_correct_answer() -> None:
    assert mean([None]) is None and per_correct([1.0], [0.0]) is None and per_correct([1.0], [None]) is None
    assert per_correct([1.0, 5.0], [0.5, None]) == 2.0
    unscored = cost_row("after", None, [record(None, spent(1.0), spent(1.0))], NO_FLOPS, Prices())
    assert unscored["correct"] is None and unscored["per_correct"]["total"]["seconds"] is None


def test_operations_follow_from_the_mean_tokens_and_nothing_read_is_no_operation() -> None:
    size = DecoderSize(10**6, 10**5, 4, 64)
    expected = cost(size, 50, 4)
    assert flops_of_tokens(size, MEASURED, "predictor") == expected.prefill + expected.generation
    part = cost(size, 300, 10)
    assert flops_of_tokens(size, MEASURED, "compressor", exchanges=2) == 2 * (part.prefill + part.generation)
    by_rule = [record(1.0, spent(0.1, 0, 0), spent(0.1))]
    assert flops_of_tokens(None, by_rule, "compressor") == 0
    assert flops_of_tokens(size, by_rule, "predictor") is None and flops_of_tokens(None, MEASURED, "predictor") is None


UNPRICED = Prices()


def rows(prices: Prices = UNPRICED) -> list[Any]:
    wrong = [record(0.0, spent(None, 0, 0), spent(0.25, 600, 2))]
    flops: Any = {"compressor": 4e9, "predictor": 1e9}
    return [
        cost_row("compressor, after", None, [*MEASURED, record(1.0, None, None, 3)], flops, prices),
        cost_row("bm25", 16, wrong, NO_FLOPS, prices),
    ]


def test_a_row_is_a_line_of_each_table_and_a_figure_that_nobody_measured_has_no_column() -> None:
    tables = {table.name: table for table in question_cost_tables(rows(Prices(None, PRICE)))}
    assert list(tables) == ["costs", "compressor_costs", "predictor_costs", "correct_costs"]
    assert tables["costs"].columns == ("Messages by", "Seconds", "FLOPs", "Dollars")
    assert tables["costs"].lines == (
        ("compressor, after", "1.00", "5.00 G", "0.000132"),
        ("bm25, 16", "not measured", "not measured", "0.00122"),
    )
    assert tables["compressor_costs"].columns == ("Messages by", "Seconds", "Tokens read", "Tokens written", "FLOPs")
    assert tables["compressor_costs"].lines[1] == ("bm25, 16", "not measured", "0", "0", "not measured")
    assert tables["predictor_costs"].lines[1] == ("bm25, 16", "0.250", "600", "2.00", "not measured", "0.00122")
    assert tables["correct_costs"].lines[0][:2] == ("compressor, after", "2.00")
    assert tables["correct_costs"].lines[1][1] == "not measured" and tables["correct_costs"].lines[1][3] == NONE_CORRECT
    assert "compressor, after: 1 of 4 (predictor, seconds)" in tables["costs"].note
    unpriced = {table.name: table for table in question_cost_tables(rows())}
    assert not [table for table in unpriced.values() if {"Dollars", "Joules"} & set(table.columns)]
    assert question_cost_tables([]) == []


def test_a_row_that_lacks_something_is_named() -> None:
    broken = rows()
    del broken[1]["missing"]
    with pytest.raises(ValueError, match=r"results.json: costs\[1\] has no 'missing'"):
        question_cost_tables(broken)


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.00000123456, "0.00000123"), (0.0999, "0.0999"), (12.34, "12.3"), (1234.5, "1,234")]
)
def test_small_amounts_keep_three_digits(value: float, text: str) -> None:
    assert precise(value) == text


def test_the_page_shows_costs_and_hides_what_there_is_not(run_folder: Path) -> None:
    page = run_folder / "report.html"
    write_report(run_folder)
    assert "question-costs" not in page.read_text() and "Costs of a question" not in page.read_text()
    results: Any = read_results(run_folder / "results.json")

    (run_folder / "results.json").write_text(json.dumps(results | {"costs": rows(Prices(None, PRICE))}))
    write_report(run_folder)
    shown = page.read_text()
    section = shown.partition('<h2 id="question-costs">')[2].partition("</section>")[0]
    assert "bm25, 16" in section and "0.000132" in section and "Costs of a correct answer" in section
    assert "Dollars" in section and "Joules" not in section
    assert '<a href="#question-costs">Costs</a>' in shown
    names = [table.name for table in report_tables(read_results(run_folder / "results.json"))]
    assert names[-4:] == ["costs", "compressor_costs", "predictor_costs", "correct_costs"]
    assert "Costs of a question" in (run_folder / "tables.md").read_text()
