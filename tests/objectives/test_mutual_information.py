"""The estimators' terms against their formulas, on scores of any magnitude, infinite and missing ones included."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from objectives.mutual_information import (
    Estimate,
    club,
    contrastive,
    interpolated,
    leave_one_out,
    nats_to_bits,
    rate_against_prior,
    reconstruction,
    task_information,
)

INF, NAN = math.inf, math.nan


def halfway(scores: Tensor, own: Tensor, valid: Tensor | None = None) -> Estimate:
    """The interpolated bound with each message's own score as its baseline."""
    return interpolated(scores, own, scores.gather(1, own[:, None])[:, 0], 0.5, valid)


ESTIMATORS = [contrastive, leave_one_out, club, halfway]


def random_scores(messages: int, contexts: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = -30 * torch.rand(messages, contexts, generator=generator, dtype=torch.float64)
    return scores, torch.randint(contexts, (messages,), generator=generator)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_constant_channel_and_identical_contexts_carry_exactly_nothing(estimator: Callable[..., Estimate]) -> None:
    scores = -torch.rand(6, 1).repeat(1, 4) * 100
    assert estimator(scores, torch.arange(6) % 4).terms.tolist() == pytest.approx([0.0] * 6, abs=1e-12)


def test_the_terms_are_those_of_the_formulas() -> None:
    scores, own = random_scores(6, 5)
    for message, column in enumerate(own.tolist()):
        row = scores[message].tolist()
        negatives = row[:column] + row[column + 1 :]
        log_mean = math.log(sum(math.exp(value) for value in row) / 5)
        log_mean_negatives = math.log(sum(math.exp(value) for value in negatives) / 4)
        assert contrastive(scores, own).terms[message].item() == pytest.approx(row[column] - log_mean)
        assert leave_one_out(scores, own).terms[message].item() == pytest.approx(row[column] - log_mean_negatives)
        assert club(scores, own).terms[message].item() == pytest.approx(row[column] - sum(negatives) / 4)


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0])
def test_interpolated_terms_are_those_of_the_formula(alpha: float) -> None:
    scores, own = random_scores(6, 5)
    baseline = -20 * torch.rand(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    estimate = interpolated(scores, own, baseline, alpha)
    for message, column in enumerate(own.tolist()):
        row = scores[message].exp().tolist()
        prior = (1 - alpha) * baseline[message].exp().item()
        mixtures = [alpha * (sum(row) - row[left_out]) / 4 + prior for left_out in range(5)]
        joint = sum(math.log(row[column] / mixtures[negative]) for negative in range(5) if negative != column) / 4
        correction = (sum(row) - row[column]) / 4 / mixtures[column]
        assert estimate.terms[message].item() == pytest.approx(1 + joint - correction)
        assert estimate.ceiling is not None
        assert estimate.ceiling[message].item() == pytest.approx(math.log(4 / alpha) + 1 - correction)


def test_interpolation_at_1_is_the_contrastive_bound_with_each_negative_left_out_in_turn() -> None:
    scores, own = random_scores(6, 5)
    estimate = interpolated(scores, own, torch.zeros(6), 1.0)
    all_valid = torch.ones(6, 5, dtype=torch.bool)
    left_out = [all_valid.index_fill(1, torch.tensor([column]), False) for column in range(5)]
    for message, column in enumerate(own.tolist()):
        masks = [valid for number, valid in enumerate(left_out) if number != column]
        terms = [contrastive(scores[[message]], own[[message]], valid[[message]]).mean for valid in masks]
        assert estimate.terms[message].item() == pytest.approx(sum(terms) / 4)
    assert estimate.ceiling is not None and estimate.ceiling.tolist() == pytest.approx([math.log(4)] * 6)


def test_interpolation_reaches_its_ceiling_where_the_own_context_outweighs_all_others_and_the_baseline() -> None:
    scores = torch.tensor([[-1.0, -300.0, -400.0], [-1.0, -2.0, -3.0]])
    estimate = interpolated(scores, torch.tensor([0, 0]), torch.tensor([-200.0, -2.0]), 0.1)
    assert estimate.terms[0].item() == pytest.approx(math.log(2 / 0.1) + 1)
    assert estimate.saturated.tolist() == [True, False]
    permutation = interpolated(torch.eye(5).log(), torch.arange(5), torch.full((5,), -math.log(5)), 1.0)
    assert permutation.terms.tolist() == pytest.approx([math.log(4)] * 5) and permutation.saturated_share == 1.0


@pytest.mark.parametrize("alpha", [0.0, -0.1, 1.5, NAN])
def test_an_interpolation_weight_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha must be above 0 and at most 1"):
        interpolated(torch.zeros(2, 3), torch.tensor([0, 1]), torch.zeros(2), alpha)


def test_each_estimator_says_its_side_and_ceiling() -> None:
    scores, own = random_scores(3, 4)
    lower, upper, loose, middle = (estimator(scores, own) for estimator in ESTIMATORS)
    rate, task = rate_against_prior(scores[0], scores[1]), task_information(scores[0], scores[1])
    decoded = reconstruction(scores[0], 3.0)
    assert all(estimate.side == "lower" for estimate in (lower, middle, task, decoded))
    assert all(estimate.side == "upper" for estimate in (upper, loose, rate))
    assert lower.ceiling is not None and lower.ceiling.tolist() == pytest.approx([math.log(4)] * 3)
    assert task.ceiling is not None and torch.equal(task.ceiling, -scores[1])
    assert decoded.ceiling is not None and decoded.ceiling.tolist() == [3.0] * 4
    assert upper.ceiling is loose.ceiling is rate.ceiling is None
    assert upper.saturated_share == loose.saturated_share == rate.saturated_share == 0.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_a_row_shares_and_the_order_of_columns_change_nothing(estimator: Callable[..., Estimate]) -> None:
    scores, own = random_scores(8, 6)
    terms = estimator(scores, own).terms
    shifted = scores + torch.linspace(-1e4, 1e4, 8, dtype=torch.float64)[:, None]
    torch.testing.assert_close(estimator(shifted, own).terms, terms, rtol=0, atol=1e-9)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(estimator(scores[:, order], order.argsort()[own]).terms, terms, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_columns_that_are_not_valid_count_as_absent(estimator: Callable[..., Estimate]) -> None:
    scores, own = random_scores(2, 5)
    own = torch.tensor([0, 4])
    valid = torch.tensor([[True, True, False, True, False], [False, False, True, False, True]])
    polluted = torch.where(valid, scores, NAN)
    estimate = estimator(polluted, own, valid)
    assert estimate.missing_negatives == 0
    first, second = (
        estimator(scores[:1, [0, 1, 3]], torch.tensor([0])),
        estimator(scores[1:, [2, 4]], torch.tensor([1])),
    )
    torch.testing.assert_close(estimate.terms, torch.cat([first.terms, second.terms]))
    if estimator is contrastive:
        assert estimate.ceiling is not None
        assert estimate.ceiling.tolist() == pytest.approx([math.log(3), math.log(2)])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_message_has_the_same_term_alone_and_in_any_batch(estimator: Callable[..., Estimate]) -> None:
    scores, own = random_scores(9, 6)
    valid = torch.rand(scores.shape, generator=torch.Generator().manual_seed(3)) < 0.6
    valid[torch.arange(9), own] = valid[torch.arange(9), (own + 1) % 6] = True
    together = estimator(scores, own, valid).terms
    alone = [estimator(scores[[row]], own[[row]], valid[[row]]).terms for row in range(9)]
    reversed_batch = estimator(scores.flip(0), own.flip(0), valid.flip(0)).terms.flip(0)
    torch.testing.assert_close(torch.cat(alone), together, rtol=0, atol=1e-12)
    torch.testing.assert_close(reversed_batch, together, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_missing_negative_shrinks_n_and_is_counted(estimator: Callable[..., Estimate]) -> None:
    scores, own = random_scores(3, 5)
    own = torch.tensor([1, 0, 2])
    holed = scores.clone()
    holed[0, 4] = NAN
    estimate = estimator(holed, own)
    assert (estimate.missing, estimate.missing_negatives) == (0, 1)
    torch.testing.assert_close(estimate.terms[:1], estimator(scores[:1, :4], own[:1]).terms)
    torch.testing.assert_close(estimate.terms[1:], estimator(scores[1:], own[1:]).terms)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_missing_own_score_or_no_negative_left_makes_the_term_missing_and_never_zero(
    estimator: Callable[..., Estimate],
) -> None:
    scores = torch.tensor([[NAN, -1.0, -2.0], [NAN, -1.0, NAN], [-1.0, -2.0, -9.0]])
    estimate = estimator(scores, torch.tensor([0, 1, 2]))
    assert estimate.terms.isnan().tolist() == [True, True, False]
    assert estimate.missing == 2
    assert estimate.missing_negatives == 2
    assert estimate.mean == pytest.approx(estimate.terms[2].item())
    assert not estimate.saturated[:2].any()
    assert estimate.ceiling is None or estimate.ceiling.isnan().tolist() == [True, True, False]


def test_saturation_is_measured_over_the_messages_that_have_a_term() -> None:
    scores = torch.tensor([[0.0, -50.0], [0.0, -0.1], [NAN, 0.0]])
    estimate = contrastive(scores, torch.zeros(3, dtype=torch.long))
    assert estimate.saturated.tolist() == [True, False, False]
    assert estimate.saturated_share == 0.5
    assert contrastive(scores, torch.zeros(3, dtype=torch.long), tolerance=1.0).saturated_share == 1.0


def test_an_estimate_without_any_term_is_nan_and_not_zero() -> None:
    estimate = contrastive(torch.full((2, 3), NAN), torch.tensor([0, 1]))
    assert math.isnan(estimate.mean) and math.isnan(estimate.saturated_share)
    assert estimate.missing == 2


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def log(value: float) -> float:
    return math.log(value) if value else -INF


def by_formula(row: tuple[float, ...], baseline: float, alpha: float) -> dict[str, float]:
    """Terms of a message whose own column is the first, in the extended reals; NaN where a formula is undefined."""
    own, negatives = row[0], [score for score in row[1:] if not math.isnan(score)]
    if math.isnan(own) or not negatives:
        return dict.fromkeys(("contrastive", "leave_one_out", "club", "interpolated"), NAN)
    weights = [math.exp(score) for score in negatives]
    prior = (1 - alpha) * math.exp(baseline) if alpha < 1 or math.isnan(baseline) else 0.0
    total = math.exp(own) + sum(weights)
    mixtures = [alpha * (total - left_out) / len(negatives) + prior for left_out in weights]
    outside = mean(weights)
    correction = outside / (alpha * outside + prior) if outside else float(alpha == 1)
    return {
        "contrastive": own - log(mean([math.exp(own), *weights])),
        "leave_one_out": own - log(mean(weights)),
        "club": own - mean(negatives),
        "interpolated": NAN if math.isnan(prior) else 1 + own - mean([log(value) for value in mixtures]) - correction,
    }


@pytest.mark.parametrize("baseline", [NAN, -INF, -1.5])
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_terms_of_impossible_and_missing_scores_are_infinite_or_missing_as_the_formula_is(
    baseline: float, alpha: float
) -> None:
    rows = list(itertools.product([NAN, -INF, -2.0, -1.0], repeat=3))
    scores, own = torch.tensor(rows), torch.zeros(len(rows), dtype=torch.long)
    estimates = {
        "contrastive": contrastive(scores, own),
        "leave_one_out": leave_one_out(scores, own),
        "club": club(scores, own),
        "interpolated": interpolated(scores, own, torch.full((len(rows),), baseline), alpha),
    }
    for number, row in enumerate(rows):
        for name, expected in by_formula(row, baseline, alpha).items():
            assert estimates[name].terms[number].item() == pytest.approx(expected, nan_ok=True), (name, row)


def test_a_message_impossible_under_every_context_has_no_term_and_is_counted_as_missing() -> None:
    scores, own = torch.full((1, 3), -INF), torch.tensor([0])
    for estimator in ESTIMATORS:
        assert estimator(scores, own).missing == 1
    assert rate_against_prior(scores[:, 0], scores[:, 1]).missing == 1
    assert task_information(scores[:, 0], scores[:, 1]).missing == 1


@pytest.mark.parametrize(("score", "reference", "expected"), [(-INF, -1.0, -INF), (-1.0, -INF, INF), (-1.0, -3.0, 2.0)])
def test_differences_with_impossible_scores_are_infinite(score: float, reference: float, expected: float) -> None:
    assert rate_against_prior(torch.tensor([score]), torch.tensor([reference])).terms.item() == expected
    assert task_information(torch.tensor([score]), torch.tensor([reference])).terms.item() == expected


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e4, 1e10, 1e30, 3e38])
def test_float32_scores_of_any_magnitude_stay_exact(magnitude: float) -> None:
    scores = torch.tensor([[-magnitude, -magnitude], [-magnitude / 2, -magnitude], [-magnitude, -magnitude / 2]])
    own = torch.zeros(3, dtype=torch.long)
    half = (scores[0, 0].double() - scores[1, 0].double()).abs().item()
    gain = math.log(2) - math.log1p(math.exp(-half))
    assert contrastive(scores, own).terms.tolist() == pytest.approx([0.0, gain, gain - half], rel=1e-12, abs=1e-12)
    assert leave_one_out(scores, own).terms.tolist() == pytest.approx([0.0, half, -half], rel=1e-12)
    assert club(scores, own).terms.tolist() == pytest.approx([0.0, half, -half], rel=1e-12)
    # The negative as the baseline: the correction is 1, and with one negative left out the own context alone stays.
    middle = interpolated(scores, own, scores[:, 1], 0.5).terms.tolist()
    assert middle == pytest.approx([0.0, gain, gain - half], rel=1e-12, abs=1e-12)


def test_a_small_difference_between_large_float32_scores_is_not_lost() -> None:
    scores = torch.tensor([[-8192.0, -8192.0009765625]], dtype=torch.float32)
    expected = math.log(2) - math.log1p(math.exp(-(2.0**-10)))
    assert contrastive(scores, torch.tensor([0])).terms.item() == pytest.approx(expected, rel=1e-12)


def test_task_information_is_the_gain_in_log_prob_and_saturates_at_certainty() -> None:
    options = 5
    null = torch.full((3,), -math.log(options), dtype=torch.float64)
    answers = torch.tensor([0.0, -math.log(options), -math.log(2)], dtype=torch.float64)
    estimate = task_information(answers, null)
    assert estimate.terms.tolist() == pytest.approx([math.log(5), 0.0, math.log(5 / 2)])
    assert estimate.ceiling is not None and estimate.ceiling.mean().item() == pytest.approx(math.log(options))
    assert estimate.saturated.tolist() == [True, False, False]
    assert task_information(torch.tensor([0.0, NAN]), torch.tensor([-1.0, -1.0])).missing == 1
    surprised = task_information(torch.tensor([0.0, -3.0]), torch.tensor([-INF, -INF]))
    assert surprised.terms.tolist() == [INF, INF] and surprised.saturated.tolist() == [True, False]


def test_reconstruction_is_what_the_message_leaves_of_the_entropy() -> None:
    scores = torch.tensor([0.0, -1.0, NAN, -INF])
    estimate = reconstruction(scores, math.log(8))
    assert estimate.terms.tolist() == pytest.approx([math.log(8), math.log(8) - 1, NAN, -INF], nan_ok=True)
    assert estimate.saturated.tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="context_entropy must be finite, got inf"):
        reconstruction(scores, INF)


def test_rate_against_another_prior_exceeds_the_information_by_the_divergence_between_them() -> None:
    generator = torch.Generator().manual_seed(0)
    channel = torch.rand(3, 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    marginal, prior = channel.mean(dim=0), torch.tensor([0.5, 0.3, 0.1, 0.1], dtype=torch.float64)
    truth = (channel * (channel / marginal).log()).sum().item() / 3
    terms = rate_against_prior(channel.log().flatten(), prior.log().repeat(3)).terms
    gap = (marginal * (marginal / prior).log()).sum().item()
    assert (channel.flatten() / 3 * terms).sum().item() == pytest.approx(truth + gap, abs=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_single_context_is_refused_in_one_line(estimator: Callable[..., Estimate]) -> None:
    with pytest.raises(ValueError, match=r"^message 0 has 1 context: .*at least 1 negative") as error:
        estimator(torch.zeros(3, 1), torch.zeros(3, dtype=torch.long))
    assert "\n" not in str(error.value)
    valid = torch.tensor([[True, True], [True, False]])
    with pytest.raises(ValueError, match=r"^message 1 has 1 context"):
        estimator(torch.zeros(2, 2), torch.zeros(2, dtype=torch.long), valid)


@pytest.mark.parametrize(
    ("scores", "own", "valid", "line"),
    [
        (torch.zeros(2, 3), torch.tensor([0, 3]), None, r"own\[1\] = 3 is not a valid column"),
        (torch.zeros(2, 3), torch.tensor([0]), None, r"own must name one column for each of 2 messages"),
        (torch.zeros(1, 3), torch.tensor([0]), torch.tensor([[False, True, True]]), r"own\[0\] = 0 is not a valid"),
        (torch.zeros(1, 3), torch.tensor([0]), torch.ones(3, 1).bool(), r"valid must have the shape of log_probs"),
        (torch.tensor([[0.0, INF]]), torch.tensor([0]), None, r"log_probs holds \+inf"),
    ],
)
def test_matrices_with_wrong_shapes_columns_or_scores_are_refused(
    scores: Tensor, own: Tensor, valid: Tensor | None, line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        contrastive(scores, own, valid)


def test_a_bit_is_log_two_nats() -> None:
    assert nats_to_bits(math.log(8)) == pytest.approx(3.0)
    assert nats_to_bits(torch.tensor([math.log(2)])).tolist() == pytest.approx([1.0])
