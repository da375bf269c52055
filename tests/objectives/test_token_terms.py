"""The contrastive bound token by token, against Bayes' rule and against the term of the whole message."""

import math

import pytest
import torch
from torch import Tensor

from objectives.mutual_information import contrastive, contrastive_token_terms

INF, NAN = math.inf, math.nan


def random_token_scores(messages: int, contexts: int, tokens: int, seed: int) -> tuple[Tensor, Tensor]:
    """Token log-probs, missing beyond a message's end as a scorer leaves them, and the mask of the tokens it has."""
    generator = torch.Generator().manual_seed(seed)
    scores = -3 * torch.rand(messages, contexts, tokens, generator=generator, dtype=torch.float64)
    mask = torch.arange(tokens) < torch.randint(1, tokens + 1, (messages, 1), generator=generator)
    return scores.masked_fill(~mask[:, None], NAN), mask


def bayes_token_terms(token_scores: Tensor, own: int) -> list[float]:
    """The decomposition as it is written: weights start uniform and follow each token's likelihood."""
    likelihoods = token_scores.exp()
    weights, terms = torch.full((len(likelihoods),), 1 / len(likelihoods), dtype=torch.float64), []
    for token in likelihoods.T:
        terms.append((token_scores[own, len(terms)] - (weights * token).sum().log()).item())
        weights = weights * token / (weights * token).sum()
    return terms


def test_token_terms_follow_bayes_rule_and_sum_to_the_contrastive_term() -> None:
    token_scores, mask = random_token_scores(12, 4, 5, seed=3)
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
    token_scores[0, 3, 2] = token_scores[2, 4, 1] = token_scores[1, 3, 5] = NAN
    terms = contrastive_token_terms(token_scores, mask, own, valid)
    summed = torch.where(mask[:, None], token_scores.double(), 0.0).sum(dim=2)
    totals = contrastive(summed, own, valid)
    assert totals.missing_negatives == 1
    torch.testing.assert_close(terms.sum(dim=1), totals.terms, rtol=0, atol=1e-12, equal_nan=True)
    assert terms[2].isnan().tolist() == mask[2].tolist()


def test_a_column_that_is_missing_at_one_token_is_no_column_of_any() -> None:
    token_scores, _ = random_token_scores(1, 4, 5, seed=3)
    token_scores = token_scores.nan_to_num(nan=-1.0)
    token_scores[0, 2, 3] = NAN
    terms = contrastive_token_terms(token_scores, torch.ones(1, 5, dtype=torch.bool), torch.tensor([1]))
    assert terms[0].tolist() == pytest.approx(bayes_token_terms(token_scores[0, [0, 1, 3]], 1), abs=1e-12)


def test_token_terms_of_impossible_tokens_sum_to_the_contrastive_term_and_are_missing_only_with_it() -> None:
    token_scores = torch.full((4, 2, 3), -1.0)
    token_scores[0, 0, 1] = -INF
    token_scores[1, 1, 1] = -INF
    token_scores[2, 0, 0] = token_scores[2, 1, 2] = -INF
    token_scores[3, 0, :2] = -INF
    own = torch.zeros(4, dtype=torch.long)
    terms = contrastive_token_terms(token_scores, torch.ones(4, 3, dtype=torch.bool), own)
    assert terms[0].tolist() == [0.0, -INF, 0.0]
    assert terms[1].tolist() == pytest.approx([0.0, math.log(2), 0.0])
    assert terms[2].isnan().all()
    assert terms[3].tolist() == [-INF, 0.0, 0.0]
    totals = contrastive(token_scores.sum(dim=2), own).terms
    torch.testing.assert_close(terms.sum(dim=1), totals, rtol=0, atol=0, equal_nan=True)


def test_messages_without_tokens_have_no_token_terms() -> None:
    terms = contrastive_token_terms(torch.zeros(2, 3, 0), torch.zeros(2, 0, dtype=torch.bool), torch.tensor([0, 1]))
    assert terms.shape == (2, 0)
