"""Pairs of members of a sweep compared on the same documents."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from scipy.special import ndtri

from eval.analysis.significance import (
    Bootstrap,
    Estimate,
    Interval,
    difference,
    interval,
    quotient,
    standard_error,
)
from eval.record import SweepRecord
from eval.sweep.measures import MEASURES, Member, Resamples, _tasks, estimate, members

ERRORS_TO_DETECT = float(ndtri(0.975) + ndtri(0.8))
"""Standard errors that a true difference has to come to, so that four 95% intervals in five leave none out."""

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
        detectable: the least difference in accuracy, a share, that such a comparison would have shown; None where its
            standard error is unknown.
    """

    pair: Pair
    held: str | None
    task: str | None
    pairs: int
    documents: int
    figures: dict[str, Interval] = field(default_factory=dict)
    detectable: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``sweep.json``."""
        shape = {"held": self.held, "task": self.task, "pairs": self.pairs, "documents": self.documents}
        figures = {name: figure.as_dict() for name, figure in self.figures.items()}
        return self.pair.as_dict() | shape | figures | {"accuracy_detectable": self.detectable}


def pairs_of(records: Sequence[SweepRecord], axis: str) -> list[Pair]:
    """Smallest and largest by setting: of all models first, then of each family with two sizes, each pair once."""
    pairs: dict[tuple[str, str], Pair] = {}
    everyone = members(records, axis)
    for setting in dict.fromkeys(member.setting for member in everyone):
        sized = [member for member in everyone if member.setting == setting and member.parameters]
        groups = [
            sized,
            *([member for member in sized if member.family == name] for name in dict.fromkeys(m.family for m in sized)),
        ]
        for group in groups:
            ordered = sorted(group, key=lambda member: member.parameters or 0)
            if ordered and ordered[0].parameters != ordered[-1].parameters:
                pairs.setdefault((ordered[0].name, ordered[-1].name), Pair(axis, ordered[0], ordered[-1]))
    return list(pairs.values())


def contrasts(records: Sequence[SweepRecord], bootstrap: Bootstrap) -> list[Contrast]:
    """Every pair with each model of the other side and with all of them, over all tasks and by task."""
    return [
        contrast(records, pair, held, task, bootstrap)
        for axis, other_axis in (("compressor", "predictor"), ("predictor", "compressor"))
        for pair in pairs_of(records, axis)
        for held in (None, *(member.name for member in members(records, other_axis)))
        for task in _tasks(records)
    ]


def contrast(
    records: Sequence[SweepRecord], pair: Pair, held: str | None, task: str | None, bootstrap: Bootstrap
) -> Contrast:
    """The larger model of a pair against the smaller; see `Contrast`."""
    other_axis = "predictor" if pair.axis == "compressor" else "compressor"
    chosen = [r for r in records if held in (None, r[other_axis]) and task in (None, r["task"])]
    small, large = ([r for r in chosen if r[pair.axis] == member.name] for member in (pair.small, pair.large))
    if not small or not large:
        return Contrast(pair, held, task, 0, 0)
    frame = Resamples.of([*small, *large], bootstrap)

    def sides(measure: str) -> tuple[Estimate, Estimate]:
        both = paired(small, large, measure, lambda r: (r["id"], r["seed"], r[other_axis]))
        below, above = (estimate(side, measure, frame) for side in both)
        return below, above

    below, above = sides("accuracy")
    estimates = {"accuracy_difference": difference(after=above, before=below), "accuracy_ratio": quotient(above, below)}
    below, above = sides("perplexity")
    estimates["perplexity_ratio"] = quotient(above, below)
    if pair.axis == "compressor":
        below, above = sides("message_tokens")
        estimates["message_tokens_ratio"] = quotient(below, above)
        for measure in ("bits_per_token", "second_bits_per_token", "generation_flops", "prefill_flops"):
            below, above = sides(measure)
            estimates[f"{measure}_ratio"] = quotient(above, below)
    intervals = {name: interval(member) for name, member in estimates.items()}
    error = standard_error(estimates["accuracy_difference"])
    detectable = None if error is None else ERRORS_TO_DETECT * error
    return Contrast(pair, held, task, min(len(small), len(large)), len(frame.rows), intervals, detectable)


def is_model(name: str, called: str) -> bool:
    """Whether what records call a compressor or predictor is this model, however many sentences it is asked for."""
    return name == called or (name.startswith(f"{called}, ") and name.endswith(" sentences"))


def without_model(records: Sequence[SweepRecord], name: str) -> list[SweepRecord]:
    """The records in which a model is on neither side."""
    return [r for r in records if not is_model(r["compressor"], name) and not is_model(r["predictor"], name)]


def control_contrasts(records: Sequence[SweepRecord], name: str, bootstrap: Bootstrap) -> list[Contrast]:
    """The largest model of each side against one that is known to be worse, over all tasks and the other side's models.

    Args:
        records: of the sweep.
        name: of the worse one, which need not be on both sides. Of several numbers of sentences, the first it was
            asked for counts.
        bootstrap: how documents are resampled.
    """
    found = []
    for axis, other_axis in (("compressor", "predictor"), ("predictor", "compressor")):
        chosen = [r for r in records if not is_model(r[other_axis], name)]
        everyone = members(chosen, axis)
        small = next((member for member in everyone if is_model(member.name, name)), None)
        if small is not None:
            alike = [member for member in everyone if member.setting == small.setting]
            large = max(alike, key=lambda member: member.parameters or 0)
            found.append(contrast(chosen, Pair(axis, small, large), None, None, bootstrap))
    return found


def paired(
    small: Sequence[SweepRecord], large: Sequence[SweepRecord], measure: str, key: Key
) -> tuple[list[SweepRecord], list[SweepRecord]]:
    """The records of both sides that have the measure on both, in one order."""
    scored = [{key(r): r for r in side if None not in MEASURES[measure](r)} for side in (small, large)]
    both = [key for key in scored[0] if key in scored[1]]
    return [scored[0][key] for key in both], [scored[1][key] for key in both]


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
    return [
        compare(records, widest_pair, predictor_pair, bootstrap)
        for widest_pair in widest.values()
        for predictor_pair in predictors
    ]


def compare(records: Sequence[SweepRecord], compressors: Pair, predictors: Pair, bootstrap: Bootstrap) -> Comparison:
    """Two gains on the same questions; only compressors of the pair's own setting count."""
    shown = [r for r in records if r["setting"] == compressors.small.setting]
    frame = Resamples.of(shown, bootstrap)

    def gain(pair: Pair, predictor_gain: str) -> Estimate:
        small, large = (
            [r for r in shown if r[pair.axis] == compressor_gain.name] for compressor_gain in (pair.small, pair.large)
        )
        both = paired(small, large, "accuracy", lambda r: (r["id"], r["seed"], r[predictor_gain]))
        below, above = (estimate(side, "accuracy", frame) for side in both)
        return difference(after=above, before=below)

    compressor_gain, predictor_gain = gain(compressors, "predictor"), gain(predictors, "compressor")
    by_doubling = difference(
        scaled(compressor_gain, 1 / compressors.doublings), scaled(predictor_gain, 1 / predictors.doublings)
    )
    return Comparison(
        compressors, predictors, interval(difference(compressor_gain, predictor_gain)), interval(by_doubling)
    )


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate in another unit; the factor is positive."""
    return replace(
        estimate,
        value=factor * estimate.value,
        draws=factor * estimate.draws,
        influence=factor * estimate.influence,
        limits=estimate.limits and (factor * estimate.limits[0], factor * estimate.limits[1]),
    )
