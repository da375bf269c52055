"""Bootstrap intervals clustered by document, for ratios of sums and for paired changes between them.

Questions of one document are not independent, so whole documents are resampled. Intervals are BCa (Efron 1987, "Better
bootstrap confidence intervals"), with the small-sample width of Hesterberg (2015, "What teachers should know about
the bootstrap"): Student's t with one degree of freedom less than there are documents.

No draw leaves the range of what single documents give: of n equal ones such an interval covers at most 1 - 2^(1 - n),
87% at four. Below `FEW` documents the interval is therefore at least Student's own.

Where every document gives the same value there is nothing to resample, and an interval of width zero would claim
certainty. A figure whose range is known has Wilson's interval (1927, "Probable inference") there, with documents as
trials: 80 of 80 right is [95.4%, 100%]. Another figure has no interval there.

Intervals of 95% cover the truth 93 to 97% of the time over a hundred documents, or forty, as
``tests/eval/test_significance.py`` measures; some 92% where forty documents meet an accuracy near 1 or much skewness,
and 93% or more over three to seven normal ones.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr, ndtri, stdtrit


@dataclass(frozen=True)
class Bootstrap:
    """How documents are resampled; figures made with the same one are paired.

    Attributes:
        resamples: how often the documents are drawn: 2,000 fix the ends of a 95% interval to about a twentieth of its
            width.
        seed: seed of numpy's default generator; the same seed gives the same draws.
    """

    resamples: int = 2000
    seed: int = 0

    def counts(self, documents: int) -> Float[np.ndarray, "resamples documents"]:
        """How often each document is drawn in each resample; every row sums to ``documents``, which is at least one."""
        generator = np.random.default_rng(self.seed)
        shares = np.full(documents, 1.0 / documents)
        return generator.multinomial(documents, shares, size=self.resamples).astype(np.float64)


BOOTSTRAP = Bootstrap()
"""The bootstrap of every reported interval, unless another one is asked for."""


Limits = tuple[float, float]
"""The least and the largest value that a figure can have in one document."""

SHARE: Limits = (0.0, 1.0)
"""The range of an accuracy or of any other share."""

AT_LEAST_NOTHING: Limits = (0.0, math.inf)
"""The range of a length, and of whatever else cannot be negative."""

FEW = 8
"""Below so many documents an interval is at least Student's."""

Method = Literal["bootstrap", "wilson", "constant", "student"]
"""How an interval was made: ``constant`` has none, since all documents gave one value and its range is unknown, and
``student`` is over runs, or over so few documents that draws of them say too little."""

MOST_LOG_WIDTH = 700.0
"""Logarithm of the largest factor that a float holds."""

SAME = 1e-9
"""Draws this close to each other, as a share of their size, differ by the rounding of sums alone."""


@dataclass(frozen=True)
class Interval:
    """A figure and its confidence interval; None where the figure is undefined or a side of it has no bound."""

    value: float | None
    low: float | None
    high: float | None
    method: Method = field(default="bootstrap", kw_only=True)

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``results.json``; the method is named where it is not the bootstrap."""
        ends = {"value": self.value, "low": self.low, "high": self.high}
        return ends if self.method == "bootstrap" else ends | {"method": self.method}


@dataclass(frozen=True)
class Estimate:
    """A statistic over documents, with all an interval needs.

    Attributes:
        value: the statistic on the documents as observed.
        draws: its value on each resample; estimates made with the same resamples are paired.
        influence: the derivative of the statistic in each document's weight (empirical influence).
        documents: how many documents carry weight: those with something observed.
        limits: between what the statistic of one document can lie, where the statistic is a mean over documents and
            that is known.
        is_ratio: whether errors multiply it, as they do a quotient or a perplexity, so that its logarithm is nearer to
            normal.
    """

    value: float
    draws: Float[np.ndarray, " resamples"]
    influence: Float[np.ndarray, " documents"]
    documents: int
    limits: Limits | None = None
    is_ratio: bool = False


def ratio_of_sums(
    numerators: Float[np.ndarray, " documents"],
    denominators: Float[np.ndarray, " documents"],
    counts: Float[np.ndarray, "resamples documents"],
    limits: Limits | None = None,
) -> Estimate:
    """Sum of numerators over sum of denominators; a mean where the denominators count observations.

    Args:
        numerators: summed over the questions of each document.
        denominators: summed likewise, none negative; 0 for a document with nothing observed.
        counts: from `Bootstrap.counts`; share it between the two sides of a comparison to pair them.
        limits: of the ratio in one document, where it is known.

    Returns:
        The estimate, nan where the denominators sum to 0.
    """
    weight = denominators.sum()
    with np.errstate(divide="ignore", invalid="ignore"):
        value = numerators.sum() / weight
        draws = (counts @ numerators) / (counts @ denominators)
        influence = (numerators - value * denominators) / weight
    return Estimate(float(value), draws, influence, int(np.count_nonzero(denominators)), limits)


def clustered_mean(
    values: Sequence[float | None],
    clusters: Sequence[Hashable],
    bootstrap: Bootstrap = BOOTSTRAP,
    limits: Limits | None = None,
) -> Estimate:
    """The mean of the values that are there.

    For the change between two sides of the same observations, pass their differences.

    Args:
        values: one an observation; None or not finite is missing and left out.
        clusters: the document of each observation.
        bootstrap: how documents are resampled.
        limits: of the values, where it is known.

    Returns:
        The estimate, nan where every value is missing.

    Raises:
        ValueError: there are no observations, or not as many clusters as values.
    """
    if len(values) != len(clusters) or not len(values):
        raise ValueError(f"a mean needs observations, each with its cluster: got {len(values)} and {len(clusters)}")
    row = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.zeros((2, len(row)))
    for value, cluster in zip(values, clusters, strict=True):
        if value is not None and math.isfinite(value):
            sums[:, row[cluster]] += value, 1.0
    return ratio_of_sums(sums[0], sums[1], bootstrap.counts(len(row)), limits)


def difference(after: Estimate, before: Estimate) -> Estimate:
    """The paired change after - before; both sides must come from the same resamples."""
    documents = min(after.documents, before.documents)
    influence = after.influence - before.influence
    limits = None
    if after.limits is not None and before.limits is not None:
        limits = (after.limits[0] - before.limits[1], after.limits[1] - before.limits[0])
    return Estimate(after.value - before.value, after.draws - before.draws, influence, documents, limits)


def quotient(numerator: Estimate, denominator: Estimate) -> Estimate:
    """The paired ratio of two estimates that cannot truly be negative, each clipped at 0.

    A resample whose denominator is 0 counts as infinite, so that an interval it reaches has no upper bound; the ratio
    of two zeros is undefined.
    """
    top, bottom = clipped(numerator), clipped(denominator)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.float64(top.value) / bottom.value
        influence = value * (top.influence / top.value - bottom.influence / bottom.value)
        draws = top.draws / bottom.draws
    return Estimate(float(value), draws, influence, min(top.documents, bottom.documents), is_ratio=True)


def clipped(estimate: Estimate) -> Estimate:
    """The estimate with every value below 0 raised to 0."""
    # max(nan, 0) would be nan or 0 by the order of its arguments; numpy keeps nan.
    value, draws = float(np.maximum(estimate.value, 0.0)), np.maximum(estimate.draws, 0.0)
    return replace(estimate, value=value, draws=draws, limits=AT_LEAST_NOTHING)


def exponential(estimate: Estimate) -> Estimate:
    """The exponential of the estimate: perplexity from a mean negative log-likelihood in nats."""
    with np.errstate(over="ignore", invalid="ignore"):
        value = float(np.exp(estimate.value))
        draws, influence = np.exp(estimate.draws), value * estimate.influence
    return replace(estimate, value=value, draws=draws, influence=influence, limits=None, is_ratio=True)


def interval(estimate: Estimate, level: float = 0.95) -> Interval:
    """The BCa interval of an estimate, at least Student's of few documents, or Wilson's where no resample differs.

    Args:
        estimate: from the functions above.
        level: its confidence.

    Returns:
        The interval, never of width zero; without ends where fewer than two documents carry weight, since one document
        says nothing about the spread between documents, and all None where the value is undefined.
    """
    if not math.isfinite(estimate.value):
        return Interval(None, None, None)
    # A resample that drew only documents with nothing observed has no value.
    draws = np.sort(estimate.draws[~np.isnan(estimate.draws)])
    if estimate.documents < 2:
        return Interval(estimate.value, None, None)
    if math.isclose(draws[0], draws[-1], rel_tol=SAME, abs_tol=SAME):
        return _where_all_agree(estimate, level)
    low, high = (_finite(draws[round(share * (len(draws) - 1))]) for share in _bca_shares(estimate, draws, level))
    if low is not None and low == high:
        return _where_all_agree(estimate, level)
    if estimate.documents < FEW:
        return _at_least_students(estimate, Interval(estimate.value, low, high), level)
    return Interval(estimate.value, low, high)


def over_runs(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean over runs that differ by their seed, with Student's interval: as far as further seeds may lie from it.

    Args:
        values: a figure of each run, or the difference between two runs of one seed.
        level: confidence of the interval, above 0 and below 1.

    Returns:
        The mean and its interval; no value of no runs, and no interval of one.
    """
    if not values:
        return Interval(None, None, None, method="student")
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean, None, None, method="student")
    width = float(stdtrit(len(values) - 1, (1 + level) / 2) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return Interval(mean, mean - width, mean + width, method="student")


def standard_error(estimate: Estimate) -> float | None:
    """The standard error of an estimate over documents, in its unit; None where fewer than two of them carry weight.

    The infinitesimal jackknife with the factor n / (n - 1): for a mean of one observation a document it is s / sqrt(n).
    Where all documents agree and the limits are known, it is how far Wilson's interval of one standard error reaches
    towards the farther of them, never 0.
    """
    if not math.isfinite(estimate.value) or estimate.documents < 2:
        return None
    factor = estimate.documents / (estimate.documents - 1)
    error = math.sqrt(factor * float(np.sum(estimate.influence**2)))
    if error > SAME * max(1.0, abs(estimate.value)):
        return error
    if estimate.limits is None or not math.isfinite(sum(estimate.limits)):
        return None
    return max(abs(end - estimate.value) for end in estimate.limits) / (estimate.documents + 1)


def _where_all_agree(estimate: Estimate, level: float) -> Interval:
    """The interval of a mean that is the same in all of n documents.

    No document of n differs, so by Wilson's interval at most a share u = z^2 / (n + z^2) of all documents does. These
    may lie anywhere within the limits, which bounds the mean. At a limit this is Wilson's interval for n of n.
    """
    if estimate.limits is None or not math.isfinite(sum(estimate.limits)):
        return Interval(estimate.value, None, None, method="constant")
    squared = float(ndtri(0.5 + level / 2)) ** 2
    share = squared / (estimate.documents + squared)
    low, high = (estimate.value + share * (end - estimate.value) for end in estimate.limits)
    return Interval(estimate.value, low, high, method="wilson")


def _at_least_students(estimate: Estimate, drawn: Interval, level: float) -> Interval:
    """An interval from draws, widened to Student's within the limits; of a ratio that is made on its logarithm."""
    error = standard_error(estimate)
    if error is None or (estimate.is_ratio and estimate.value <= 0):
        return drawn
    width = float(stdtrit(estimate.documents - 1, 0.5 + level / 2)) * error
    if estimate.is_ratio:
        factor = math.exp(min(width / estimate.value, MOST_LOG_WIDTH))
        low, high = estimate.value / factor, estimate.value * factor
    else:
        least, most = estimate.limits or (-math.inf, math.inf)
        low, high = max(least, estimate.value - width), min(most, estimate.value + width)
    return Interval(
        estimate.value,
        None if drawn.low is None else min(drawn.low, low),
        None if drawn.high is None else max(drawn.high, high),
        method="student",
    )


def _bca_shares(estimate: Estimate, draws: Float[np.ndarray, " resamples"], level: float) -> tuple[float, float]:
    """The two quantiles of the draws at which the BCa interval ends."""
    documents = estimate.documents
    below = np.mean(draws < estimate.value) + 0.5 * np.mean(draws == estimate.value)
    bias = float(ndtri(np.clip(below, 0.5 / len(draws), 1 - 0.5 / len(draws))))
    spread = np.sum(estimate.influence**2) ** 1.5
    acceleration = float(np.sum(estimate.influence**3) / (6 * spread)) if spread > 0 else 0.0
    width = math.sqrt(documents / (documents - 1)) * float(stdtrit(documents - 1, 0.5 + level / 2))
    low, high = (_bca_share(bias, acceleration, bias + side * width) for side in (-1, 1))
    return low, high


def _bca_share(bias: float, acceleration: float, score: float) -> float:
    """Efron's corrected quantile; past the pole of the correction it is the end of the draws."""
    scale = 1 - acceleration * score
    return float(ndtr(bias + score / scale)) if scale > 0 else float(score > 0)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
