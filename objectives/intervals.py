"""Confidence intervals for the mean of an estimator's terms, by a bootstrap over contexts.

Messages of one context are not independent, so whole contexts are resampled, all messages of one together. The interval
is the percentile one, widened for few contexts as in Hesterberg 2015, "What teachers should know about the bootstrap";
with fewer than ten contexts of uneven size, one of 95% still covers the truth some 90% of the time only.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from scipy.special import ndtr, stdtrit
from torch import Tensor

RESAMPLES = 2000


class Interval(NamedTuple):
    """The ends of a confidence interval, in the unit of the terms; both NaN where there is none."""

    low: float
    high: float


def bootstrap_interval(
    terms: Float[Tensor, " messages"],
    contexts: Int[Tensor, " messages"],
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """The interval of the mean of the terms that are there.

    For the change between two estimates of the same messages, pass the differences of their terms. Contexts are drawn
    for their messages; what the choice of negatives adds to the spread is not seen.

    Args:
        terms: one a message, e.g. an estimate's, nats; NaN is missing and left out.
        contexts: which context each message was written from, any integers, e.g. the column of its own context.
        level: the confidence, between 0 and 1.
        resamples: how often the contexts are drawn.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        The interval. NaN at both ends where fewer than two contexts have a term, since one says nothing about the
        spread between contexts, and where the mean of a resample is undefined (``inf - inf``).

    Raises:
        ValueError: shapes disagree, or the level is not between 0 and 1.
    """
    if terms.ndim != 1 or terms.shape != contexts.shape:
        raise ValueError(f"one context a term: got shapes {tuple(terms.shape)} and {tuple(contexts.shape)}")
    if not 0 < level < 1:
        raise ValueError(f"level must be between 0 and 1, got {level}")
    there = ~terms.isnan()
    _, cluster = contexts[there].unique(return_inverse=True)
    sizes = cluster.bincount().double()
    if len(sizes) < 2:
        return Interval(math.nan, math.nan)
    sums = torch.zeros_like(sizes).index_add(0, cluster, terms[there].double())
    means = _resampled_means(sums.cpu(), sizes.cpu(), resamples, seed)
    if means.isnan().any():
        return Interval(math.nan, math.nan)
    ordered = means.sort().values
    below = round(_tail(len(sizes), level) * (resamples - 1))
    return Interval(ordered[below].item(), ordered[resamples - 1 - below].item())


def _resampled_means(
    sums: Float[Tensor, " clusters"], sizes: Float[Tensor, " clusters"], resamples: int, seed: int
) -> Float[Tensor, " resamples"]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(len(sizes), (resamples, len(sizes)), generator=generator)
    return sums[drawn].sum(dim=1) / sizes[drawn].sum(dim=1)


def _tail(clusters: int, level: float) -> float:
    """The share of resamples beyond either end: normal probability at Student's quantile, for the spread's bias too."""
    width = math.sqrt(clusters / (clusters - 1)) * stdtrit(clusters - 1, (1 - level) / 2)
    return float(ndtr(width))
