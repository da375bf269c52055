"""What a sweep reports of a set of records: each measure with its interval."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from eval.analysis.density import FINISH, LIMITS, TERMS
from eval.analysis.significance import SHARE, Bootstrap, Estimate, clipped, interval, ratio_of_sums
from eval.record import SweepRecord, cluster

Terms = tuple[float | None, float | None]


def _mean(name: str, scale: float = 1.0) -> Callable[[SweepRecord], Terms]:
    return lambda record: (_scaled(record.get(name), scale), 1.0)


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None or not math.isfinite(value) else value * scale


def _distortion(record: SweepRecord) -> Terms:
    accuracy = _scaled(record["accuracy"], 1.0)
    return None if accuracy is None else 1 - accuracy, 1.0


def _second_density(record: SweepRecord) -> Terms:
    return _scaled(record.get("second_information_nats"), 1 / math.log(2)), float(record["message_tokens"])


BY_MESSAGE: dict[str, Callable[[SweepRecord], Terms]] = {
    "message_tokens": TERMS["message_tokens"],
    "information_bits": TERMS["information_bits"],
    "information_upper_bits": TERMS["information_upper_bits"],
    "information_ceiling_bits": TERMS["information_ceiling_bits"],
    "second_information_bits": _mean("second_information_nats", 1 / math.log(2)),
    "bits_per_token": TERMS["bits_per_token"],
    "second_bits_per_token": _second_density,
    "saturated_share": TERMS["saturated_share"],
    "prefill_flops": _mean("prefill_flops"),
    "generation_flops": _mean("generation_flops"),
}
"""What depends on the message alone; numerator and denominator of each record."""


BY_ANSWER: dict[str, Callable[[SweepRecord], Terms]] = {
    "accuracy": TERMS["accuracy"],
    "distortion": _distortion,
    "perplexity": TERMS["perplexity"],
    "task_information_bits": TERMS["task_information_bits"],
}
"""What depends on the predictor as well."""


MEASURES = BY_MESSAGE | BY_ANSWER


_LIMITS = LIMITS | {"distortion": SHARE}

_FINISH = FINISH | {"second_information_bits": clipped, "second_bits_per_token": clipped}


@dataclass(frozen=True)
class Member:
    """A compressor or predictor of the grid.

    Attributes:
        name: in every record.
        family: as the config says.
        parameters: None where nobody says.
        setting: how a compressor is asked, where that varies over the grid; empty otherwise.
    """

    name: str
    family: str
    parameters: int | None
    setting: str = ""


@dataclass(frozen=True)
class Resamples:
    """The documents of a comparison, and how often each resample draws them; sharing one pairs estimates."""

    rows: dict[tuple[str, str], int]
    counts: Float[np.ndarray, "resamples documents"]

    @classmethod
    def of(cls, records: Iterable[SweepRecord], bootstrap: Bootstrap) -> "Resamples":
        """The resamples of all documents of the records."""
        documents = sorted({cluster(record) for record in records})
        rows = {document_key: row for row, document_key in enumerate(documents)}
        return cls(rows, bootstrap.counts(len(documents)))


def members(records: Sequence[SweepRecord], axis: str) -> list[Member]:
    """The models of one side, in the order of the records."""
    by_name = {
        record[axis]: Member(
            record[axis],
            record[f"{axis}_family"],
            record[f"{axis}_parameters"],
            record["setting"] if axis == "compressor" else "",
        )
        for record in records
    }
    return list(by_name.values())


def messages_of(records: Iterable[SweepRecord]) -> list[SweepRecord]:
    """One record for every message, of the first predictor that answered from it."""
    return list({(r["compressor"], r["seed"], r["id"]): r for r in reversed(list(records))}.values())[::-1]


def estimate(records: Iterable[SweepRecord], measure: str, frame: Resamples) -> Estimate:
    """A measure over the records that have it, as a ratio of sums over documents."""
    sums = np.zeros((2, len(frame.rows)))
    for record in records:
        numerator, denominator = MEASURES[measure](record)
        if numerator is not None and denominator is not None:
            sums[:, frame.rows[cluster(record)]] += numerator, denominator
    found = ratio_of_sums(sums[0], sums[1], frame.counts, _LIMITS.get(measure))
    return _FINISH[measure](found) if measure in _FINISH else found


def figures(records: Sequence[SweepRecord], measures: Iterable[str], bootstrap: Bootstrap) -> dict[str, Any]:
    """Each measure with its interval, and how many records and documents they rest on."""
    frame = Resamples.of(records, bootstrap)
    by_measure = {measure: interval(estimate(records, measure, frame)).as_dict() for measure in measures}
    return by_measure | {"n": len(records), "documents": len(frame.rows)}


def _tasks(records: Sequence[SweepRecord]) -> list[str | None]:
    return [None, *dict.fromkeys(record["task"] for record in records)]
