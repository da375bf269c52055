"""Bootstrap intervals against known truth, closed forms and scipy's own BCa."""

import numpy as np
import pytest
from scipy import stats

from eval.analysis.significance import (
    AT_LEAST_NOTHING,
    BOOTSTRAP,
    SHARE,
    Bootstrap,
    Estimate,
    Interval,
    clipped,
    clustered_mean,
    difference,
    exponential,
    interval,
    over_runs,
    quotient,
    ratio_of_sums,
)

DRAWS = 400


def clustered(generator: np.random.Generator, documents: int) -> tuple[np.ndarray, np.ndarray]:
    """Question scores around 1, with a shared shift per document, and the document of each."""
    document = np.repeat(np.arange(documents), generator.integers(1, 9, documents))
    return 1 + generator.normal(0, 1, documents)[document] + generator.normal(0, 1, len(document)), document


def covers(values: np.ndarray, cluster: np.ndarray, seed: int) -> bool:
    documents = cluster.max() + 1
    sums, sizes = np.bincount(cluster, values), np.bincount(cluster).astype(float)
    found = interval(ratio_of_sums(sums, sizes, Bootstrap(1000, seed).counts(documents)))
    assert found.low is not None and found.high is not None
    return found.low <= 1 <= found.high


def test_the_interval_of_a_clustered_mean_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    hits = [covers(*clustered(generator, 30), seed=draw) for draw in range(DRAWS)]
    assert 0.92 <= np.mean(hits) <= 0.98


EVALUATIONS = 3000
QUESTIONS = 4
BEFORE, AFTER = 0.75, 0.85
RATE, SHORTENING = 0.8, 2.5
BUDGET, MEDIAN = 64.0, 20.0


def capped_lognormal_mean(median: float, spread: float, cap: float) -> float:
    """The mean of min(median exp(spread x), cap) over standard normal x."""
    beyond = (np.log(cap / median)) / spread
    kept = median * np.exp(spread**2 / 2) * stats.norm.cdf(beyond - spread)
    return float(kept + cap * stats.norm.sf(beyond))


def lengths(generator: np.random.Generator, document: np.ndarray, median: float) -> np.ndarray:
    """Message tokens, skewed and cut off at the budget; ``document`` is what questions of one share."""
    return np.minimum(median * np.exp(0.5 * document + 0.5 * generator.normal(size=(len(document), QUESTIONS))), BUDGET)


def evaluated(generator: np.random.Generator, counts: np.ndarray) -> dict[str, Estimate]:
    """The figures of one evaluation with known truth: questions of one document share difficulty, length and rate."""
    documents = counts.shape[1]
    difficulty, wordiness, rates = generator.normal(size=(3, documents, 1))
    noise = generator.normal(size=(2, documents, QUESTIONS))
    right = {
        name: (difficulty + side > -np.sqrt(2) * stats.norm.ppf(share)).astype(float)
        for name, side, share in (("before", noise[0], BEFORE), ("after", noise[1], AFTER))
    }
    long = lengths(generator, wordiness, MEDIAN)
    short = lengths(generator, wordiness, MEDIAN / SHORTENING)
    bits = long * (RATE + 0.3 * rates + 0.5 * generator.normal(size=long.shape))

    def over(top: np.ndarray, bottom: np.ndarray) -> Estimate:
        return ratio_of_sums(top.sum(axis=1), bottom.sum(axis=1), counts)

    one = np.ones_like(long)
    return {
        "accuracy": over(right["after"], one),
        "bits per token": over(bits, long),
        "change of accuracy": difference(over(right["after"], one), over(right["before"], one)),
        "ratio of tokens": quotient(over(long, one), over(short, one)),
    }


@pytest.mark.parametrize("documents", [100, 40])
def test_intervals_of_the_reports_figures_cover_the_truth_93_to_97_times_in_100(documents: int) -> None:
    spread = float(np.sqrt(0.5))
    sides = [capped_lognormal_mean(median, spread, BUDGET) for median in (MEDIAN, MEDIAN / SHORTENING)]
    truth = {
        "accuracy": AFTER,
        "bits per token": RATE,
        "change of accuracy": AFTER - BEFORE,
        "ratio of tokens": sides[0] / sides[1],
    }
    generator, counts = np.random.default_rng(documents), Bootstrap(1000, documents).counts(documents)
    hits = dict.fromkeys(truth, 0)
    for _ in range(EVALUATIONS):
        for name, estimate in evaluated(generator, counts).items():
            found = interval(estimate)
            assert found.low is not None and found.high is not None
            hits[name] += found.low <= truth[name] <= found.high
    assert all(0.93 <= count / EVALUATIONS <= 0.97 for count in hits.values()), hits


@pytest.mark.parametrize("documents", [3, 4, 5, 7])
def test_intervals_of_few_documents_cover_the_truth_as_often_as_those_of_many(documents: int) -> None:
    generator = np.random.default_rng(documents)
    hits, hits_of_ratios = [], []
    for draw in range(DRAWS):
        document = np.repeat(np.arange(documents), 4)
        values = 1 + generator.normal(0, 1, documents)[document] + generator.normal(0, 1, len(document))
        counts = Bootstrap(200, draw).counts(documents)
        mean = interval(ratio_of_sums(np.bincount(document, values), np.full(documents, 4.0), counts))
        assert mean.low is not None and mean.high is not None
        hits.append(mean.low <= 1 <= mean.high)
        sizes = [np.exp(generator.normal(0, 0.3, documents)) for _ in range(2)]
        top, bottom = (ratio_of_sums(one, np.ones(documents), counts) for one in sizes)
        ratio = interval(quotient(top, bottom))
        assert ratio.low is not None and ratio.high is not None
        hits_of_ratios.append(ratio.low <= 1 <= ratio.high)
    assert np.mean(hits) >= 0.93 and np.mean(hits_of_ratios) >= 0.9


def test_four_documents_of_one_sign_do_not_show_a_difference_by_themselves() -> None:
    found = interval(clustered_mean([2.5, 4.5, 5.8, 8.7], list(range(4))))
    reference = stats.t.interval(0.95, 3, 5.375, stats.sem([2.5, 4.5, 5.8, 8.7]))
    assert (found.low, found.high) == pytest.approx(reference) and found.method == "student"


def test_an_interval_of_few_documents_keeps_to_what_is_possible() -> None:
    shares = interval(clustered_mean([0.1, 0.9, 1.0], list(range(3)), limits=SHARE))
    assert (shares.low, shares.high) == (0.0, 1.0)
    lengths = interval(clustered_mean([1.0, 9.0, 30.0], list(range(3)), limits=AT_LEAST_NOTHING))
    assert lengths.low == 0.0 and lengths.high is not None and lengths.high > 30.0
    counts = BOOTSTRAP.counts(3)
    top, bottom = (ratio_of_sums(np.array(sizes), np.ones(3), counts) for sizes in ([1.0, 9.0, 30.0], [2.0, 1.0, 1.0]))
    ratio = interval(quotient(top, bottom))
    assert ratio.low is not None and 0.0 < ratio.low < 1.0


def test_a_length_that_all_documents_agree_on_has_no_interval() -> None:
    found = interval(clustered_mean([7.0] * 9, list(range(9)), limits=AT_LEAST_NOTHING))
    assert found == Interval(7.0, None, None, method="constant")


def test_treating_questions_as_independent_covers_too_rarely() -> None:
    generator = np.random.default_rng(5)
    samples = [clustered(generator, 30)[0] for _ in range(100)]
    hits = [covers(values, np.arange(len(values)), seed=draw) for draw, values in enumerate(samples)]
    assert np.mean(hits) < 0.88


def test_the_interval_of_a_paired_change_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(6)
    hits = []
    for draw in range(DRAWS):
        before, document = clustered(generator, 30)
        after = before + 0.5 + generator.normal(0, 0.5, len(before)) + generator.normal(0, 0.3, 30)[document]
        sizes, counts = np.bincount(document).astype(float), Bootstrap(1000, draw).counts(30)
        sides = [ratio_of_sums(np.bincount(document, side), sizes, counts) for side in (before, after)]
        found = interval(difference(after=sides[1], before=sides[0]))
        assert found.low is not None and found.high is not None
        hits.append(found.low <= 0.5 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.98


def test_sharing_resamples_narrows_the_interval_of_a_change_between_correlated_sides() -> None:
    generator = np.random.default_rng(0)
    before, ones = generator.normal(0, 1, 50), np.ones(50)
    after = before + generator.normal(0.3, 0.1, 50)
    paired, unpaired = (
        interval(
            difference(ratio_of_sums(after, ones, Bootstrap(seed=1).counts(50)), ratio_of_sums(before, ones, counts))
        )
        for counts in (Bootstrap(seed=1).counts(50), Bootstrap(seed=2).counts(50))
    )
    assert width(paired) < 0.3 * width(unpaired)


def width(found: Interval) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low


def test_one_question_a_document_agrees_with_scipys_bca() -> None:
    values = np.random.default_rng(3).exponential(1.0, 60)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(0))
    # The level at which the small-sample width equals the normal one scipy takes.
    level = float(2 * stats.t.cdf(stats.norm.ppf(0.975) * np.sqrt(59 / 60), 59) - 1)
    found = interval(ratio_of_sums(values, np.ones(60), Bootstrap(20_000).counts(60)), level)
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=0.015)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=0.015)


def test_few_documents_widen_the_interval_beyond_the_normal_one() -> None:
    values = np.array([0.1, 0.4, 0.5, 0.6, 0.9])
    found = interval(ratio_of_sums(values, np.ones(5), BOOTSTRAP.counts(5)))
    assert width(found) > 2 * 1.96 * values.std() / np.sqrt(5)


def test_a_ratio_of_sums_weighs_documents_by_their_denominators() -> None:
    estimate = ratio_of_sums(np.array([1.0, 6.0]), np.array([1.0, 3.0]), BOOTSTRAP.counts(2))
    assert estimate.value == 7 / 4


def test_a_clustered_mean_leaves_out_what_is_missing_and_keeps_documents_together() -> None:
    values, documents = [1.0, None, 0.0, float("nan"), 1.0], ["a", "a", "b", "b", "c"]
    estimate = clustered_mean(values, documents)
    expected = ratio_of_sums(np.array([1.0, 0.0, 1.0]), np.ones(3), BOOTSTRAP.counts(3))
    assert estimate.value == pytest.approx(2 / 3) and estimate.documents == 3
    assert interval(estimate) == interval(expected)
    assert interval(clustered_mean([None, None], ["a", "b"])) == Interval(None, None, None)


def test_a_mean_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="got 0 and 0"):
        clustered_mean([], [])


def test_every_resample_draws_as_many_documents_as_there_are() -> None:
    counts = Bootstrap(100, 4).counts(7)
    assert counts.shape == (100, 7)
    assert np.all(counts.sum(axis=1) == 7)
    assert np.array_equal(counts, Bootstrap(100, 4).counts(7))
    assert not np.array_equal(counts, Bootstrap(100, 5).counts(7))


def test_one_document_has_a_value_but_no_interval() -> None:
    estimate = ratio_of_sums(np.array([3.0, 0.0]), np.array([4.0, 0.0]), BOOTSTRAP.counts(2))
    assert interval(estimate) == Interval(0.75, None, None)


def test_nothing_observed_has_no_value() -> None:
    assert interval(ratio_of_sums(np.zeros(3), np.zeros(3), BOOTSTRAP.counts(3))) == Interval(None, None, None)


@pytest.mark.parametrize(("right", "documents"), [(80, 80), (0, 6), (3, 3)])
def test_a_share_that_all_documents_agree_on_has_wilsons_interval_with_documents_as_trials(
    right: int, documents: int
) -> None:
    reference = stats.binomtest(right, documents).proportion_ci(method="wilson")
    values = np.repeat(float(right > 0), 4 * documents)
    found = interval(clustered_mean(values.tolist(), np.repeat(np.arange(documents), 4).tolist(), limits=SHARE))
    assert found.method == "wilson" and found.as_dict()["method"] == "wilson"
    assert found.low == pytest.approx(reference.low) and found.high == pytest.approx(reference.high)


def test_a_change_that_no_document_shows_is_bounded_by_the_documents_that_may_change() -> None:
    counts = BOOTSTRAP.counts(80)
    side = ratio_of_sums(np.ones(80), np.ones(80), counts, SHARE)
    found = interval(difference(side, side))
    most = stats.binomtest(0, 80).proportion_ci(method="wilson").high
    assert (found.value, found.method) == (0.0, "wilson")
    assert found.low == pytest.approx(-most) and found.high == pytest.approx(most)


def test_a_share_between_the_ends_that_all_documents_agree_on_lies_within_its_interval() -> None:
    found = interval(clustered_mean([0.5] * 20, list(range(20)), limits=SHARE))
    assert found.low is not None and found.high is not None
    assert 0.4 < found.low < 0.5 < found.high < 0.6


def test_another_figure_that_all_documents_agree_on_has_no_interval() -> None:
    assert interval(ratio_of_sums(np.ones(9), np.ones(9), BOOTSTRAP.counts(9))) == Interval(
        1.0, None, None, method="constant"
    )


def test_draws_that_differ_by_rounding_alone_are_the_same() -> None:
    documents = np.arange(1, 8) * 1.0
    found = interval(ratio_of_sums(0.1 * documents, documents, BOOTSTRAP.counts(7)))
    assert found.method == "constant"


def test_the_method_of_an_ordinary_interval_goes_without_saying() -> None:
    found = interval(clustered_mean([0.1, 0.4, 0.5, 0.9] * 2, list(range(8)), limits=SHARE))
    assert set(found.as_dict()) == {"value", "low", "high"}


def test_a_quotient_whose_denominator_may_be_zero_has_no_upper_bound() -> None:
    counts = BOOTSTRAP.counts(6)
    top = ratio_of_sums(np.ones(6), np.ones(6), counts)
    bottom = ratio_of_sums(np.array([1.0, 0.9, -0.6, -0.8, 0.5, -0.4]), np.ones(6), counts)
    found = interval(quotient(top, bottom))
    assert found.value == pytest.approx(10.0)
    assert found.low is not None and found.high is None


def test_a_quotient_by_nothing_is_undefined() -> None:
    counts = BOOTSTRAP.counts(4)
    top, bottom = (ratio_of_sums(np.full(4, value), np.ones(4), counts) for value in (1.0, -1.0))
    assert interval(quotient(top, bottom)) == Interval(None, None, None)


def test_clipping_raises_the_value_to_zero() -> None:
    estimate = ratio_of_sums(np.array([-1.0, -2.0, -3.0]), np.ones(3), BOOTSTRAP.counts(3))
    assert interval(clipped(estimate)) == Interval(0.0, None, None, method="constant")


def test_the_interval_of_an_exponential_is_the_exponential_of_the_interval() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 200)
    estimate = ratio_of_sums(values, np.ones(200), BOOTSTRAP.counts(200))
    plain, transformed = interval(estimate), interval(exponential(estimate))
    assert plain.low is not None and plain.high is not None
    assert transformed.low == pytest.approx(np.exp(plain.low), rel=1e-3)
    assert transformed.high == pytest.approx(np.exp(plain.high), rel=1e-3)


def test_the_interval_over_runs_is_that_of_a_paired_t_test() -> None:
    differences = [0.02, -0.01, 0.05, 0.03, 0.01]
    found = over_runs(differences)
    expected = stats.ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert found.value == pytest.approx(0.02)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert over_runs([0.5]).as_dict() == {"value": 0.5, "low": None, "high": None, "method": "student"}
    assert over_runs([]).value is None
