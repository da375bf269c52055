"""Pairs of members of a sweep compared on the same documents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eval.analysis.significance import Bootstrap, Estimate, Interval, difference, interval, quotient
from eval.record import SweepRecord
from eval.sweep.measures import MEASURES, Member, Resamples, _tasks, estimate, members

Key = Callable[[SweepRecord], tuple[Any, ...]]


@dataclass(frozen=True)
class Pair:
    """The smallest and the largest of some models on one side of the grid.

    Attributes:
        axis: ``compressor`` or ``predictor``.
        small: fewest parameters.
        large: most parameters.
    """

    axis: str
    small: Member
    large: Member

    @property
    def doublings(self) -> float:
        """How often the parameters double from one to the other."""
        assert self.small.parameters and self.large.parameters
        return math.log2(self.large.parameters / self.small.parameters)

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``sweep.json``."""
        return {
            "axis": self.axis,
            "small": self.small.name,
            "large": self.large.name,
            "families": [self.small.family, self.large.family],
            "setting": self.small.setting,
            "parameters_ratio": 2**self.doublings,
        }


@dataclass(frozen=True)
class Contrast:
    """The larger model of a pair against the smaller, on the same questions.

    Attributes:
        pair: the two.
        held: the model on the other side; None takes all of them together.
        task: None takes all.
        pairs: answers of each; those that lack a score are left out of its figure.
        documents: they rest on.
        figures: ``accuracy_difference`` as a share, the other ratios large / small; but message tokens small / large,
            so that above 1 the larger model writes less.
    """

    pair: Pair
    held: str | None
    task: str | None
    pairs: int
    documents: int
    figures: dict[str, Interval] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``sweep.json``."""
        shape = {"held": self.held, "task": self.task, "pairs": self.pairs, "documents": self.documents}
        return self.pair.as_dict() | shape | {name: found.as_dict() for name, found in self.figures.items()}


def pairs_of(records: Sequence[SweepRecord], axis: str) -> list[Pair]:
    """Smallest and largest by setting: of all models first, then of each family with two sizes, each pair once."""
    found: dict[tuple[str, str], Pair] = {}
    everyone = members(records, axis)
    for setting in dict.fromkeys(one.setting for one in everyone):
        own = [one for one in everyone if one.setting == setting and one.parameters]
        groups = [own, *([one for one in own if one.family == name] for name in dict.fromkeys(m.family for m in own))]
        for group in groups:
            ordered = sorted(group, key=lambda one: one.parameters or 0)
            if ordered and ordered[0].parameters != ordered[-1].parameters:
                found.setdefault((ordered[0].name, ordered[-1].name), Pair(axis, ordered[0], ordered[-1]))
    return list(found.values())


def contrasts(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[Contrast]:
    """Every pair with each model of the other side and with all of them, over all tasks and by task."""
    return [
        contrast(records, pair, held, task, bootstrap)
        for axis, other in (("compressor", "predictor"), ("predictor", "compressor"))
        for pair in pairs_of(records, axis)
        for held in (None, *(one.name for one in members(records, other)))
        for task in _tasks(records)
    ]


def contrast(
    records: Sequence[SweepRecord], pair: Pair, held: str | None, task: str | None, bootstrap: Bootstrap
) -> Contrast:
    """The larger model of a pair against the smaller; see `Contrast`."""
    other = "predictor" if pair.axis == "compressor" else "compressor"
    chosen = [r for r in records if held in (None, r[other]) and task in (None, r["task"])]
    small, large = ([r for r in chosen if r[pair.axis] == one.name] for one in (pair.small, pair.large))
    if not small or not large:
        return Contrast(pair, held, task, 0, 0)
    frame = Resamples.of([*small, *large], bootstrap)

    def sides(measure: str) -> tuple[Estimate, Estimate]:
        both = paired(small, large, measure, lambda r: (r["id"], r["seed"], r[other]))
        below, above = (estimate(side, measure, frame) for side in both)
        return below, above

    below, above = sides("accuracy")
    found = {"accuracy_difference": difference(after=above, before=below), "accuracy_ratio": quotient(above, below)}
    below, above = sides("perplexity")
    found["perplexity_ratio"] = quotient(above, below)
    if pair.axis == "compressor":
        below, above = sides("message_tokens")
        found["message_tokens_ratio"] = quotient(below, above)
        for measure in ("bits_per_token", "second_bits_per_token", "generation_flops", "prefill_flops"):
            below, above = sides(measure)
            found[f"{measure}_ratio"] = quotient(above, below)
    intervals = {name: interval(one) for name, one in found.items()}
    return Contrast(pair, held, task, min(len(small), len(large)), len(frame.rows), intervals)


def paired(
    small: Sequence[SweepRecord], large: Sequence[SweepRecord], measure: str, key: Key
) -> tuple[list[SweepRecord], list[SweepRecord]]:
    """The records of both sides that have the measure on both, in one order."""
    scored = [{key(r): r for r in side if None not in MEASURES[measure](r)} for side in (small, large)]
    both = [one for one in scored[0] if one in scored[1]]
    return [scored[0][one] for one in both], [scored[1][one] for one in both]


@dataclass(frozen=True)
class Comparison:
    """What a larger compressor brings against what a larger predictor brings, in accuracy.

    Attributes:
        compressors: the pair on that side.
        predictors: the pair on the other.
        difference: the compressor's gain less the predictor's, as a share.
        per_doubling: the same, each gain divided by the doublings of parameters it took.
    """

    compressors: Pair
    predictors: Pair
    difference: Interval
    per_doubling: Interval

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``sweep.json``."""
        return {
            "compressors": self.compressors.as_dict(),
            "predictors": self.predictors.as_dict(),
            "difference": self.difference.as_dict(),
            "per_doubling": self.per_doubling.as_dict(),
        }


def compare_all(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[Comparison]:
    """Smallest to largest on each side, by setting of the compressors; the other side is averaged over."""
    widest = {pair.small.setting: pair for pair in reversed(pairs_of(records, "compressor"))}
    predictors = pairs_of(records, "predictor")[:1]
    return [compare(records, one, other, bootstrap) for one in widest.values() for other in predictors]


def compare(records: Sequence[SweepRecord], compressors: Pair, predictors: Pair, bootstrap: Bootstrap) -> Comparison:
    """Two gains on the same questions; only compressors of the pair's own setting count."""
    own = [r for r in records if r["setting"] == compressors.small.setting]
    frame = Resamples.of(own, bootstrap)

    def gain(pair: Pair, other: str) -> Estimate:
        small, large = ([r for r in own if r[pair.axis] == one.name] for one in (pair.small, pair.large))
        both = paired(small, large, "accuracy", lambda r: (r["id"], r["seed"], r[other]))
        below, above = (estimate(side, "accuracy", frame) for side in both)
        return difference(after=above, before=below)

    one, other = gain(compressors, "predictor"), gain(predictors, "compressor")
    by_doubling = difference(scaled(one, 1 / compressors.doublings), scaled(other, 1 / predictors.doublings))
    return Comparison(compressors, predictors, interval(difference(one, other)), interval(by_doubling))


def scaled(one: Estimate, factor: float) -> Estimate:
    """An estimate in another unit."""
    return replace(one, value=factor * one.value, draws=factor * one.draws, influence=factor * one.influence)
