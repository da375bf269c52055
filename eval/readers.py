"""Other readers of the same messages: whether they are a language, or a code that one predictor has learned.

A pair that is trained together may agree on messages that nobody else understands. So predictors that took no part in
the training answer from the very same messages: the share of the accuracy that is left with them is called portability.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np

from configs.build import build_predictor
from configs.servers import PATIENCE
from data.sample import Sample
from data.writing import write_json_lines
from eval.analysis.significance import BOOTSTRAP, SHARE, Bootstrap, interval, quotient, ratio_of_sums
from eval.config import EvaluationConfig
from eval.record import Record, accuracy_of, cluster
from eval.record_log import RecordLog
from eval.servers import tell_of_reader
from models.fingerprint import parameter_hash
from models.predictor import Predictor, Query

READER_ANSWERS = "readers.jsonl"
"""The file of an evaluation's run folder that holds their answers, where there are other readers."""


class Reading(TypedDict):
    """What another reader answers from the message of a record."""

    id: str
    """The question: see ``Record``."""

    stage: str
    """The stage of the message: see ``Origin``."""

    temperature: float | None
    """The temperature of the message: see ``Origin``."""

    reader: str
    """The reader's name."""

    prediction: str
    """Its answer."""

    accuracy: float | None
    """The score of the answer, as a share in [0, 1]; None where a judge alone could tell."""


def ask_readers(
    config: EvaluationConfig,
    samples: Sequence[Sample],
    records: Sequence[Record],
    instruction: str,
    log: RecordLog[Reading],
) -> list[dict[str, Any]]:
    """The figures of every reader that a configuration names, by one process; the answers are left in the run folder.

    Args:
        config: names the readers.
        samples: the questions of all records.
        records: with the messages, of all stages.
        instruction: what predictors are told.
        log: holds the batches that are done.

    Returns:
        For each its ``name``, its ``model`` and, of every stage, what `portability` gives.

    Raises:
        ModelError: a local reader cannot be loaded.
        EndpointError: a server cannot be used.
    """
    entries: list[dict[str, Any]] = []
    answers: list[Reading] = []
    for number, reader in enumerate(config.readers):
        predictor, model = build_predictor(reader, instruction, config.folder / f"reader.{number}.jsonl")
        identity = {
            "predictor": reader.model_dump(mode="json", exclude={"name", *PATIENCE}),
            "parameters": model and parameter_hash(model),
        }
        readings = read_again(reader.name, identity, predictor, samples, records, config.eval.batch_size, log)
        entry: dict[str, Any] = {"name": reader.name, "model": reader.model}
        for stage in dict.fromkeys(record["stage"] for record in records):
            places = [place for place, record in enumerate(records) if record["stage"] == stage]
            entry[stage] = portability([records[place] for place in places], [readings[place] for place in places])
        entries.append(entry)
        answers += readings
        tell_of_reader(predictor, f"readers.{number}.max_answer_tokens")
    write_json_lines(config.folder / READER_ANSWERS, answers)
    return entries


def read_again(
    reader: str,
    identity: Mapping[str, Any],
    predictor: Predictor,
    samples: Sequence[Sample],
    records: Sequence[Record],
    batch_size: int,
    log: RecordLog[Reading],
) -> list[Reading]:
    """The answers of another reader to the messages of an evaluation, in the order of its records.

    Args:
        reader: its name.
        identity: whatever its answers depend on; JSON values.
        predictor: the reader itself.
        samples: the questions of all records.
        records: with the messages.
        batch_size: messages read together.
        log: holds the batches that are done.
    """
    by_id = {sample.id: sample for sample in samples}
    readings: list[Reading] = []
    for start in range(0, len(records), batch_size):
        batch = records[start : start + batch_size]
        asked = [by_id[record["id"]] for record in batch]
        key = {"reader": identity, "messages": [record["message"] for record in batch]}
        found = log.records(key, asked)
        if found is None:
            pairs = list(zip(asked, batch, strict=True))
            queries = [Query(record["message"], one.question.text, one.question.options) for one, record in pairs]
            found = log.add(
                key,
                asked,
                [
                    {
                        "id": one.id,
                        "stage": record["stage"],
                        "temperature": record["temperature"],
                        "reader": reader,
                        "prediction": answer,
                        "accuracy": accuracy_of(one, answer),
                    }
                    for (one, record), answer in zip(pairs, predictor.answer(queries), strict=True)
                ],
            )
        readings += found
    return readings


def portability(
    records: Sequence[Record], readings: Sequence[Reading], bootstrap: Bootstrap = BOOTSTRAP
) -> dict[str, Any]:
    """How much of the accuracy of a stage is left with another reader, over the questions that both have a score of.

    Args:
        records: of one stage, answered by the evaluation's own predictor.
        readings: of the same records, in their order.
        bootstrap: how documents are resampled.

    Returns:
        ``accuracy`` of the reader, a share; ``portability``, that accuracy over the predictor's own; each with the ends
        of its 95% interval over documents; and ``n``, the number of questions.
    """
    scored = [
        (cluster(record), record["accuracy"], reading["accuracy"])
        for record, reading in zip(records, readings, strict=True)
    ]
    pairs = [(document, own, other) for document, own, other in scored if own is not None and other is not None]
    documents = sorted({document for document, _, _ in pairs})
    row = {document: index for index, document in enumerate(documents)}
    sums = np.zeros((3, len(documents)))
    for document, own, other in pairs:
        sums[:, row[document]] += np.array([1.0, own, other])
    counts = bootstrap.counts(len(documents))
    of_predictor, of_reader = (ratio_of_sums(sums[place], sums[0], counts, SHARE) for place in (1, 2))
    return {
        "accuracy": interval(of_reader).as_dict(),
        "portability": interval(quotient(of_reader, of_predictor)).as_dict(),
        "n": len(pairs),
    }
