"""Intervals over contexts: coverage of a known mean, clusters kept together, and what has no interval."""

import math

import pytest
import torch
from torch import Tensor

from objectives.intervals import Interval, bootstrap_interval


def clustered(contexts: int, seed: int) -> tuple[Tensor, Tensor]:
    """Terms of mean 1, uneven numbers of messages a context, and a shift that a context's messages share."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.arange(contexts).repeat_interleave(torch.randint(1, 9, (contexts,), generator=generator))
    shift = torch.randn(contexts, generator=generator)
    return 1 + shift[context] + torch.randn(len(context), generator=generator), context


def coverage(contexts: int, draws: int, keep_together: bool) -> float:
    hits = 0
    for seed in range(draws):
        terms, context = clustered(contexts, seed)
        key = context if keep_together else torch.arange(len(terms))
        low, high = bootstrap_interval(terms, key, resamples=400, seed=seed)
        hits += low <= 1 <= high
    return hits / draws


@pytest.mark.parametrize(("contexts", "least"), [(6, 0.86), (40, 0.92)])
def test_the_interval_covers_the_truth_as_often_as_it_says(contexts: int, least: float) -> None:
    assert least <= coverage(contexts, draws=300, keep_together=True) <= 0.985


def test_treating_messages_of_a_context_as_independent_covers_too_rarely() -> None:
    assert coverage(30, draws=150, keep_together=False) < 0.85


def test_the_interval_of_many_contexts_is_the_normal_one() -> None:
    terms, context = clustered(1000, seed=0)
    sums = torch.zeros(1000).index_add(0, context, terms - terms.mean())
    error = sums.square().sum().sqrt().item() / len(terms)
    low, high = bootstrap_interval(terms, context)
    assert low == pytest.approx(terms.mean().item() - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(terms.mean().item() + 1.96 * error, abs=0.2 * error)


def test_a_higher_level_widens_and_the_seed_decides() -> None:
    terms, context = clustered(30, seed=1)
    narrow, wide = (bootstrap_interval(terms, context, level) for level in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert wide == bootstrap_interval(terms, context)
    assert wide != bootstrap_interval(terms, context, seed=1)


def test_contexts_are_told_apart_whatever_their_numbers_and_order() -> None:
    terms, context = clustered(20, seed=2)
    order = torch.randperm(len(terms), generator=torch.Generator().manual_seed(0))
    moved = bootstrap_interval(terms[order], context[order] * 7 - 50)
    assert moved == pytest.approx(bootstrap_interval(terms, context))


def test_missing_terms_are_left_out_and_cost_their_context_where_it_has_no_other() -> None:
    terms, context = torch.tensor([1.0, math.nan, 2.0, math.nan, 4.0]), torch.tensor([0, 0, 1, 2, 3])
    there = ~terms.isnan()
    assert bootstrap_interval(terms, context) == bootstrap_interval(terms[there], context[there])


def test_terms_that_all_agree_leave_no_width() -> None:
    assert bootstrap_interval(torch.full((6,), 0.5), torch.arange(6)) == Interval(0.5, 0.5)


def test_one_context_has_no_interval_and_neither_has_infinity_less_infinity() -> None:
    single = bootstrap_interval(torch.tensor([1.0, 2.0]), torch.tensor([3, 3]))
    undefined = bootstrap_interval(torch.tensor([math.inf, -math.inf]), torch.tensor([0, 1]))
    none = bootstrap_interval(torch.full((3,), math.nan), torch.arange(3))
    assert all(math.isnan(end) for interval in (single, undefined, none) for end in interval)


def test_an_infinite_term_reaches_the_end_on_its_side() -> None:
    low, high = bootstrap_interval(torch.tensor([-math.inf, 1.0, 2.0, 3.0]), torch.arange(4))
    assert low == -math.inf and math.isfinite(high)


def test_mistaken_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="one context a term"):
        bootstrap_interval(torch.zeros(3), torch.arange(2))
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        bootstrap_interval(torch.zeros(3), torch.arange(3), level=95)
