"""Estimators of information against channels whose information is known in closed form or by enumeration."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from objectives.mutual_information import (
    club,
    contrastive,
    contrastive_token_terms,
    leave_one_out,
    nats_to_bits,
    rate_against_prior,
    task_information,
)

ESTIMATORS = [contrastive, leave_one_out, club]


def exact_contrastive(channel: Tensor) -> float:
    """Contrastive terms averaged over all (context, message) pairs by probability, contexts uniform: exactly I(X;Z)."""
    n_contexts, n_messages = channel.shape
    own = torch.arange(n_contexts).repeat_interleave(n_messages)
    terms = contrastive(channel.log().T.repeat(n_contexts, 1), own).terms
    weights = channel.flatten() / n_contexts
    return (weights[weights > 0] * terms[weights > 0]).sum().item()


def symmetric_channel(size: int, error: float) -> Tensor:
    channel = torch.full((size, size), error / (size - 1), dtype=torch.float64)
    return channel.fill_diagonal_(1 - error)


def symmetric_information(size: int, error: float) -> float:
    return math.log(size) + (1 - error) * math.log(1 - error) + error * math.log(error / (size - 1))


def random_scores(messages: int, contexts: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = -30 * torch.rand(messages, contexts, generator=generator, dtype=torch.float64)
    return scores, torch.randint(contexts, (messages,), generator=generator)


def draw_from_channel(
    channel: Tensor, n_contexts: int, per_context: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The log-prob matrix of messages drawn from independent uniform contexts, and their own columns."""
    contexts = torch.randint(len(channel), (n_contexts,), generator=generator)
    messages = torch.multinomial(channel[contexts], per_context, replacement=True, generator=generator).flatten()
    return channel.log()[contexts][:, messages].T, torch.arange(n_contexts).repeat_interleave(per_context)


@pytest.mark.parametrize("size", [2, 8, 64])
@pytest.mark.parametrize("error", [0.0, 0.1, 0.5])
def test_contrastive_is_exact_for_the_symmetric_channel_when_contexts_are_all_there(size: int, error: float) -> None:
    truth = symmetric_information(size, error) if error else math.log(size)
    assert exact_contrastive(symmetric_channel(size, error)) == pytest.approx(truth, abs=1e-12)


def test_contrastive_is_exact_for_the_erasure_channel() -> None:
    channel = torch.cat([0.7 * torch.eye(5, dtype=torch.float64), torch.full((5, 1), 0.3)], dim=1)
    assert exact_contrastive(channel) == pytest.approx(0.7 * math.log(5), abs=1e-12)


def test_contrastive_is_exact_for_the_binary_symmetric_channel() -> None:
    entropy = -(0.2 * math.log(0.2) + 0.8 * math.log(0.8))
    assert exact_contrastive(symmetric_channel(2, 0.2)) == pytest.approx(math.log(2) - entropy, abs=1e-12)


def test_contrastive_is_the_entropy_of_a_many_to_one_function() -> None:
    channel = torch.eye(3, dtype=torch.float64)[[0, 0, 0, 1, 1, 2]]
    entropy = -sum(p * math.log(p) for p in (3 / 6, 2 / 6, 1 / 6))
    assert exact_contrastive(channel) == pytest.approx(entropy, abs=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_constant_channel_and_identical_contexts_carry_exactly_nothing(estimator) -> None:
    scores = -torch.rand(6, 1).repeat(1, 4) * 100
    assert estimator(scores, torch.arange(6) % 4).terms.tolist() == pytest.approx([0.0] * 6, abs=1e-12)


@pytest.mark.parametrize("size", [2, 7, 32])
def test_a_permutation_carries_exactly_log_n_and_is_saturated(size: int) -> None:
    estimate = contrastive(torch.eye(size).log(), torch.arange(size))
    assert torch.equal(estimate.terms, torch.full((size,), float(size), dtype=torch.float64).log())
    assert estimate.ceiling is not None and torch.equal(estimate.terms, estimate.ceiling)
    assert estimate.saturated_share == 1.0


def test_a_keyed_permutation_is_seen_only_when_the_question_is_held_fixed() -> None:
    size = 5
    keyed = [[(context + key) % size for context in range(size)] for key in range(size)]
    pairs = list(itertools.product(range(size), range(size)))
    own = torch.tensor([context for _, context in pairs])
    with_key = torch.tensor([[keyed[key][x] == keyed[key][context] for x in range(size)] for key, context in pairs])
    assert contrastive(with_key.double().log(), own).mean == pytest.approx(math.log(size), abs=1e-12)
    given_any_key = torch.tensor(
        [
            [sum(keyed[key][x] == keyed[true_key][context] for key in range(size)) / size for x in range(size)]
            for true_key, context in pairs
        ]
    )
    assert contrastive(given_any_key.log(), own).mean == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("size", "n_contexts", "per_context", "draws", "lower", "upper"),
    [(8, 8, 4, 400, 1.196, 2.195), (64, 64, 4, 200, 3.006, 4.061), (64, 512, 1, 40, 3.365, 3.469)],
)
def test_means_over_draws_of_the_symmetric_channel_stand_where_they_should(
    size: int, n_contexts: int, per_context: int, draws: int, lower: float, upper: float
) -> None:
    channel, truth = symmetric_channel(size, 0.1), symmetric_information(size, 0.1)
    generator = torch.Generator().manual_seed(0)
    matrices = [draw_from_channel(channel, n_contexts, per_context, generator) for _ in range(draws)]
    below = torch.tensor([contrastive(*matrix).mean for matrix in matrices])
    above = torch.tensor([leave_one_out(*matrix).mean for matrix in matrices])
    for means, expected in ((below, lower), (above, upper)):
        # The expected values are means over 400 draws themselves, given to three digits.
        spread = means.std().item()
        assert abs(means.mean().item() - expected) < 3.5 * spread * math.sqrt(1 / draws + 1 / 400) + 0.0005
    assert below.mean() + 3 * below.std() / math.sqrt(draws) < truth < above.mean() - 3 * above.std() / math.sqrt(draws)


def test_gaussian_information_lies_between_the_bounds() -> None:
    correlation, dimensions, draws = 0.7, 2, 60
    noise = math.sqrt(1 - correlation**2)
    generator = torch.Generator().manual_seed(1)
    below, above = [], []
    for _ in range(draws):
        contexts = torch.randn(128, dimensions, generator=generator, dtype=torch.float64)
        messages = correlation * contexts + noise * torch.randn(contexts.shape, generator=generator)
        distance = (messages[:, None] - correlation * contexts[None]).square().sum(dim=2)
        scores = -distance / (2 * noise**2) - dimensions * math.log(noise * math.sqrt(2 * math.pi))
        below.append(contrastive(scores, torch.arange(128)).mean)
        above.append(leave_one_out(scores, torch.arange(128)).mean)
    truth = -dimensions / 2 * math.log(1 - correlation**2)
    assert sum(below) / draws == pytest.approx(truth, abs=0.05)
    assert sum(below) / draws < truth < sum(above) / draws


def test_the_terms_are_those_of_the_formulas() -> None:
    scores, own = random_scores(6, 5)
    for message, column in enumerate(own.tolist()):
        row = scores[message].tolist()
        others = row[:column] + row[column + 1 :]
        log_mean = math.log(sum(math.exp(value) for value in row) / 5)
        log_mean_others = math.log(sum(math.exp(value) for value in others) / 4)
        assert contrastive(scores, own).terms[message].item() == pytest.approx(row[column] - log_mean)
        assert leave_one_out(scores, own).terms[message].item() == pytest.approx(row[column] - log_mean_others)
        assert club(scores, own).terms[message].item() == pytest.approx(row[column] - sum(others) / 4)


def test_each_estimator_says_its_side_and_ceiling() -> None:
    scores, own = random_scores(3, 4)
    lower, upper, loose = contrastive(scores, own), leave_one_out(scores, own), club(scores, own)
    rate, task = rate_against_prior(scores[0], scores[1]), task_information(scores[0], scores[1])
    assert [estimate.side for estimate in (lower, upper, loose, rate, task)] == [
        "lower", "upper", "upper", "upper", "lower",
    ]  # fmt: skip
    assert lower.ceiling is not None and lower.ceiling.tolist() == pytest.approx([math.log(4)] * 3)
    assert task.ceiling is not None and torch.equal(task.ceiling, -scores[1])
    assert upper.ceiling is loose.ceiling is rate.ceiling is None
    assert upper.saturated_share == loose.saturated_share == rate.saturated_share == 0.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_a_row_shares_and_the_order_of_columns_change_nothing(estimator) -> None:
    scores, own = random_scores(8, 6)
    terms = estimator(scores, own).terms
    shifted = scores + torch.linspace(-1e4, 1e4, 8, dtype=torch.float64)[:, None]
    torch.testing.assert_close(estimator(shifted, own).terms, terms, rtol=0, atol=1e-9)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    torch.testing.assert_close(estimator(scores[:, order], order.argsort()[own]).terms, terms, rtol=0, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_columns_that_are_not_valid_count_as_absent(estimator) -> None:
    scores, own = random_scores(2, 5)
    own = torch.tensor([0, 4])
    valid = torch.tensor([[True, True, False, True, False], [False, False, True, False, True]])
    polluted = torch.where(valid, scores, math.nan)
    estimate = estimator(polluted, own, valid)
    assert estimate.missing_negatives == 0
    first, second = (
        estimator(scores[:1, [0, 1, 3]], torch.tensor([0])),
        estimator(scores[1:, [2, 4]], torch.tensor([1])),
    )
    torch.testing.assert_close(estimate.terms, torch.cat([first.terms, second.terms]))
    if estimate.ceiling is not None:
        assert estimate.ceiling.tolist() == pytest.approx([math.log(3), math.log(2)])


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_missing_negative_shrinks_n_and_is_counted(estimator) -> None:
    scores, own = random_scores(3, 5)
    own = torch.tensor([1, 0, 2])
    holed = scores.clone()
    holed[0, 4] = math.nan
    estimate = estimator(holed, own)
    assert (estimate.missing, estimate.missing_negatives) == (0, 1)
    torch.testing.assert_close(estimate.terms[:1], estimator(scores[:1, :4], own[:1]).terms)
    torch.testing.assert_close(estimate.terms[1:], estimator(scores[1:], own[1:]).terms)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_missing_own_score_or_no_negative_left_makes_the_term_missing_and_never_zero(estimator) -> None:
    scores = torch.tensor([[math.nan, -1.0, -2.0], [math.nan, -1.0, math.nan], [-1.0, -2.0, -9.0]])
    estimate = estimator(scores, torch.tensor([0, 1, 2]))
    assert estimate.terms.isnan().tolist() == [True, True, False]
    assert estimate.missing == 2
    assert estimate.missing_negatives == 2
    assert estimate.mean == pytest.approx(estimate.terms[2].item())
    assert not estimate.saturated[:2].any()


def test_saturation_is_measured_over_the_messages_that_have_a_term() -> None:
    scores = torch.tensor([[0.0, -50.0], [0.0, -0.1], [math.nan, 0.0]])
    estimate = contrastive(scores, torch.zeros(3, dtype=torch.long))
    assert estimate.saturated.tolist() == [True, False, False]
    assert estimate.saturated_share == 0.5
    assert contrastive(scores, torch.zeros(3, dtype=torch.long), tolerance=1.0).saturated_share == 1.0


def test_an_estimate_without_any_term_is_nan_and_not_zero() -> None:
    estimate = contrastive(torch.full((2, 3), math.nan), torch.tensor([0, 1]))
    assert math.isnan(estimate.mean) and math.isnan(estimate.saturated_share)
    assert estimate.missing == 2


INF = math.inf


@pytest.mark.parametrize(
    ("row", "lower", "upper", "loose"),
    [
        ([-INF, -1.0, -2.0], -INF, -INF, -INF),
        ([-INF, -1.0, -INF], -INF, -INF, -INF),
        ([-1.0, -INF, -INF], math.log(3), INF, INF),
        ([-1.0, -1.0, -INF], math.log(3 / 2), math.log(2), INF),
        ([-INF, -INF, -INF], 0.0, 0.0, 0.0),
    ],
)
def test_impossible_messages_have_the_documented_terms(row, lower: float, upper: float, loose: float) -> None:
    scores, own = torch.tensor([row]), torch.tensor([0])
    values = [estimator(scores, own).terms.item() for estimator in ESTIMATORS]
    assert values == pytest.approx([lower, upper, loose])


@pytest.mark.parametrize(
    ("score", "reference", "expected"), [(-INF, -1.0, -INF), (-1.0, -INF, INF), (-INF, -INF, 0.0), (-1.0, -3.0, 2.0)]
)
def test_differences_of_impossible_scores_have_the_documented_terms(
    score: float, reference: float, expected: float
) -> None:
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
    assert task_information(torch.tensor([0.0, math.nan]), torch.tensor([-1.0, -1.0])).missing == 1


def test_rate_against_the_true_marginal_is_the_information() -> None:
    channel = symmetric_channel(6, 0.2)
    terms = rate_against_prior(channel.log().flatten(), channel.mean(dim=0).log().repeat(6)).terms
    assert (channel.flatten() / 6 * terms).sum().item() == pytest.approx(symmetric_information(6, 0.2), abs=1e-12)


def test_rate_against_another_prior_is_above_the_information() -> None:
    channel, prior = symmetric_channel(3, 0.2), torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    terms = rate_against_prior(channel.log().flatten(), prior.log().repeat(3)).terms
    gap = sum(1 / 3 * math.log(1 / 3 / p) for p in prior.tolist())
    value = (channel.flatten() / 3 * terms).sum().item()
    assert value == pytest.approx(symmetric_information(3, 0.2) + gap, abs=1e-12)


def random_language_models(
    contexts: int, vocabulary: int, length: int, seed: int
) -> list[dict[tuple[int, ...], Tensor]]:
    """Next-token tables, one a context: for every prefix, the log-probs of the next token; token 0 ends a message."""
    generator = torch.Generator().manual_seed(seed)
    prefixes = [prefix for size in range(length) for prefix in itertools.product(range(1, vocabulary), repeat=size)]
    draw = lambda: (2 * torch.randn(vocabulary, generator=generator, dtype=torch.float64)).log_softmax(0)  # noqa: E731
    return [{prefix: draw() for prefix in prefixes} for _ in range(contexts)]


def enumerated_scores(models: list[dict[tuple[int, ...], Tensor]], length: int) -> tuple[Tensor, Tensor]:
    """Token log-probs [strings, contexts, tokens] and mask of every string that ends or reaches the length."""
    prefixes = list(models[0])
    strings = [(*prefix, 0) for prefix in prefixes]
    strings += [
        (*prefix, token) for prefix in prefixes if len(prefix) == length - 1 for token in range(1, len(models[0][()]))
    ]
    scores = torch.full((len(strings), len(models), length), math.nan, dtype=torch.float64)
    mask = torch.zeros(len(strings), length, dtype=torch.bool)
    for number, string in enumerate(strings):
        mask[number, : len(string)] = True
        for column, model in enumerate(models):
            for position, token in enumerate(string):
                scores[number, column, position] = model[string[:position]][token]
    return scores, mask


@pytest.mark.parametrize(("contexts", "vocabulary", "length"), [(3, 4, 4), (2, 6, 2), (5, 3, 3)])
def test_contrastive_equals_exact_enumeration_of_a_random_language_model(
    contexts: int, vocabulary: int, length: int
) -> None:
    token_scores, mask = enumerated_scores(random_language_models(contexts, vocabulary, length, seed=7), length)
    scores = torch.where(mask[:, None], token_scores, 0.0).sum(dim=2)
    probabilities = scores.exp()
    torch.testing.assert_close(probabilities.sum(dim=0), torch.ones(contexts, dtype=torch.float64))
    mixture = probabilities.mean(dim=1, keepdim=True)
    truth = (probabilities * (probabilities / mixture).log()).sum().item() / contexts
    own = torch.arange(contexts).repeat_interleave(len(scores))
    terms = contrastive(scores.repeat(contexts, 1), own).terms
    assert (probabilities.T.flatten() * terms).sum().item() / contexts == pytest.approx(truth, abs=1e-12)
    assert truth > 0.1


def bayes_token_terms(token_scores: Tensor, own: int) -> list[float]:
    """The decomposition as it is written: weights start uniform and follow each token's likelihood."""
    likelihoods = token_scores.exp()
    weights, terms = torch.full((len(likelihoods),), 1 / len(likelihoods), dtype=torch.float64), []
    for token in likelihoods.T:
        terms.append((token_scores[own, len(terms)] - (weights * token).sum().log()).item())
        weights = weights * token / (weights * token).sum()
    return terms


def test_token_terms_follow_bayes_rule_and_sum_to_the_contrastive_term() -> None:
    token_scores, mask = enumerated_scores(random_language_models(4, 3, 3, seed=3), 3)
    own = torch.arange(len(token_scores)) % 4
    terms = contrastive_token_terms(token_scores, mask, own)
    totals = contrastive(torch.where(mask[:, None], token_scores, 0.0).sum(dim=2), own).terms
    torch.testing.assert_close(terms.sum(dim=1), totals, rtol=0, atol=1e-12)
    assert (terms[~mask] == 0).all() and (~mask).any()
    for message in range(len(mask)):
        size = int(mask[message].sum())
        expected = bayes_token_terms(token_scores[message, :, :size], int(own[message]))
        assert terms[message, :size].tolist() == pytest.approx(expected, abs=1e-12)


def test_token_terms_sum_to_the_contrastive_term_with_negatives_of_their_own_and_missing_scores() -> None:
    generator = torch.Generator().manual_seed(5)
    token_scores = -3 * torch.rand(3, 5, 7, generator=generator)
    mask = torch.arange(7) < torch.tensor([7, 4, 6])[:, None]
    own = torch.tensor([0, 2, 4])
    valid = torch.tensor([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0], [1, 1, 1, 0, 1]], dtype=torch.bool)
    token_scores[0, 3, 2] = token_scores[2, 4, 1] = token_scores[1, 3, 5] = math.nan
    terms = contrastive_token_terms(token_scores, mask, own, valid)
    summed = torch.where(mask[:, None], token_scores.double(), 0.0).sum(dim=2)
    totals = contrastive(summed, own, valid)
    assert totals.missing_negatives == 1
    torch.testing.assert_close(terms.sum(dim=1), totals.terms, rtol=0, atol=1e-12, equal_nan=True)
    assert terms[2].isnan().tolist() == mask[2].tolist()


def test_token_terms_of_impossible_tokens_are_never_nan_and_sum_to_the_contrastive_term() -> None:
    token_scores = torch.full((4, 2, 3), -1.0)
    token_scores[0, 0, 1] = -INF
    token_scores[1, 1, 1] = -INF
    token_scores[2, 0, 0] = token_scores[2, 1, 2] = -INF
    token_scores[3, 0, :2] = -INF
    own = torch.zeros(4, dtype=torch.long)
    terms = contrastive_token_terms(token_scores, torch.ones(4, 3, dtype=torch.bool), own)
    assert terms[0].tolist() == [0.0, -INF, 0.0]
    assert terms[1].tolist() == pytest.approx([0.0, math.log(2), 0.0])
    assert terms[2].tolist() == [0.0, 0.0, 0.0]
    assert terms[3].tolist() == [-INF, 0.0, 0.0]
    assert torch.equal(terms.sum(dim=1), contrastive(token_scores.sum(dim=2), own).terms)


def test_messages_without_tokens_have_no_token_terms() -> None:
    terms = contrastive_token_terms(torch.zeros(2, 3, 0), torch.zeros(2, 0, dtype=torch.bool), torch.tensor([0, 1]))
    assert terms.shape == (2, 0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_single_context_is_refused_in_one_line(estimator) -> None:
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
def test_matrices_that_make_no_sense_are_refused(scores: Tensor, own: Tensor, valid: Tensor | None, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        contrastive(scores, own, valid)


def test_a_bit_is_log_two_nats() -> None:
    assert nats_to_bits(math.log(8)) == pytest.approx(3.0)
    assert nats_to_bits(torch.tensor([math.log(2)])).tolist() == pytest.approx([1.0])
