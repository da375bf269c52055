"""Every estimator on channels whose information is known in closed form: exactly, and by means over draws."""

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from eval.analysis.significance import Bootstrap, clustered_mean, interval
from objectives.critics import donsker_varadhan, jensen_shannon, nwj, tuba
from objectives.mutual_information import (
    club,
    contrastive,
    interpolated,
    leave_one_out,
    rate_against_prior,
    reconstruction,
    task_information,
)

SURE = 3.5
"""Standard errors between a mean and what it is allowed to be: one false alarm in 4000 for each new seed."""


class Channel(NamedTuple):
    """``probabilities[x, z]`` = p(z given x), contexts uniform, and the information it carries, nats."""

    probabilities: Tensor
    truth: float


def symmetric(size: int, error: float) -> Channel:
    channel = torch.full((size, size), error / (size - 1), dtype=torch.float64).fill_diagonal_(1 - error)
    lost = (1 - error) * math.log(1 - error) + (error * math.log(error / (size - 1)) if error else 0.0)
    return Channel(channel, math.log(size) + lost)


def erasure(size: int, error: float) -> Channel:
    kept = (1 - error) * torch.eye(size, dtype=torch.float64)
    erased = torch.full((size, 1), error, dtype=torch.float64)
    return Channel(torch.cat([kept, erased], dim=1), (1 - error) * math.log(size))


def binary(error: float) -> Channel:
    entropy = -(error * math.log(error) + (1 - error) * math.log(1 - error))
    flipped = torch.tensor([[1 - error, error], [error, 1 - error]], dtype=torch.float64)
    return Channel(flipped, math.log(2) - entropy)


def many_to_one(image: list[int]) -> Channel:
    shares = torch.tensor(image).bincount().double() / len(image)
    return Channel(torch.eye(len(shares), dtype=torch.float64)[image], -(shares * shares.log()).sum().item())


CHANNELS = {
    "symmetric, 2": symmetric(2, 0.5),
    "symmetric, 8": symmetric(8, 0.1),
    "symmetric, 64": symmetric(64, 0.1),
    "symmetric without error": symmetric(7, 0.0),
    "erasure": erasure(5, 0.3),
    "binary symmetric": binary(0.2),
    "many to one": many_to_one([0, 0, 0, 1, 1, 2]),
    "constant": Channel(torch.tensor([[0.2, 0.8]], dtype=torch.float64).repeat(4, 1), 0.0),
    "permutation": Channel(torch.eye(6, dtype=torch.float64)[torch.tensor([3, 0, 5, 1, 2, 4])], math.log(6)),
}


def random_channel(contexts: int, messages: int, seed: int) -> Channel:
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(contexts, messages, generator=generator, dtype=torch.float64)
    channel = logits.softmax(dim=1)
    return Channel(channel, (channel * (channel / channel.mean(dim=0)).log()).sum().item() / contexts)


def draws_from(channel: Tensor, draws: int, contexts: int, per_context: int, seed: int) -> tuple[Tensor, Tensor]:
    """Matrices of messages from independent uniform contexts, one under another: [draws, messages, contexts] flat.

    Every row has the contexts of its own draw as columns, and its estimator terms are those of the draw alone.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = torch.randint(len(channel), (draws, contexts), generator=generator)
    messages = torch.multinomial(channel[columns].flatten(0, 1), per_context, replacement=True, generator=generator)
    scores = channel.log()[columns[:, None, :], messages.view(draws, -1, 1)]
    return scores.flatten(0, 1), torch.arange(contexts).repeat_interleave(per_context).repeat(draws)


def mean_and_error(terms: Tensor, draws: int) -> tuple[float, float]:
    """The mean over draws, and its standard error."""
    means = terms.view(draws, -1).mean(dim=1)
    return means.mean().item(), means.std().item() / math.sqrt(draws)


@pytest.mark.parametrize("name", CHANNELS)
def test_contrastive_is_exact_when_the_contexts_are_all_there(name: str) -> None:
    channel, truth = CHANNELS[name]
    n_contexts, n_messages = channel.shape
    own = torch.arange(n_contexts).repeat_interleave(n_messages)
    possible = channel.flatten() > 0
    terms = contrastive(channel.log().T.repeat(n_contexts, 1)[possible], own[possible]).terms
    assert (channel.flatten()[possible] * terms).sum().item() / n_contexts == pytest.approx(truth, abs=1e-12)


@pytest.mark.parametrize("name", CHANNELS)
def test_sampled_messages_estimate_the_truth_when_the_contexts_are_all_there(name: str) -> None:
    channel, truth = CHANNELS[name]
    own = torch.arange(len(channel)).repeat_interleave(2000 // len(channel))
    generator = torch.Generator().manual_seed(2)
    messages = torch.multinomial(channel[own], 1, generator=generator)[:, 0]
    prior, decoder = channel.mean(dim=0), channel / channel.sum(dim=0)
    estimates = [
        contrastive(channel.log().T[messages], own),
        rate_against_prior(channel[own, messages].log(), prior[messages].log()),
        reconstruction(decoder[own, messages].log(), math.log(len(channel))),
        task_information(decoder[own, messages].log(), torch.full(own.shape, -math.log(len(channel)))),
    ]
    for estimate in estimates:
        error = estimate.terms.std().item() / math.sqrt(len(own))
        assert abs(estimate.mean - truth) <= SURE * error + 1e-6


@pytest.mark.parametrize("name", CHANNELS)
def test_means_over_draws_stand_on_their_side_of_the_truth(name: str) -> None:
    channel, truth = CHANNELS[name]
    scores, own = draws_from(channel, draws=200, contexts=6, per_context=2, seed=3)
    below, error = mean_and_error(contrastive(scores, own).terms, 200)
    assert below <= truth + SURE * error + 1e-12
    above, error = mean_and_error(leave_one_out(scores, own).terms, 200)
    assert above == math.inf or above >= truth - SURE * error - 1e-12


@pytest.mark.parametrize(
    ("size", "contexts", "per_context", "draws", "lower", "upper"),
    [(8, 8, 4, 400, 1.196, 2.195), (64, 64, 4, 400, 3.006, 4.061), (64, 512, 1, 50, 3.365, 3.469)],
)
def test_means_over_draws_of_the_symmetric_channel_are_those_of_the_table(
    size: int, contexts: int, per_context: int, draws: int, lower: float, upper: float
) -> None:
    channel, truth = symmetric(size, 0.1)
    matrix = draws_from(channel, draws, contexts, per_context, seed=0)
    below, above = contrastive(*matrix), leave_one_out(*matrix)
    for estimate, expected, side in ((below, lower, -1), (above, upper, 1)):
        mean, error = mean_and_error(estimate.terms, draws)
        # The expected values are means over 400 draws themselves, given to three digits.
        assert abs(mean - expected) < SURE * error * math.sqrt(1 + draws / 400) + 0.0005
        assert side * (mean - truth) > SURE * error


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
    forgotten = [
        [sum(keyed[key][x] == keyed[true_key][context] for key in range(size)) / size for x in range(size)]
        for true_key, context in pairs
    ]
    given_any_key = torch.tensor(forgotten, dtype=torch.float64)
    assert contrastive(given_any_key.log(), own).mean == pytest.approx(0.0, abs=1e-12)


def test_a_negative_made_to_differ_lifts_the_contrastive_value_above_the_information() -> None:
    """A yes or no is the message: 1 bit. The fifth negative was made to differ, or is independent like the others."""
    answers = torch.cartesian_prod(*[torch.arange(2)] * 5)
    yes, own = torch.ones(len(answers), 1, dtype=torch.long), torch.zeros(len(answers), dtype=torch.long)
    twins = torch.cat([yes, answers[:, :4], 1 - yes], dim=1)
    independent = torch.cat([yes, answers], dim=1)
    hard, easy = (contrastive((columns == 1).double().log(), own).mean for columns in (twins, independent))
    assert easy < math.log(2) < hard
    assert hard / math.log(2) == pytest.approx(1.0955, abs=1e-4)


def test_scoring_each_context_with_a_question_of_its_own_measures_something_else() -> None:
    size, keys = 5, [0, 4, 3, 2, 1]
    sent = [(context + key) % size for context, key in enumerate(keys)]
    own = torch.arange(size)
    held = torch.tensor([[(x + keys[i]) % size == sent[i] for x in range(size)] for i in range(size)])
    assert contrastive(held.double().log(), own).mean == pytest.approx(math.log(size), abs=1e-12)
    # With these keys every pair of context and question sends the same message.
    paired = torch.tensor([[sent[x] == sent[i] for x in range(size)] for i in range(size)])
    assert contrastive(paired.double().log(), own).mean == 0.0
    # A message that repeats its question carries nothing about the context, and is paid in full where questions differ.
    repeated = torch.tensor([[keys[x] == keys[i] for x in range(size)] for i in range(size)])
    assert contrastive(repeated.double().log(), own).mean == pytest.approx(math.log(size), abs=1e-12)
    assert contrastive(torch.ones(size, size).log(), own).mean == 0.0


@pytest.mark.parametrize(("correlation", "dimensions"), [(0.7, 2), (0.5, 4), (0.9, 1)])
def test_gaussian_information_is_found_by_every_bound(correlation: float, dimensions: int) -> None:
    draws, contexts, noise = 60, 96, math.sqrt(1 - correlation**2)
    truth = -dimensions / 2 * math.log(1 - correlation**2)
    generator = torch.Generator().manual_seed(1)
    sent = torch.randn(draws, contexts, dimensions, generator=generator, dtype=torch.float64)
    heard = correlation * sent + noise * torch.randn(sent.shape, generator=generator, dtype=torch.float64)
    scores = gaussian_log_prob(heard[:, :, None] - correlation * sent[:, None], noise).flatten(0, 1)
    own, prior = torch.arange(contexts).repeat(draws), gaussian_log_prob(heard, 1.0).flatten()
    own_scores = scores.gather(1, own[:, None])[:, 0]
    expected = [
        (rate_against_prior(own_scores, prior), truth),
        (tuba(scores, own, prior), truth),
        (nwj(scores, own, prior), truth - 1 / math.e),
        (nwj(scores, own, prior - 1), truth),
    ]
    for estimate, value in expected:
        mean, error = mean_and_error(estimate.terms, draws)
        assert abs(mean - value) < SURE * error
    below, below_error = mean_and_error(contrastive(scores, own).terms, draws)
    above, above_error = mean_and_error(leave_one_out(scores, own).terms, draws)
    assert below < truth + SURE * below_error and above > truth - SURE * above_error
    assert below == pytest.approx(truth, abs=0.05) and above == pytest.approx(truth, abs=0.15)
    assert interpolated(scores, own, prior, 0.5).mean < truth + 0.02
    assert donsker_varadhan(scores, own, prior).mean == pytest.approx(truth, abs=0.03)
    assert jensen_shannon(scores, own, prior).mean < math.log(2) * truth


def gaussian_log_prob(distance: Tensor, deviation: float) -> Tensor:
    dimensions = distance.shape[-1]
    constant = dimensions * math.log(deviation * math.sqrt(2 * math.pi))
    return -distance.square().sum(dim=-1) / (2 * deviation**2) - constant


class Expectation(NamedTuple):
    """Every draw of three contexts and a message from the first, with its probability."""

    scores: Tensor
    own: Tensor
    prior: Tensor
    weights: Tensor

    def of(self, terms: Tensor) -> float:
        return (self.weights * terms).sum().item()


def every_draw(channel: Tensor) -> Expectation:
    contexts = torch.cartesian_prod(*[torch.arange(len(channel))] * 3).repeat_interleave(channel.shape[1], dim=0)
    messages = torch.arange(channel.shape[1]).repeat(len(channel) ** 3)
    weights = channel[contexts[:, 0], messages] / len(channel) ** 3
    scores = channel.log()[contexts, messages[:, None]]
    return Expectation(scores, torch.zeros(len(messages), dtype=torch.long), channel.mean(0).log()[messages], weights)


@pytest.mark.parametrize("seed", range(3))
def test_expectations_over_every_draw_are_the_closed_forms(seed: int) -> None:
    channel, truth = random_channel(5, 4, seed)
    draw = every_draw(channel)
    matrix, marginal = (draw.scores, draw.own), channel.mean(dim=0)
    reverse = (marginal * (marginal / channel).log()).sum().item() / len(channel)
    middle = (channel + marginal) / 2
    divergence = (channel * (channel / middle).log() + marginal * (marginal / middle).log()).sum().item()
    assert draw.of(tuba(*matrix, draw.prior).terms) == pytest.approx(truth, abs=1e-12)
    assert draw.of(nwj(*matrix, draw.prior).terms) == pytest.approx(truth - 1 / math.e, abs=1e-12)
    assert draw.of(nwj(*matrix, draw.prior - 1).terms) == pytest.approx(truth, abs=1e-12)
    assert draw.of(club(*matrix).terms) == pytest.approx(truth + reverse, abs=1e-12)
    assert draw.of(jensen_shannon(*matrix, draw.prior).terms) == pytest.approx(divergence / len(channel), abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("prior_shift", [-4.0, -1.0, 0.0, 2.0])
def test_expectations_over_every_draw_stand_on_their_side(seed: int, prior_shift: float) -> None:
    channel, truth = random_channel(5, 4, seed)
    draw = every_draw(channel)
    prior = draw.prior + prior_shift
    below = [interpolated(draw.scores, draw.own, prior, alpha) for alpha in (1e-6, 0.01, 0.3, 0.9, 1.0)]
    below += [bound(draw.scores, draw.own, prior) for bound in (tuba, nwj, jensen_shannon)]
    below.append(contrastive(draw.scores, draw.own))
    for estimate in below:
        assert estimate.side == "lower" and draw.of(estimate.terms) <= truth + 1e-12
    above = leave_one_out(draw.scores, draw.own)
    assert above.side == "upper" and draw.of(above.terms) >= truth
    assert draw.of(jensen_shannon(draw.scores, draw.own, prior).terms) <= math.log(2) * truth


def test_interpolation_without_its_correction_is_no_bound() -> None:
    channel, truth = random_channel(5, 4, 0)
    draw = every_draw(channel)
    estimate = interpolated(draw.scores, draw.own, draw.prior - 4, 0.01)
    assert estimate.ceiling is not None
    one_less_correction = estimate.ceiling - math.log(2 / 0.01)
    assert draw.of(estimate.terms - one_less_correction) > truth + 1
    assert draw.of(estimate.terms) < truth


def test_interpolation_sees_past_the_ceiling_of_the_contrastive_bound() -> None:
    channel, truth = symmetric(64, 0.1)
    scores, own = draws_from(channel, draws=300, contexts=8, per_context=1, seed=4)
    prior = torch.full(own.shape, -math.log(64), dtype=torch.float64)
    contrasted, _ = mean_and_error(contrastive(scores, own).terms, 300)
    seen, error = mean_and_error(interpolated(scores, own, prior, 0.02).terms, 300)
    assert contrasted < math.log(8) < 2.1 < truth - 1
    assert truth - 0.3 < seen < truth + SURE * error


def test_the_interval_of_an_unbiased_bound_covers_the_information_as_often_as_it_says() -> None:
    channel, truth = random_channel(40, 6, 1)
    hits = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        contexts = torch.randint(40, (30,), generator=generator).repeat_interleave(4)
        own = torch.arange(30).repeat_interleave(4)
        messages = torch.multinomial(channel[contexts], 1, generator=generator)[:, 0]
        terms = rate_against_prior(channel[contexts, messages].log(), channel.mean(0)[messages].log()).terms
        estimate = interval(clustered_mean(terms.tolist(), own.tolist(), bootstrap=Bootstrap(500, seed)))
        assert estimate.low is not None and estimate.high is not None
        hits += estimate.low <= truth <= estimate.high
    assert 0.91 <= hits / 200 <= 0.99
