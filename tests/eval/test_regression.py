"""The regression on data whose truth is known, beside closed forms and statsmodels' own formula interface."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from eval.analysis.regression import Regression, regress
from eval.record import SweepRecord
from tests.records import changed, sweep_record

# Two families of three sizes each and three predictors: what a study of the real thing would have.
COMPRESSORS = [(family, size) for family in ("llama", "qwen") for size in (1e9, 2e9, 8e9)]
PREDICTORS = [("llama", 1e9), ("qwen", 8e9), ("qwen", 64e9)]


def answer(
    compressor: tuple[str, float], predictor: tuple[str, float | None], accuracy: float | None, document: int = 0
) -> SweepRecord:
    return sweep_record(
        compressor=f"{compressor[0]}-{compressor[1]:.0e}",
        compressor_family=compressor[0],
        compressor_parameters=compressor[1],
        predictor=str(predictor),
        predictor_family=predictor[0],
        predictor_parameters=predictor[1],
        accuracy=accuracy,
        document_id=str(document),
        task="t",
    )


def simulated(
    seed: int,
    documents: int = 60,
    family: float = 1.0,
    doubling: float = 0.25,
    predictor: float = 0.02,
    spread: float = 0.0,
    questions: int = 2,
) -> list[SweepRecord]:
    """Answers whose log-odds add up over the factors and a shift of each document, of standard deviation ``spread``."""
    generator = np.random.default_rng(seed)
    records = []
    for document in range(documents):
        shift = generator.normal(0, spread) if spread else 0.0
        for compressor in COMPRESSORS:
            for reader in PREDICTORS:
                log_odds = -0.5 + family * (compressor[0] == "qwen") + doubling * (math.log2(compressor[1] / 1e9) - 1.3)
                log_odds += predictor * math.log2(reader[1] / 8e9) + shift
                right = generator.random(questions) < 1 / (1 + math.exp(-log_odds))
                records += [answer(compressor, reader, float(one), document) for one in right]
    return records


def coefficient(found: Regression, factor: str) -> Any:
    (one,) = [coefficient for coefficient in found.coefficients if coefficient.factor == factor]
    return one


def test_planted_log_odds_are_recovered_and_the_factors_ranked_in_their_order() -> None:
    found = regress(simulated(0, documents=300))
    truth = {"compressor_family": 1.0, "compressor_size": 0.25, "predictor_size": 0.02}
    for factor, planted in truth.items():
        one = coefficient(found, factor)
        assert one.log_odds.low <= planted <= one.log_odds.high
        assert one.log_odds.value == pytest.approx(planted, abs=0.08)
        assert one.odds_ratio.value == pytest.approx(math.exp(one.log_odds.value))
    assert [factor.name for factor in found.factors] == list(truth)
    assert [factor.rank for factor in found.factors] == [1, 2, 3]
    assert found.statement.endswith("by evidence: compressor_family > compressor_size > predictor_size.")
    assert coefficient(found, "compressor_family").level == "qwen"
    assert coefficient(found, "compressor_family").reference == "llama"


def test_the_ranking_follows_the_planted_order_when_that_is_turned_round() -> None:
    found = regress(simulated(1, documents=200, family=0.1, doubling=0.3, predictor=0.5))
    assert [factor.name for factor in found.factors] == ["predictor_size", "compressor_size", "compressor_family"]


def test_the_odds_ratio_of_two_families_is_that_of_their_table() -> None:
    right = {"llama": [1, 0, 0, 0, 1, 0, 0, 0, 0, 0], "qwen": [1, 1, 0, 1, 1, 1, 0, 1, 1, 0]}
    records = [
        answer((family, 1e9), ("p", 1e9), float(one), document)
        for family, column in right.items()
        for document, one in enumerate(column)
    ]
    found = regress(records)
    assert coefficient(found, "compressor_family").odds_ratio.value == pytest.approx((7 / 3) / (2 / 8))
    assert found.constant == ["compressor_size", "predictor_size"]


def test_estimates_and_clustered_errors_agree_with_the_formula_interface_of_statsmodels() -> None:
    records = simulated(2, documents=40, spread=1.0)
    found = regress(records)
    table = pd.DataFrame(records)
    for side in ("compressor", "predictor"):
        table[f"{side}_size"] = np.log2(table[f"{side}_parameters"])
    reference = smf.logit("accuracy ~ compressor_family + compressor_size + predictor_size", table).fit(
        disp=0, cov_type="cluster", cov_kwds={"groups": table["document_id"].astype(int)}, use_t=True
    )
    names = {"compressor_family": "compressor_family[T.qwen]"}
    for factor in ("compressor_family", "compressor_size", "predictor_size"):
        name = names.get(factor, factor)
        one = coefficient(found, factor)
        assert one.log_odds.value == pytest.approx(reference.params[name], rel=1e-5)
        assert (one.log_odds.low, one.log_odds.high) == pytest.approx(tuple(reference.conf_int().loc[name]), rel=1e-5)
        (whole,) = [ranked for ranked in found.factors if ranked.name == factor]
        assert whole.p_value == pytest.approx(one.p_value) == pytest.approx(reference.pvalues[name], rel=1e-4)


def test_the_intervals_cover_the_truth_of_clustered_answers_as_often_as_they_say() -> None:
    generator = np.random.default_rng(3)
    hits = []
    for _ in range(200):
        records = []
        for document in range(40):
            family = ("llama", "qwen")[document % 2]
            # One compressor reads a document here, so that what the document's questions share cannot cancel out.
            share = generator.beta(2, 2)
            right = generator.random(6) < share
            records += [answer((family, 1e9), ("p", 1e9), float(one), document) for one in right]
        one = coefficient(regress(records), "compressor_family").log_odds
        hits.append(one.low <= 0 <= one.high)
    assert 0.91 <= np.mean(hits) <= 0.985


def test_a_factor_of_several_levels_is_one_factor_with_a_coefficient_for_each_but_the_first() -> None:
    records = simulated(4, documents=30)
    third = [changed(record, compressor_family="gemma") for record in simulated(5, documents=30, family=0.5)]
    found = regress([*records, *third])
    rows = [one for one in found.coefficients if one.factor == "compressor_family"]
    assert [(row.level, row.reference) for row in rows] == [("llama", "gemma"), ("qwen", "gemma")]
    assert {factor.name: factor.degrees_of_freedom for factor in found.factors}["compressor_family"] == 2


def test_the_effect_of_a_size_is_its_standardised_coefficient_without_the_sign() -> None:
    found = regress(simulated(6, doubling=-0.4))
    effect = {factor.name: factor.effect for factor in found.factors}["compressor_size"]
    one = coefficient(found, "compressor_size")
    assert effect == pytest.approx(-one.standardised) and one.standardised < 0
    sizes = np.log2([size for _, size in COMPRESSORS])
    assert one.standardised == pytest.approx(one.log_odds.value * sizes.std())


def test_matching_families_that_bring_nothing_are_found_to_bring_nothing() -> None:
    found = regress(simulated(7, documents=150), ["compressor_family", "compressor_size", "matching_families"])
    assert found.factors[-1].name == "matching_families" and found.factors[-1].p_value > 0.05


def test_fractional_accuracies_recover_the_log_odds_of_their_mean() -> None:
    generator = np.random.default_rng(8)
    records = [
        answer((family, 1e9), ("p", 1e9), float(generator.beta(8 * mean, 8 * (1 - mean))), document)
        for document in range(300)
        for family, mean in (("llama", 0.3), ("qwen", 0.6))
    ]
    one = coefficient(regress(records), "compressor_family").log_odds
    assert one.low <= math.log(0.6 / 0.4) - math.log(0.3 / 0.7) <= one.high
    # Narrower than of answers right or wrong with these means: the robust covariance sees that they vary less.
    binary = [
        changed(record, accuracy=float(generator.random() < (0.3 if record["compressor_family"] == "llama" else 0.6)))
        for record in records
    ]
    coarse = coefficient(regress(binary), "compressor_family").log_odds
    assert one.high - one.low < 0.5 * (coarse.high - coarse.low)


def test_tasks_are_held_fixed() -> None:
    # Qwen answers the easy task more often: without the task its odds would look better than they are.
    generator = np.random.default_rng(9)
    records = []
    for document in range(400):
        for family, easy in (("llama", document % 4 == 0), ("qwen", document % 4 != 0)):
            right = generator.random() < (0.9 if easy else 0.3)
            task = "easy" if easy else "hard"
            records.append(changed(answer((family, 1e9), ("p", 1e9), float(right), document), task=task))
    one = coefficient(regress(records), "compressor_family")
    assert one.log_odds.low < 0 < one.log_odds.high and one.p_value > 0.05
    unaware = coefficient(regress([changed(record, task="t") for record in records]), "compressor_family")
    assert unaware.log_odds.low > 0.5


def test_tasks_that_are_all_right_or_all_wrong_are_left_out_and_named() -> None:
    records = simulated(10)
    trivial = [changed(record, task="trivial", accuracy=1.0) for record in records[:100]]
    found = regress([*records, *trivial])
    assert found.tasks_left_out == ["trivial"] and found.n == len(records)
    assert found.coefficients == regress(records).coefficients


def test_records_without_an_accuracy_or_a_size_are_left_out_and_counted() -> None:
    records = simulated(11)
    lost = [changed(records[0], accuracy=None), changed(records[0], predictor_parameters=None)]
    found = regress([*records, *lost])
    assert found.missing == 2 and found.n == len(records)


def test_a_size_that_no_record_knows_is_left_out_and_the_others_ranked() -> None:
    found = regress([changed(record, predictor_parameters=None) for record in simulated(12)])
    assert found.constant == ["predictor_size"] and found.missing == 0
    assert [factor.name for factor in found.factors] == ["compressor_family", "compressor_size"]


def test_all_right_or_nothing_varying_or_no_records_say_so_in_one_line() -> None:
    one = [answer(("llama", 1e9), ("p", 1e9), float(i % 2), i) for i in range(20)]
    right = [changed(record, accuracy=1.0) for record in simulated(13)]
    assert regress(right).statement == "No regression: all answers are right or all are wrong in every task."
    assert regress(one).statement == "No regression: no factor varies between the records."
    assert regress([]).statement == "No regression: no record has what it needs."
    assert regress(right).factors == [] and "\n" not in regress(right).statement


def test_a_family_that_is_always_wrong_is_said_to_separate() -> None:
    records = [
        changed(record, accuracy=0.0 if record["compressor_family"] == "llama" else record["accuracy"])
        for record in simulated(14)
    ]
    reason = "compressor_family separates right answers from wrong ones, so its odds ratio has no finite value"
    assert regress(records).statement == f"No regression: {reason}."


def test_a_size_past_which_all_is_right_is_said_to_separate() -> None:
    records = [
        answer(("llama", size), ("p", 1e9), float(size > 2e9) if size != 2e9 else float(document % 2), document)
        for document in range(20)
        for size in (1e9, 2e9, 8e9)
    ]
    assert "compressor_size separates right answers from wrong ones" in regress(records).statement


def test_a_family_that_has_one_size_of_its_own_cannot_be_told_from_it() -> None:
    records = [
        answer(("llama", 1e9) if document % 2 else ("qwen", 8e9), ("p", 1e9), float(document % 3 == 0), document)
        for document in range(30)
    ]
    assert "compressor_size follows from the other factors" in regress(records).statement


def test_fewer_documents_than_coefficients_are_refused() -> None:
    assert "3 documents are too few for 4 coefficients" in regress(simulated(15, documents=3)).statement


def test_an_unknown_factor_and_an_impossible_accuracy_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no factor 'weather': there are compressor_family"):
        regress([], ["weather"])
    with pytest.raises(ValueError, match=r"accuracy 1\.5 is outside"):
        regress([answer(("llama", 1e9), ("p", 1e9), 1.5)])


def test_the_result_is_plain_data() -> None:
    found = regress(simulated(16)).as_dict()
    assert found["factors"][0].keys() >= {"name", "rank", "wald", "degrees_of_freedom", "p_value", "effect"}
    assert found["coefficients"][0]["odds_ratio"].keys() == {"value", "low", "high"}
