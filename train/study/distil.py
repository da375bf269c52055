"""From the run folder of an evaluation to its file of figures."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace

from data.errors import DataError
from eval.config import WITHOUT_BUDGET, EvaluationConfig
from eval.messages.shape import holds_answer, is_answer
from eval.readers import READER_ANSWERS
from eval.record import BaselineRecord, Record, StagedRecord
from eval.record_file import BASELINE_RECORDS, read_records
from eval.stages import MEASURED, REFERENCE
from train.study.config import UNTRAINED
from train.study.figures import Figures, Messages, rounded
from train.study.members import Member


def distil(member: Member) -> Figures:
    """The figures of a finished evaluation.

    Raises:
        DataError: a file of its run folder is damaged, or baselines answered other questions.
        OSError: a file cannot be read.
    """
    folder, config = member.folder, member.config
    assert isinstance(config, EvaluationConfig)
    records = list(read_records(folder / "samples.jsonl", Record))
    measured = [record for record in records if record["stage"] == MEASURED]
    own = _messages(member.variant, None, measured, measured)
    messages = [replace(own, readers=_readers(config, measured))]
    if reference := [record for record in records if record["stage"] == REFERENCE]:
        messages.append(_messages(UNTRAINED, None, reference, measured))
    if config.baselines:
        messages += _baselines(list(read_records(folder / BASELINE_RECORDS, BaselineRecord)), measured)
    meta = json.loads((folder / "results.json").read_text(encoding="utf-8"))["meta"]
    made = {name: meta[name] for name in ("date", "commit", "modified")}
    made |= {"seconds": round(sum(meta["seconds"].values())), "compressor": measured[0].get("compressor")}
    return Figures(
        depends=member.depends.keys,
        made=made,
        questions=[record["id"] for record in measured],
        tasks=[record["task"] for record in measured],
        kinds=[record["kind"] for record in measured],
        metrics=[record["metric"] for record in measured],
        documents=[record["document_id"] for record in measured],
        messages=messages,
    )


def _readers(config: EvaluationConfig, measured: Sequence[Record]) -> dict[str, list[float | None]]:
    """What other readers' answers scored, in the order of the records."""
    if not config.readers:
        return {}
    lines = (config.folder / READER_ANSWERS).read_text(encoding="utf-8").splitlines()
    scores = {
        (answer["reader"], answer["id"]): answer["accuracy"]
        for answer in map(json.loads, lines)
        if answer["stage"] == MEASURED
    }
    return {
        reader.name: rounded([scores[reader.name, record["id"]] for record in measured]) for reader in config.readers
    }


def _baselines(records: Sequence[BaselineRecord], measured: Sequence[Record]) -> list[Messages]:
    """Every point of every baseline, in the order they were measured."""
    points: dict[tuple[str, str], list[BaselineRecord]] = {}
    for record in records:
        title = record["baseline"]
        name = title if title in WITHOUT_BUDGET else f"{title} {record['budget_tokens']}"
        points.setdefault((name, title), []).append(record)
    return [_messages(name, title, point, measured) for (name, title), point in points.items()]


def _messages(name: str, baseline: str | None, records: Sequence[StagedRecord], measured: Sequence[Record]) -> Messages:
    if [record["id"] for record in records] != [record["id"] for record in measured]:
        raise DataError(f"{name}: has other questions than the compressor that it stands beside")
    return Messages(
        name=name,
        baseline=baseline,
        accuracy=rounded([record["accuracy"] for record in records]),
        tokens=[record["message_tokens"] for record in records],
        bits=rounded([record["information_nats"] for record in records], 1 / math.log(2)),
        is_answer=[is_answer(record["message"], record["answers"]) for record in records],
        holds_answer=[holds_answer(record["message"], record["answers"]) for record in records],
    )
