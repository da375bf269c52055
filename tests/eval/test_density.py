"""The summary of an evaluation against figures worked out by hand."""

import math
import random
from collections.abc import Callable
from typing import Any

import pytest

from eval.analysis.density import TERMS, summarise
from eval.record import Record

Build = Callable[..., Record]
BIT = math.log(2)


def value(summary: dict[str, Any], figure: str, stage: str = "before") -> float | None:
    return summary["overall"][stage][figure]["value"]


def test_the_summary_has_every_figure_overall_and_by_task(records: list[Record]) -> None:
    summary = summarise(records)
    assert set(summary) == {"overall", "tasks", "kinds", "change"}
    assert set(summary["tasks"]) == {record["task"] for record in records}
    ratios = {"accuracy_ratio", "message_tokens_ratio", "information_ratio", "bits_per_token_ratio"}
    assert set(summary["change"]) == {"accuracy", "information_bits", *ratios}
    for stages in (summary["overall"], *summary["tasks"].values()):
        for stage in ("before", "after"):
            assert set(stages[stage]) == {*TERMS, "n", "missing", "documents"}
            assert all(set(stages[stage][figure]) >= {"value", "low", "high"} for figure in TERMS)


def test_bits_per_token_is_a_ratio_of_sums_not_a_mean_of_ratios(record: Build) -> None:
    summary = summarise(
        [
            record(0, document="a", information_nats=4 * BIT, message_tokens=2),
            record(0, document="b", information_nats=1 * BIT, message_tokens=8),
        ]
    )
    assert value(summary, "bits_per_token") == pytest.approx(5 / 10)
    assert value(summary, "information_bits") == pytest.approx(2.5)


def test_perplexity_weighs_every_answer_token_alike(record: Build) -> None:
    summary = summarise(
        [
            record(0, document="a", answer_nll_nats=1.0, answer_tokens=1),
            record(0, document="b", answer_nll_nats=3.0, answer_tokens=7),
        ]
    )
    assert value(summary, "perplexity") == pytest.approx(math.exp(4 / 8))


def test_a_missing_score_is_left_out_of_its_mean_and_counted(record: Build) -> None:
    summary = summarise(
        [
            record(0, document="a", accuracy=1.0),
            record(0, document="b", accuracy=None, information_nats=None),
            record(0, document="c", accuracy=0.0, information_nats=float("nan")),
        ]
    )
    assert value(summary, "accuracy") == 0.5
    assert value(summary, "information_bits") == pytest.approx(1 / BIT)
    assert value(summary, "bits_per_token") == pytest.approx(1 / BIT / 6)
    assert value(summary, "message_tokens") == 6
    assert (summary["overall"]["before"]["n"], summary["overall"]["before"]["missing"]) == (3, 2)


def test_a_figure_nobody_measured_is_none_and_not_counted_as_missing(record: Build) -> None:
    summary = summarise([record(0, document=name, answer_nll_nats=None) for name in "ab"])
    assert summary["overall"]["before"]["perplexity"] == {"value": None, "low": None, "high": None}
    assert summary["overall"]["before"]["missing"] == 0


def test_a_task_that_lost_every_score_is_counted_as_missing(record: Build) -> None:
    summary = summarise([record(0, task="kept"), record(0, task="lost", accuracy=None)])
    assert summary["tasks"]["lost"]["before"]["missing"] == 1
    assert summary["tasks"]["kept"]["before"]["missing"] == 0


def test_negative_information_is_clipped_in_the_mean_only(record: Build) -> None:
    mixed = summarise([record(0, document=name, information_nats=nats * BIT) for name, nats in (("a", -1), ("b", 3))])
    assert value(mixed, "information_bits") == pytest.approx(1.0)
    negative = summarise([record(0, document=name, information_nats=-1.0) for name in "ab"])
    assert value(negative, "information_bits") == 0.0
    assert value(negative, "bits_per_token") == 0.0


def test_negative_task_information_stays_visible(record: Build) -> None:
    summary = summarise([record(0, document=name, task_information_nats=-BIT) for name in "ab"])
    assert value(summary, "task_information_bits") == pytest.approx(-1.0)


def test_the_changes_are_those_of_the_questions_scored_at_both_stages(record: Build) -> None:
    summary = summarise(
        [
            record(0, "before", document="a", accuracy=1.0, message_tokens=30, information_nats=1.0),
            record(0, "after", document="a", accuracy=0.5, message_tokens=10, information_nats=2.0),
            record(0, "before", document="b", accuracy=0.0, message_tokens=50, information_nats=1.0),
            record(0, "after", document="b", accuracy=1.0, message_tokens=10, information_nats=2.0),
            record(0, "before", document="c", accuracy=1.0, message_tokens=20, information_nats=1.0),
            record(0, "after", document="c", accuracy=None, message_tokens=20, information_nats=None),
        ]
    )
    change = summary["change"]
    assert change["accuracy"]["value"] == pytest.approx(1.5 / 2 - 1 / 2)
    assert change["accuracy_ratio"]["value"] == pytest.approx(1.5)
    assert change["message_tokens_ratio"]["value"] == pytest.approx(100 / 40)
    assert change["bits_per_token_ratio"]["value"] == pytest.approx((4 / 20) / (2 / 80))


def test_kinds_of_question_are_apart_where_a_task_has_several(record: Build) -> None:
    made = [
        record(0, stage, "pages", document, kind=kind, id=f"{document} {kind}", answer_nll_nats=nats, accuracy=None)
        for stage in ("before", "after")
        for document in ("a", "b")
        for kind, nats in (("extractive", 1.0), ("creative", 4.0))
    ]
    kinds = summarise([*made, record(0, task="notes")])["kinds"]
    assert list(kinds) == ["pages"] and list(kinds["pages"]) == ["creative", "extractive"]
    extractive = kinds["pages"]["extractive"]["after"]
    assert extractive["perplexity"]["value"] == pytest.approx(math.exp(1 / 2))
    assert (extractive["n"], extractive["documents"], extractive["accuracy"]["value"]) == (2, 2, None)


def test_the_ratio_of_accuracies_is_paired_by_question_and_document(record: Build) -> None:
    def made(stage: str, right: float) -> list[Record]:
        return [record(0, stage, document=f"d{number}", accuracy=right * (number % 2)) for number in range(20)]

    ratio = summarise(made("before", 1.0) + made("after", 0.8))["change"]["accuracy_ratio"]
    assert ratio["value"] == pytest.approx(0.8) and ratio["method"] == "constant"


def test_every_answer_right_has_an_interval_by_documents(record: Build) -> None:
    summary = summarise([record(question, document=f"d{number}") for number in range(20) for question in range(4)])
    figure = summary["overall"]["before"]["accuracy"]
    assert figure["method"] == "wilson" and figure["low"] == pytest.approx(20 / (20 + 1.96**2), abs=1e-4)
    assert figure["high"] == 1.0


def test_the_change_of_information_is_in_bits_and_as_a_share(record: Build) -> None:
    sides = {"before": (3.0, 2.0), "after": (2.0, 1.0)}
    summary = summarise(
        [
            record(0, stage, document=name, information_nats=bits * BIT)
            for stage, both in sides.items()
            for name, bits in zip("ab", both, strict=True)
        ]
    )
    assert summary["change"]["information_bits"]["value"] == pytest.approx(-1.0)
    assert summary["change"]["information_ratio"]["value"] == pytest.approx(1.5 / 2.5)
    assert value(summary, "information_ceiling_bits") == pytest.approx(3.0)


def test_an_evaluation_of_one_stage_has_no_changes(record: Build) -> None:
    summary = summarise([record(0, "after", document=name) for name in "ab"])
    assert summary["overall"]["before"]["n"] == 0
    assert all(figure["value"] is None for figure in summary["change"].values())


def test_documents_of_two_tasks_are_different_clusters_even_with_one_id(record: Build) -> None:
    summary = summarise([record(0, task=task, document="1") for task in ("notes", "pages")])
    assert summary["overall"]["before"]["documents"] == 2


def test_more_questions_of_the_same_documents_do_not_narrow_the_interval(record: Build) -> None:
    def width(questions: int) -> float:
        summary = summarise(
            [
                record(question, document=f"d{document}", accuracy=float(document % 2))
                for document in range(20)
                for question in range(questions)
            ]
        )
        figure = summary["overall"]["before"]["accuracy"]
        return figure["high"] - figure["low"]

    assert width(10) == pytest.approx(width(1), abs=1e-9)


def test_the_order_of_the_records_does_not_matter(records: list[Record]) -> None:
    shuffled = random.Random(0).sample(records, len(records))
    one, other = summarise(records)["overall"]["after"], summarise(shuffled)["overall"]["after"]
    assert all(one[figure]["low"] == pytest.approx(other[figure]["low"]) for figure in TERMS)


def test_a_question_evaluated_twice_at_one_stage_is_refused_by_name(record: Build) -> None:
    with pytest.raises(ValueError, match="'notes/d0/0' occurs twice at stage 'before'"):
        summarise([record(0), record(0)])


def test_an_unknown_stage_is_refused_by_name(record: Build) -> None:
    with pytest.raises(ValueError, match="has stage 'during'"):
        summarise([record(0, stage="during")])


def test_no_records_are_refused() -> None:
    with pytest.raises(ValueError, match="no records"):
        summarise([])
