"""Curves of accuracy against message tokens, and how far one lies above another at equal tokens."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from eval.analysis.significance import BOOTSTRAP, Bootstrap, Estimate, difference, interval, ratio_of_sums
from eval.record import StagedRecord, cluster

GRID = 201
"""Lengths, evenly spaced, over which curves are averaged."""

Curve = Sequence[Sequence[StagedRecord]]
"""The records of each point; between two points the curve is a straight line."""


def lead(curve: Curve, other: Curve, bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, Any] | None:
    """The mean height of one curve over another where both are: the area between them by the width of that range.

    Where one is a single point, that is the difference at its length. Points lie at the mean length of their messages,
    which is taken as known: the interval is that of the accuracies, by paired bootstrap over documents.

    Args:
        curve: its points, at least one, of the same questions as the other's.
        other: the curve that is subtracted.
        bootstrap: how documents are resampled.

    Returns:
        ``accuracy`` as value, low and high, a difference of shares; ``from_tokens`` and ``to_tokens``, the range. None
        where no length is on both curves, or a point of one has no accuracy.
    """
    positions = [np.array([np.mean([r["message_tokens"] for r in point]) for point in one]) for one in (curve, other)]
    low, high = max(one.min() for one in positions), min(one.max() for one in positions)
    scored = all(any(r["accuracy"] is not None for r in point) for one in (curve, other) for point in one)
    if low > high or not scored:
        return None
    documents = {key: row for row, key in enumerate(sorted({cluster(r) for point in curve for r in point}))}
    counts = bootstrap.counts(len(documents))
    heights = []
    for points, tokens in zip((curve, other), positions, strict=True):
        estimates = [_accuracy(point, documents, counts) for point in points]
        heights.append(_mean(estimates, weights(tokens, float(low), float(high))))
    figure = interval(difference(after=heights[0], before=heights[1])).as_dict()
    return {"accuracy": figure, "from_tokens": float(low), "to_tokens": float(high)}


def weights(tokens: Float[np.ndarray, " points"], low: float, high: float) -> Float[np.ndarray, " points"]:
    """What each point of a curve adds to its mean over the lengths from ``low`` to ``high``; they sum to 1.

    Args:
        tokens: lengths of the points in any order; of points of one length the first counts.
        low: at least the smallest length.
        high: at most the largest length.
    """
    places, first = np.unique(tokens, return_index=True)
    grid = np.linspace(low, high, GRID) if high > low else np.array([low])
    found = np.zeros(len(tokens))
    for place, index in enumerate(first):
        found[index] = np.interp(grid, places, np.eye(len(places))[place]).mean()
    return found


def _accuracy(
    records: Sequence[StagedRecord], documents: Mapping[Any, int], counts: Float[np.ndarray, "resamples documents"]
) -> Estimate:
    sums = np.zeros((2, len(documents)))
    for record in records:
        if record["accuracy"] is not None:
            sums[:, documents[cluster(record)]] += record["accuracy"], 1.0
    return ratio_of_sums(sums[0], sums[1], counts)


def _mean(estimates: Sequence[Estimate], shares: Float[np.ndarray, " points"]) -> Estimate:
    """The weighted mean; a point of weight 0 plays no part."""
    used = [(share, estimate) for share, estimate in zip(shares.tolist(), estimates, strict=True) if share > 0]
    return Estimate(
        sum(share * estimate.value for share, estimate in used),
        np.sum([share * estimate.draws for share, estimate in used], axis=0),
        np.sum([share * estimate.influence for share, estimate in used], axis=0),
        min(estimate.documents for _, estimate in used),
    )
