"""Whether information goes with what it is for: its correlation with perplexity and accuracy.

Over samples, or over cells, such as (compressor, task), of which each is one point. Intervals are by bootstrap over
documents (see `eval.significance`): over cells they say how far other documents would move the points, not what other
compressors would add.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from eval.analysis.significance import BOOTSTRAP, Bootstrap, Estimate, Interval, interval
from eval.record import BaseRecord, Cluster, cluster

Method = Literal["pearson", "spearman"]
Vector = Float[np.ndarray, " points"]
Statistic = Callable[[Float[np.ndarray, " documents"]], float]

METHODS: tuple[Method, ...] = ("pearson", "spearman")
PAIRS = (("information_bits", "perplexity"), ("information_bits", "accuracy"))
"""What is correlated; the study (He et al., arXiv 2512.21720) finds r = -0.84 for the first on extractive questions."""

# Numerator and denominator of each measure, the field's name and its scale; perplexity is the exponential of its ratio.
_MEASURES: dict[str, tuple[str, float, str | None]] = {
    "information_bits": ("information_nats", 1 / math.log(2), None),
    "task_information_bits": ("task_information_nats", 1 / math.log(2), None),
    "bits_per_token": ("information_nats", 1 / math.log(2), "message_tokens"),
    "message_tokens": ("message_tokens", 1.0, None),
    "perplexity": ("answer_nll_nats", 1.0, "answer_tokens"),
    "accuracy": ("accuracy", 1.0, None),
}
MEASURES = tuple(_MEASURES)


@dataclass(frozen=True)
class Correlation:
    """The correlation of two measures.

    Attributes:
        x: a name in ``MEASURES``.
        y: another.
        method: the name of the coefficient.
        coefficient: with its 95% interval; None where a measure is constant, no ends where one document has both.
        over: what the points are: ``samples``, or the fields that make a cell.
        n: points.
        missing: records left out because they lack a score of either measure.
        documents: those that the points rest on.
    """

    x: str
    y: str
    method: Method
    coefficient: Interval
    over: str
    n: int
    missing: int
    documents: int

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``results.json``."""
        return {
            "x": self.x,
            "y": self.y,
            "method": self.method,
            "coefficient": self.coefficient.as_dict(),
            "over": self.over,
            "n": self.n,
            "missing": self.missing,
            "documents": self.documents,
        }


def correlations(
    records: Sequence[BaseRecord],
    by: Sequence[str] = (),
    pairs: Iterable[tuple[str, str]] = PAIRS,
    bootstrap: Bootstrap = BOOTSTRAP,
) -> list[Correlation]:
    """Pearson's and Spearman's correlation of each pair of measures.

    Args:
        records: as in ``samples.jsonl``, of one stage; scores in nats, None where missing.
        by: fields whose values make a cell, for example ``("compressor", "task")``; without any, each record is a
            point. A cell's measures are ratios of sums over its records, as `eval.density` has them.
        pairs: names in ``MEASURES``.
        bootstrap: how documents are resampled.

    Raises:
        ValueError: an unknown measure, or a record without a field of ``by``.
    """
    for name in by:
        if any(name not in record for record in records):
            raise ValueError(f"cells by {name!r} need that field in every record")
    return [correlation(records, x, y, method, by, bootstrap) for x, y in pairs for method in METHODS]


def correlation(
    records: Sequence[BaseRecord],
    x: str,
    y: str,
    method: Method,
    by: Sequence[str] = (),
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Correlation:
    """One correlation; see `correlations`."""
    scored = [record for record in records if None not in (*_terms(record, x), *_terms(record, y))]
    documents = sorted({cluster(record) for record in scored})
    over, missing = ", ".join(by) or "samples", len(records) - len(scored)
    if not scored:
        return Correlation(x, y, method, Interval(None, None, None), over, 0, missing, 0)
    statistic, points = (_over_cells if by else _over_samples)(scored, x, y, method, by, documents)
    found = interval(_estimate(statistic, len(documents), bootstrap))
    return Correlation(x, y, method, found, over, points, missing, len(documents))


def pearson(x: Vector, y: Vector, weights: Vector) -> float:
    """Pearson's correlation of weighted points; nan where a side does not vary."""
    total = weights.sum()
    if total <= 0:
        return math.nan
    dx, dy = x - weights @ x / total, y - weights @ y / total
    spread = math.sqrt((weights @ dx**2) * (weights @ dy**2))
    # What is left of a constant by rounding is no variation.
    floor = 1e-12 * total * max(1e-300, float(np.abs(x).max() * np.abs(y).max()))
    return float(np.clip(weights @ (dx * dy) / spread, -1.0, 1.0)) if spread > floor else math.nan


def spearman(x: Vector, y: Vector, weights: Vector) -> float:
    """Spearman's: Pearson's of the mid-ranks, a point of weight w ranked as w equal points."""
    return pearson(mid_ranks(x, weights), mid_ranks(y, weights), weights)


def mid_ranks(values: Vector, weights: Vector) -> Vector:
    """The weight below each value and half of the weight at it: its mean rank among weighted points, less one half."""
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, weights)
    return (np.cumsum(mass) - mass / 2)[place]


_COEFFICIENTS = {"pearson": pearson, "spearman": spearman}


def _estimate(statistic: Statistic, documents: int, bootstrap: Bootstrap) -> Estimate:
    """The statistic with what an interval needs; its influences by leaving each document out (the jackknife)."""
    everything = np.ones(documents)
    value = statistic(everything)
    draws = np.array([statistic(counts) for counts in bootstrap.counts(documents)])
    without = np.array([statistic(everything - unit) for unit in np.eye(documents)])
    return Estimate(value, draws, np.nan_to_num(value - without), documents)


def _over_samples(
    records: Sequence[BaseRecord], x: str, y: str, method: Method, by: Sequence[str], documents: Sequence[Cluster]
) -> tuple[Statistic, int]:
    """The coefficient over records as a function of the documents' weights, and the number of points."""
    row = {document: index for index, document in enumerate(documents)}
    rows = np.array([row[cluster(record)] for record in records], dtype=int)
    xs, ys = (_finished(name, *_columns(records, name)) for name in (x, y))
    return lambda weights: _COEFFICIENTS[method](xs, ys, weights[rows]), len(records)


def _over_cells(
    records: Sequence[BaseRecord], x: str, y: str, method: Method, by: Sequence[str], documents: Sequence[Cluster]
) -> tuple[Statistic, int]:
    """The same over cells; a resample that drew no document of a cell does without it."""
    keys = [tuple(record[name] for name in by) for record in records]
    cells = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    row = {document: index for index, document in enumerate(documents)}
    place = ([cells[key] for key in keys], [row[cluster(record)] for record in records])
    sums = {name: np.zeros((2, len(cells), len(documents))) for name in (x, y)}
    for name, sides in sums.items():
        for side, values in zip(sides, _columns(records, name), strict=True):
            np.add.at(side, place, values)

    def statistic(weights: Float[np.ndarray, " documents"]) -> float:
        points = np.array([_finished(name, *(sides @ weights)) for name, sides in sums.items()])
        xs, ys = points[:, np.isfinite(points).all(axis=0)]
        return _COEFFICIENTS[method](xs, ys, np.ones(len(xs)))

    return statistic, len(cells)


def _terms(record: BaseRecord, measure: str) -> tuple[float | None, float | None]:
    """Numerator and denominator of a record's measure; None where missing or not finite.

    Raises:
        ValueError: no such measure.
    """
    if measure not in _MEASURES:
        raise ValueError(f"no measure {measure!r}: there are {', '.join(MEASURES)}")
    numerator, scale, denominator = _MEASURES[measure]
    value, weight = record[numerator], 1.0 if denominator is None else record[denominator]
    if value is None or weight is None or not math.isfinite(value):
        return None, None
    return value * scale, float(weight)


def _columns(records: Sequence[BaseRecord], measure: str) -> tuple[Vector, Vector]:
    numerators, denominators = np.array([_terms(record, measure) for record in records], dtype=float).T
    return numerators, denominators


def _finished(measure: str, numerators: Vector, denominators: Vector) -> Vector:
    """The measure from its sums, nan where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = numerators / denominators
        return np.exp(ratio) if measure == "perplexity" else ratio
