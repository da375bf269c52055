"""Human labels of answers, as FinanceBench publishes them."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.errors import DataError, one_line
from eval.judge.judge import Answered, Verdict

LABELS: dict[str, Verdict] = {
    "Correct Answer": "correct",
    "Incorrect Answer": "incorrect",
    "Refusal": "refusal",
}
"""The labels of FinanceBench's result files."""


@dataclass(frozen=True)
class HumanLabel:
    """An answer and what people said of it; ``document`` is the cluster: questions of one filing go together."""

    id: str
    document: str
    answered: Answered
    verdict: Verdict


def load_human_labels(path: Path, questions: Path | None = None) -> list[HumanLabel]:
    """A result file of FinanceBench with its human labels.

    Args:
        path: JSON lines, gzipped or not: ``financebench_id, question, gold_answer, model_answer, label`` and others.
        questions: FinanceBench's own file, which says what filing each question is about; None makes each question a
            document of its own.

    Raises:
        DataError: a file cannot be read, is empty, truncated or not JSON, or a record lacks a field, has an unknown
            label or is not among the questions; file and record are named.
    """
    documents = None if questions is None else _documents(questions)
    labels = [_label(row, where, documents) for where, row in _rows(path)]
    if not labels:
        raise DataError(f"{path} has no records: expected FinanceBench results with human labels")
    return labels


def find_questions(labels: Path) -> Path | None:
    """FinanceBench's questions where they lie beside the folder of the labels, or in ``data`` as it publishes them."""
    beside = labels.resolve().parent.parent
    places = (folder / "financebench_open_source.jsonl" for folder in (beside, beside / "data"))
    return next((place for place in places if place.is_file()), None)


def _documents(path: Path) -> dict[str, str]:
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path} has no records: expected the questions of FinanceBench")
    return {_text(row, "financebench_id", where): _text(row, "doc_name", where) for where, row in rows}


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Where each record stands, and the record."""
    record = 0
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for record, line in enumerate(lines, start=1):
                yield f"{path} record {record}", _row(line, f"{path} record {record}")
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged beyond record {record}: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        # Not only broken JSON: also numbers of thousands of digits, and brackets too deep for the parser.
        raise DataError(f"{where} is not JSON: {one_line(error)}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where} is {type(row).__name__}, expected an object")
    return row


def _label(row: Mapping[str, Any], where: str, documents: Mapping[str, str] | None) -> HumanLabel:
    id_ = _text(row, "financebench_id", where)
    if documents is not None and id_ not in documents:
        raise DataError(f"{where}: financebench_id {id_!r} is not among the questions")
    said = _text(row, "label", where)
    if said not in LABELS:
        raise DataError(f"{where}: label {said!r} should be one of {', '.join(map(repr, LABELS))}")
    answered = Answered(
        _text(row, "question", where), _text(row, "gold_answer", where, (int, float)), _text(row, "model_answer", where)
    )
    return HumanLabel(id_, id_ if documents is None else documents[id_], answered, LABELS[said])


def _text(row: Mapping[str, Any], field: str, where: str, others: tuple[type, ...] = ()) -> str:
    """A field that has to be there as text, or as one of the other types."""
    value = row.get(field)
    if not isinstance(value, (str, *others)) or isinstance(value, bool):
        found = "is missing" if field not in row else f"is {value!r:.60}"
        raise DataError(f"{where}: {field} {found}, expected text{' or a number' if others else ''}")
    return str(value)
