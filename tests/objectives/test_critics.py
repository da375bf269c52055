"""The critics' terms against their formulas, their relations, and the scores they cannot use."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from objectives.critics import donsker_varadhan, jensen_shannon, nwj, tuba
from objectives.mutual_information import Estimate, interpolated

CRITICS = [tuba, nwj, donsker_varadhan, jensen_shannon]
INF = math.inf


def random_scores(messages: int, contexts: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = -5 * torch.rand(messages, contexts, generator=generator, dtype=torch.float64)
    own = torch.randint(contexts, (messages,), generator=generator)
    return scores, own, -5 * torch.rand(messages, generator=generator, dtype=torch.float64)


def test_the_terms_are_those_of_the_formulas() -> None:
    scores, own, prior = random_scores(6, 5)
    critic = (scores - prior[:, None]).tolist()
    negatives = [
        [f for column, f in enumerate(row) if column != i] for row, i in zip(critic, own.tolist(), strict=True)
    ]
    partition = sum(math.exp(f) for row in negatives for f in row) / (6 * 4)
    for message, column in enumerate(own.tolist()):
        joint = critic[message][column]
        mean = sum(math.exp(f) for f in negatives[message]) / 4
        surprise = sum(math.log1p(math.exp(f)) for f in negatives[message]) / 4
        assert tuba(scores, own, prior).terms[message].item() == pytest.approx(1 + joint - mean)
        assert nwj(scores, own, prior).terms[message].item() == pytest.approx(joint - mean / math.e)
        expected = joint - math.log(partition) + 1 - mean / partition
        assert donsker_varadhan(scores, own, prior).terms[message].item() == pytest.approx(expected)
        expected = math.log(4) - math.log1p(math.exp(-joint)) - surprise
        assert jensen_shannon(scores, own, prior).terms[message].item() == pytest.approx(expected)
    joints = [row[i] for row, i in zip(critic, own.tolist(), strict=True)]
    assert donsker_varadhan(scores, own, prior).mean == pytest.approx(sum(joints) / 6 - math.log(partition))


def test_each_critic_says_its_side_and_ceiling() -> None:
    scores, own, prior = random_scores(3, 4)
    estimates = [critic(scores, own, prior) for critic in CRITICS]
    assert [estimate.side for estimate in estimates] == ["lower", "lower", "neither", "lower"]
    assert [estimate.ceiling is None for estimate in estimates] == [True, True, True, False]
    certain = jensen_shannon(torch.tensor([[0.0, -40.0], [0.0, -1.0]]), torch.tensor([0, 0]), torch.full((2,), -20.0))
    assert certain.ceiling is not None and certain.ceiling.tolist() == [math.log(4)] * 2
    assert certain.saturated.tolist() == [True, False]


def test_tuba_is_the_end_of_the_interpolation_and_is_never_above_donsker_varadhan_whatever_the_prior() -> None:
    scores, own, prior = random_scores(6, 5)
    limit = interpolated(scores, own, prior, 1e-12)
    torch.testing.assert_close(tuba(scores, own, prior).terms, limit.terms, rtol=0, atol=1e-9)
    best = donsker_varadhan(scores, own, prior).mean
    assert all(tuba(scores, own, prior + shift).mean <= best + 1e-12 for shift in torch.linspace(-3, 3, 25).tolist())


def test_identical_contexts_carry_nothing() -> None:
    scores = -torch.rand(6, 1, dtype=torch.float64).repeat(1, 4) * 100
    values = [critic(scores, torch.arange(6) % 4, scores[:, 0]).terms.tolist() for critic in CRITICS]
    assert values == [pytest.approx([value] * 6, abs=1e-12) for value in (0.0, -1 / math.e, 0.0, 0.0)]


@pytest.mark.parametrize("critic", CRITICS)
def test_what_a_row_shares_with_its_prior_and_the_order_of_columns_change_nothing(
    critic: Callable[..., Estimate],
) -> None:
    scores, own, prior = random_scores(8, 6)
    terms = critic(scores, own, prior).terms
    shift = torch.linspace(-1e4, 1e4, 8, dtype=torch.float64)
    torch.testing.assert_close(critic(scores + shift[:, None], own, prior + shift).terms, terms, rtol=0, atol=1e-9)
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    moved = critic(scores[:, order], order.argsort()[own], prior).terms
    torch.testing.assert_close(moved, terms, rtol=0, atol=1e-12)


@pytest.mark.parametrize("critic", CRITICS)
def test_columns_that_are_not_valid_or_missing_count_as_absent(critic: Callable[..., Estimate]) -> None:
    scores, _, prior = random_scores(1, 5)
    own, valid = torch.tensor([3]), torch.tensor([[True, False, True, True, True]])
    holed = scores.clone()
    holed[0, 1] = holed[0, 4] = math.nan
    estimate = critic(holed, own, prior, valid)
    assert (estimate.missing, estimate.missing_negatives) == (0, 1)
    torch.testing.assert_close(estimate.terms, critic(scores[:, [0, 2, 3]], torch.tensor([2]), prior).terms)


@pytest.mark.parametrize("critic", CRITICS)
def test_a_missing_own_score_or_prior_makes_the_term_missing_and_leaves_the_others(
    critic: Callable[..., Estimate],
) -> None:
    scores, own, prior = random_scores(5, 4)
    alone = critic(scores[:2], own[:2], prior[:2]).terms
    scores[2, own[2]] = math.nan
    prior[3], prior[4] = math.nan, -INF
    estimate = critic(scores, own, prior)
    assert estimate.terms.isnan().tolist() == [False, False, True, True, True]
    torch.testing.assert_close(estimate.terms[:2], alone)
    assert critic(scores[2:], own[2:], prior[2:]).terms.isnan().all()


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([-INF, -1.0, -2.0], (-INF, -INF, -INF, -INF)),
        ([-1.0, -INF, -INF], (1.0, 0.0, INF, math.log(2))),
        ([-INF, -INF, -INF], (-INF, -INF, None, -INF)),
    ],
)
def test_impossible_messages_have_the_terms_of_the_formulas(
    row: list[float], expected: tuple[float | None, ...]
) -> None:
    terms = [critic(torch.tensor([row]), torch.tensor([0]), torch.tensor([-1.0])).terms.item() for critic in CRITICS]
    assert [None if math.isnan(value) else value for value in terms] == [
        value if value is None else pytest.approx(value) for value in expected
    ]


@pytest.mark.parametrize("magnitude", [1e-30, 1.0, 1e4, 1e30, 3e38])
@pytest.mark.parametrize("critic", CRITICS)
def test_float32_scores_of_any_magnitude_stay_exact(critic: Callable[..., Estimate], magnitude: float) -> None:
    scores = torch.tensor([[-magnitude, -magnitude], [-magnitude / 2, -magnitude]])
    prior = scores[:, 0].clone()
    own = torch.zeros(2, dtype=torch.long)
    same = {"tuba": 0.0, "nwj": -1 / math.e, "donsker_varadhan": 0.0, "jensen_shannon": 0.0}[critic.__name__]
    terms = critic(scores[:1], own[:1], prior[:1]).terms
    assert terms.item() == pytest.approx(same, abs=1e-12)
    assert not critic(scores, own, prior).terms.isnan().any()


def test_a_critic_beyond_the_range_of_the_exponential_costs_everything() -> None:
    scores, own, prior = torch.tensor([[-1.0, -1.0]]), torch.tensor([0]), torch.tensor([-1000.0])
    assert tuba(scores, own, prior).mean == nwj(scores, own, prior).mean == -INF
    assert donsker_varadhan(scores, own, prior).mean == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("critic", CRITICS)
def test_priors_that_are_not_one_a_message_or_infinite_are_refused(critic: Callable[..., Estimate]) -> None:
    scores, own, _ = random_scores(2, 3)
    with pytest.raises(ValueError, match="one score a message"):
        critic(scores, own, torch.zeros(3))
    with pytest.raises(ValueError, match=r"a score is \+inf"):
        critic(scores, own, torch.tensor([0.0, INF]))
