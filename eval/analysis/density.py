"""The figures of an evaluation: what the messages carry, what they cost, and what changed between two stages.

Bits per token is the study's rate R: a ratio of sums, so long messages weigh more. Every figure is over all questions
pooled, with a 95% interval by bootstrap over documents.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from eval.analysis.significance import (
    AT_LEAST_NOTHING,
    BOOTSTRAP,
    SHARE,
    Bootstrap,
    Estimate,
    Limits,
    clipped,
    difference,
    exponential,
    interval,
    quotient,
    ratio_of_sums,
)
from eval.record import BaseRecord, Cluster, StagedRecord, cluster

STAGES = ("before", "after")

Figure = dict[str, Any]
Counts = Float[np.ndarray, "resamples documents"]


def _mean_of(field: str, scale: float = 1.0) -> Callable[[BaseRecord], tuple[float | None, float | None]]:
    return lambda record: (_scaled(record.get(field), scale), 1.0)


def _ratio_of(
    numerator: str, denominator: str, scale: float = 1.0
) -> Callable[[BaseRecord], tuple[float | None, float | None]]:
    return lambda record: (_scaled(record[numerator], scale), _scaled(record[denominator], 1.0))


def _scaled(value: float | bool | None, scale: float) -> float | None:
    """A score in its reporting unit; a score that is not finite has failed and is missing."""
    return None if value is None or not math.isfinite(value) else value * scale


# Numerator and denominator of each figure, per record; a None in either leaves the record out of both.
TERMS = {
    "accuracy": _mean_of("accuracy"),
    "message_tokens": _mean_of("message_tokens"),
    "information_bits": _mean_of("information_nats", 1 / math.log(2)),
    "information_ceiling_bits": _mean_of("information_ceiling_nats", 1 / math.log(2)),
    "information_upper_bits": _mean_of("information_upper_nats", 1 / math.log(2)),
    "second_information_bits": _mean_of("second_information_nats", 1 / math.log(2)),
    "task_information_bits": _mean_of("task_information_nats", 1 / math.log(2)),
    "bits_per_token": _ratio_of("information_nats", "message_tokens", 1 / math.log(2)),
    "perplexity": _ratio_of("answer_nll_nats", "answer_tokens"),
    "saturated_share": _mean_of("saturated"),
}

LIMITS: dict[str, Limits] = {"accuracy": SHARE, "saturated_share": SHARE, "message_tokens": AT_LEAST_NOTHING}
"""The figures whose values lie between known ends."""

# Information passed cannot be negative, its estimate can: the reported mean stops at 0, the samples do not. Task
# information stays as it is: below 0 the message misleads the predictor, which a reader must see.
FINISH: dict[str, Callable[[Estimate], Estimate]] = {
    "information_bits": clipped,
    "information_upper_bits": clipped,
    "second_information_bits": clipped,
    "bits_per_token": clipped,
    "perplexity": exponential,
}


def summarise(records: Sequence[StagedRecord], bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, Any]:
    """The results of an evaluation, overall, by task and as changes.

    Args:
        records: one per question and stage, as in ``samples.jsonl``; scores in nats, None where missing.
        bootstrap: how documents are resampled.

    Returns:
        ``overall`` and ``tasks``: per stage each figure in TERMS as value, low and high (bits, tokens, shares), with
        ``n`` records, ``documents``, and ``missing``: records without some score that others of their stage have.
        ``kinds``: the same by kind of question, for every task that has several. ``change``: accuracy after - before,
        the ratios of accuracy, information and bits per token (after / before), that of message tokens (before / after)
        and the difference of information (after - before, bits), over the questions scored at both stages. A figure
        nobody measured is None.

    Raises:
        ValueError: an unknown stage, or two records of one question at one stage.
    """
    _check(records)
    measured = {stage: _measured([r for r in records if r["stage"] == stage]) for stage in STAGES}

    def stages_of(chosen: Sequence[StagedRecord]) -> dict[str, Any]:
        counts = bootstrap.counts(len(_documents(chosen)))
        return {stage: _figures(chosen, stage, counts, measured[stage]) for stage in STAGES}

    tasks = _split(records, "task")
    kinds = {task: _split(own, "kind") for task, own in tasks.items()}
    return {
        "overall": stages_of(records),
        "tasks": {task: stages_of(own) for task, own in tasks.items()},
        "kinds": {
            task: {kind: stages_of(own) for kind, own in found.items()}
            for task, found in kinds.items()
            if len(found) > 1
        },
        "change": _change(records, bootstrap),
    }


def summarise_one(records: Sequence[StagedRecord], bootstrap: Bootstrap = BOOTSTRAP) -> dict[str, Any]:
    """The figures of one set of messages, whatever its stage: each in TERMS, with ``n``, ``documents``, ``missing``.

    Raises:
        ValueError: there are no records.
    """
    if not records:
        raise ValueError("no records to summarise: the evaluation scored nothing")
    counts = bootstrap.counts(len(_documents(records)))
    return _figures(records, records[0]["stage"], counts, _measured(records))


def _split(records: Sequence[StagedRecord], field: str) -> dict[str, list[StagedRecord]]:
    """The records by the value of a field, in its order."""
    groups: dict[str, list[StagedRecord]] = {value: [] for value in sorted({record[field] for record in records})}
    for record in records:
        groups[record[field]].append(record)
    return groups


def _check(records: Sequence[StagedRecord]) -> None:
    if not records:
        raise ValueError("no records to summarise: the evaluation scored nothing")
    seen: set[tuple[str, str]] = set()
    for record in records:
        key = (record["id"], record["stage"])
        if record["stage"] not in STAGES:
            raise ValueError(f"record {record['id']!r} has stage {record['stage']!r}, expected one of {STAGES}")
        if key in seen:
            raise ValueError(f"record {record['id']!r} occurs twice at stage {record['stage']!r}")
        seen.add(key)


def _documents(records: Iterable[StagedRecord]) -> list[Cluster]:
    return sorted({cluster(record) for record in records})


def _is_scored(record: StagedRecord, figure: str) -> bool:
    return None not in TERMS[figure](record)


def _measured(records: Sequence[StagedRecord]) -> list[str]:
    """The figures at least one record has: a backend without log-probs measures fewer, and none of those fail."""
    return [figure for figure in TERMS if any(_is_scored(record, figure) for record in records)]


def _figures(records: Sequence[StagedRecord], stage: str, counts: Counts, measured: Sequence[str]) -> dict[str, Any]:
    chosen = [record for record in records if record["stage"] == stage]
    documents = _documents(records)
    figures: dict[str, Any] = {}
    for figure in TERMS:
        estimate = _estimate(chosen, figure, documents, counts)
        figures[figure] = interval(FINISH.get(figure, _unchanged)(estimate)).as_dict()
    missing = sum(not all(_is_scored(record, figure) for figure in measured) for record in chosen)
    return figures | {"n": len(chosen), "missing": missing, "documents": len(_documents(chosen))}


def _unchanged(estimate: Estimate) -> Estimate:
    return estimate


def _estimate(records: Sequence[StagedRecord], figure: str, documents: Sequence[Cluster], counts: Counts) -> Estimate:
    """Ratio of the figure's sums over the records that have it."""
    row = {document: index for index, document in enumerate(documents)}
    sums = np.zeros((2, len(documents)))
    for record in records:
        numerator, denominator = TERMS[figure](record)
        if numerator is not None and denominator is not None:
            sums[:, row[cluster(record)]] += numerator, denominator
    return ratio_of_sums(sums[0], sums[1], counts, LIMITS.get(figure))


def _change(records: Sequence[StagedRecord], bootstrap: Bootstrap) -> dict[str, Figure]:
    """The changes, each over the questions both stages scored, so that a lost score cannot look like one."""
    documents = _documents(records)
    counts = bootstrap.counts(len(documents))

    def sides(figure: str) -> tuple[Estimate, Estimate]:
        before, after = _pairs(records, figure)
        return _estimate(before, figure, documents, counts), _estimate(after, figure, documents, counts)

    accuracy, tokens, density = sides("accuracy"), sides("message_tokens"), sides("bits_per_token")
    information = sides("information_bits")
    return {
        "accuracy": interval(difference(after=accuracy[1], before=accuracy[0])).as_dict(),
        "accuracy_ratio": interval(quotient(accuracy[1], accuracy[0])).as_dict(),
        "message_tokens_ratio": interval(quotient(tokens[0], tokens[1])).as_dict(),
        "information_bits": interval(difference(after=information[1], before=information[0])).as_dict(),
        "information_ratio": interval(quotient(information[1], information[0])).as_dict(),
        "bits_per_token_ratio": interval(quotient(density[1], density[0])).as_dict(),
    }


def _pairs(records: Sequence[StagedRecord], figure: str) -> tuple[list[StagedRecord], list[StagedRecord]]:
    scored = {stage: {} for stage in STAGES}
    for record in records:
        if _is_scored(record, figure):
            scored[record["stage"]][record["id"]] = record
    both = [id_ for id_ in scored["before"] if id_ in scored["after"]]
    return [scored["before"][id_] for id_ in both], [scored["after"][id_] for id_ in both]
