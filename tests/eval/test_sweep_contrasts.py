"""Contrasts of a sweep: paired over what both sides scored, each pair once."""

import numpy as np
import pytest

from eval.analysis.significance import Bootstrap
from eval.sweep.contrasts import ERRORS_TO_DETECT, compare_all, contrast, control_contrasts, pairs_of
from eval.sweep.results import cells, message_cells, seed_spread, summarise
from tests.eval.planted_sweep import MEDIUM, QUICK, SMALL, grid
from tests.records import sweep_record as record


def test_a_contrast_is_the_paired_difference_over_what_both_sides_scored() -> None:
    side = {"small": [1.0, 0.0, 0.0, None], "large": [1.0, 1.0, 0.0, 1.0]}
    records = [
        record(
            id=f"notes/d{place}/0",
            document_id=f"d{place}",
            compressor=name,
            compressor_parameters=1000 * (1 + 3 * (name == "large")),
            accuracy=value,
            message_tokens={"small": 12, "large": 3}[name],
        )
        for name, values in side.items()
        for place, value in enumerate(values)
    ]
    [pair] = pairs_of(records, "compressor")
    found = contrast(records, pair, None, None, Bootstrap(QUICK))
    assert (pair.small.name, pair.large.name, pair.doublings) == ("small", "large", 2.0)
    # The document that one side did not score is left out of both: 2/3 - 1/3.
    assert found.figures["accuracy_difference"].value == pytest.approx(1 / 3)
    assert found.figures["accuracy_ratio"].value == pytest.approx(2.0)
    assert found.figures["message_tokens_ratio"].value == pytest.approx(4.0)
    assert found.figures["bits_per_token_ratio"].value == pytest.approx(4.0)
    assert found.documents == 4


def test_what_would_have_been_seen_is_what_intervals_of_that_size_do_see() -> None:
    seen = []
    for run in range(60):
        generator = np.random.default_rng(run)
        differences = generator.normal(0, 1, 60)
        records = [
            record(
                id=f"notes/d{place}/0",
                document_id=f"d{place}",
                compressor=name,
                compressor_parameters={"small": 1000, "large": 4000}[name],
                accuracy=0.0 if name == "small" else differences[place] + ERRORS_TO_DETECT / 60**0.5,
            )
            for name in ("small", "large")
            for place in range(60)
        ]
        [pair] = pairs_of(records, "compressor")
        found = contrast(records, pair, None, None, Bootstrap(QUICK))
        assert found.detectable == pytest.approx(ERRORS_TO_DETECT * np.std(differences, ddof=1) / 60**0.5)
        low = found.figures["accuracy_difference"].low
        assert low is not None
        seen.append(low > 0)
    # Four in five: 60 runs have a standard error of 5 points.
    assert 0.65 <= np.mean(seen) <= 0.95


def test_the_control_is_held_against_the_largest_of_its_own_setting_and_left_out_of_the_rest() -> None:
    records = grid(lambda c, p, g: (0.2, 0.5, 0.9)[c], settings=("3 sentences", "6 sentences"))
    compressors, predictors = control_contrasts(records, "small", Bootstrap(QUICK))
    assert (compressors.pair.small.name, compressors.pair.large.name) == ("small, 3 sentences", "large, 3 sentences")
    low = compressors.figures["accuracy_difference"].low
    assert compressors.held is None and low is not None and low > 0.4
    assert (predictors.pair.axis, predictors.pair.small.name, predictors.pair.large.name) == (
        "predictor",
        "small",
        "large",
    )
    assert predictors.figures["accuracy_difference"].value == 0
    results = summarise(records, Bootstrap(QUICK), control="small")
    assert {entry["small"] for entry in results["contrasts"]} == {
        "medium, 3 sentences",
        "medium, 6 sentences",
        "medium",
    }
    assert any(cell["compressor"] == "small, 3 sentences" for cell in results["cells"])
    with pytest.raises(ValueError, match="control = 'small': is in every answer"):
        summarise([r for r in records if r["predictor"] == "small"], Bootstrap(QUICK), control="small")


def test_pairs_are_the_widest_then_those_within_a_family_each_once_and_by_setting() -> None:
    records = grid(lambda c, p, g: 0.5, settings=("3 sentences", "6 sentences"), documents=1)
    named = [(pair.small.name, pair.large.name) for pair in pairs_of(records, "compressor")]
    assert named == [("small, 3 sentences", "large, 3 sentences"), ("small, 6 sentences", "large, 6 sentences")]
    crossed = grid(lambda c, p, g: 0.5, names=(SMALL, MEDIUM, ("big", "llama", 9_000_000)), documents=1)
    named = [(pair.small.name, pair.large.name) for pair in pairs_of(crossed, "predictor")]
    assert named == [("small", "big"), ("medium", "big")]


def test_models_of_unknown_size_stand_in_no_pair() -> None:
    records = [record(predictor=name, predictor_parameters=None) for name in ("one", "other")]
    assert pairs_of(records, "predictor") == [] and compare_all(records, Bootstrap(QUICK)) == []


def test_a_comparison_takes_each_gain_by_its_own_doublings() -> None:
    records = [
        record(
            id=f"notes/d{document}/0",
            document_id=f"d{document}",
            compressor=c,
            predictor=p,
            compressor_parameters={"small": 1000, "large": 4000}[c],
            predictor_parameters={"low": 1000, "high": 2000}[p],
            accuracy=0.2 + 0.4 * (c == "large") + 0.1 * (p == "high"),
        )
        for document in range(4)
        for c in ("small", "large")
        for p in ("low", "high")
    ]
    [found] = compare_all(records, Bootstrap(QUICK))
    assert found.difference.value == pytest.approx(0.4 - 0.1)
    assert found.per_doubling.value == pytest.approx(0.4 / 2 - 0.1 / 1)
    # Every document says the same, so there is nothing to resample.
    assert found.difference.method == found.per_doubling.method == "wilson"


def test_messages_count_once_however_many_predictors_answer() -> None:
    records = grid(lambda c, p, g: 0.5, tokens=lambda size: 40 - 10 * size, documents=3)
    found = {cell["compressor"]: cell for cell in message_cells(records, Bootstrap(QUICK)) if cell["task"] is None}
    assert {name: cell["n"] for name, cell in found.items()} == dict.fromkeys(("small", "medium", "large"), 12)
    assert [cell["message_tokens"]["value"] for cell in found.values()] == [40, 30, 20]
    assert found["small"]["information_ceiling_bits"]["value"] == pytest.approx(3.0)
    answered = [cell for cell in cells(records, Bootstrap(QUICK)) if cell["task"] is None]
    assert len(answered) == 9 and all(cell["n"] == 12 for cell in answered)
    assert all(c["distortion"]["value"] == pytest.approx(1 - c["accuracy"]["value"]) for c in answered)


def test_the_spread_between_seeds_is_that_of_their_means() -> None:
    records = [record(seed=seed, accuracy=value) for seed, value in ((0, 1.0), (0, 0.0), (1, 1.0), (1, 1.0))]
    assert seed_spread(records) == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert seed_spread(records[:2]) is None
