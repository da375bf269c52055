"""Findings of a sweep: what agrees with the study, what disagrees, and what cannot be told."""

import re

import pytest

from eval.analysis.significance import Bootstrap
from eval.sweep.contrasts import control_contrasts
from eval.sweep.findings import direction, findings, within
from eval.sweep.page import console, summary
from tests.eval.planted_sweep import (
    grid,
    interval_of,
    results_of,
    verdict_of,
)


@pytest.mark.parametrize(
    ("low", "high", "study", "verdict", "why"),
    [
        (1.2, 1.4, 1.6, "agrees", "the study's figure lies above it"),
        (1.2, 1.8, 1.6, "agrees", "lies within it"),
        (1.7, 1.8, 1.6, "agrees", "lies below it"),
        (0.7, 0.9, 1.6, "disagrees", "below no effect"),
        (0.9, 1.1, 1.6, "cannot be told", "holds no effect; one of the study's size is left out"),
        (0.9, 1.7, 1.6, "cannot be told", "both no effect and the study's figure"),
        (0.9, 1.1, None, "cannot be told", "holds no effect"),
        (None, 1.7, 1.6, "cannot be told", "no interval"),
    ],
)
def test_a_direction_follows_from_the_interval(
    low: float | None, high: float | None, study: float | None, verdict: str, why: str
) -> None:
    found = direction(interval_of(low, high), study, 1)
    assert found[0] == verdict and why in found[1]
    mirrored = [None if end is None else 2 - end for end in (high, low, study)]
    assert direction(interval_of(*mirrored[:2]), mirrored[2], 1, sign=-1)[0] == verdict


def test_a_range_is_kept_to_left_or_neither() -> None:
    for low, high, verdict in (
        (0.95, 1.05, "agrees"),
        (1.2, 1.3, "disagrees"),
        (1.0, 1.3, "cannot be told"),
        (None, None, "cannot be told"),
    ):
        assert within(interval_of(low, high), 0.9, 1.1, "a tenth")[0] == verdict


def test_a_grid_like_the_studys_agrees_with_it() -> None:
    results = results_of(
        grid(lambda c, p, g: (0.3, 0.45, 0.8)[c] + 0.02 * p, tokens=lambda size: (60, 40, 15)[size], spread=2)
    )
    for words in ("raise accuracy", "pay more", "shorter messages", "information per token", "bring little"):
        assert verdict_of(results, words) == "agrees", words
    assert verdict_of(results, "exact number") == "not measured"


def test_a_grid_that_goes_the_other_way_disagrees_and_says_so() -> None:
    results = results_of(
        grid(lambda c, p, g: (0.1, 0.4, 0.8)[p] - 0.03 * c, tokens=lambda size: 20 + 20 * size, spread=2)
    )
    for words in ("raise accuracy", "pay more", "shorter messages", "information per token", "bring little"):
        assert verdict_of(results, words) == "disagrees", words
    page = console(results)
    assert "predictor size" in page and re.search(r"disagrees  Does scaling the compressor pay more", page)


def test_few_documents_cannot_tell() -> None:
    results = results_of(grid(lambda c, p, g: g.random(), documents=2))
    assert verdict_of(results, "pay more") == "cannot be told"
    assert verdict_of(results, "depend on most") in ("cannot be told", "not measured")


def test_the_ranking_agrees_where_what_is_established_stands_in_the_studys_order() -> None:
    results = results_of(grid(lambda c, p, g: 0.5, documents=2))
    for order, verdict in (
        ([("compressor_family", 0.0), ("compressor_size", 0.01), ("predictor_size", 0.5)], "agrees"),
        ([("compressor_family", 0.01), ("predictor_size", 0.02), ("compressor_size", 0.3)], "disagrees"),
        ([("compressor_size", 0.01), ("compressor_family", 0.2), ("predictor_size", 0.5)], "disagrees"),
        ([("compressor_size", 0.1), ("compressor_family", 0.2), ("predictor_size", 0.5)], "cannot be told"),
    ):
        results["regression"] = {"factors": [{"name": n, "p_value": p} for n, p in order], "constant": []}
        found = [one.as_dict() for one in findings(results)]
        assert verdict_of({"findings": found}, "depend on most") == verdict, order
    results["regression"] = {"factors": [], "statement": "No regression: because.", "constant": []}
    found = next(one for one in findings(results) if "depend on most" in one.question)
    assert (found.verdict, found.why) == ("not measured", "No regression: because.")


@pytest.mark.filterwarnings("ignore:Perfect separation")
@pytest.mark.parametrize(
    ("by_setting", "verdict"), [((1, 1), "agrees"), ((1, -1), "disagrees"), ((1, 0), "cannot be told")]
)
def test_sentence_counts_agree_where_scaling_goes_the_same_way_at_each(
    by_setting: tuple[int, int], verdict: str
) -> None:
    records = grid(lambda c, p, g: 0.5, settings=("3 sentences", "6 sentences"))
    way: dict[str, int] = dict(zip(("3 sentences", "6 sentences"), by_setting, strict=True))
    for one in records:
        size = {"small": -1, "medium": 0, "large": 1}[one["compressor"].split(",")[0]]
        # A spread between documents, for where all agree a ratio has no interval.
        either_way = (-1) ** int(one["document_id"][1:])
        one["accuracy"] = 0.5 + 0.4 * size * way[one["setting"]] + 0.05 * size * either_way
    results = results_of(records)
    assert verdict_of(results, "exact number") == verdict
    assert [(one["name"], one["asked"]) for one in results["sentences"]][:2] == [
        ("small, 3 sentences", 3),
        ("medium, 3 sentences", 3),
    ]


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((0.1, 0.5, 0.9), "Positive control, compressor: large against small, +"),
        ((0.5,) * 3, "compressor failed: l"),
    ],
)
def test_a_sweep_says_whether_it_sees_what_has_to_differ(shares: tuple[float, ...], words: str) -> None:
    records = grid(lambda c, p, g: shares[c])
    results = results_of(records)
    assert "ontrol" not in summary(results)
    controls = [one.as_dict() for one in control_contrasts(records, "small", Bootstrap(200))]
    assert words in summary({**results, "controls": controls})
