"""Questions that a writer model wrote about a page or a user's chat sessions: the rows of a set, and how it is read.

A row holds what the writer read as well, so that a set stands alone. `data.synthesis` asks the writer.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from data import reading
from data.errors import DataError
from data.reading import required_text, shown
from data.task import Request

KINDS = ("extractive", "email", "rap", "poem", "memory")
"""Kinds of questions: memory for the sessions of a user, the others for a page."""


@dataclass(frozen=True)
class Material:
    """What a writer reads: a page, or the sessions of a user.

    Attributes:
        task: the task the questions are for.
        id: unique within its task.
        texts: the page, or one text a session.
        variant: the protocol that the sessions were put together by; empty where the task has only one.
        group: the user, empty for a page.
        origin: where it comes from, as the published record says it (url, date, ...).
    """

    task: str
    id: str
    texts: tuple[str, ...] = field(repr=False)
    variant: str = ""
    group: str = ""
    origin: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Synthetic:
    """One question with its gold answer; the quote is the passage it rests on, where the writer had to give one."""

    kind: str
    question: str
    answer: str
    quote: str = ""


@dataclass(frozen=True)
class Row:
    """One line of a synthesised set: a material and its questions.

    Attributes:
        material: what the writer read.
        writer: the model that wrote questions and answers.
        prompt_version: the version of the prompts that the writer was given.
        attempts: the number of requests it took.
        questions: those that passed every check.
        rejected: what was wrong with the others.
    """

    material: Material
    writer: str
    prompt_version: int
    attempts: int
    questions: tuple[Synthetic, ...]
    rejected: tuple[str, ...]

    def line(self) -> str:
        """The row as JSON."""
        flat = {**asdict(self.material), **{key: value for key, value in asdict(self).items() if key != "material"}}
        return json.dumps(flat)


def read_rows(task: str, request: Request) -> Iterator[tuple[str, Row]]:
    """The rows of a synthesised set, each with its file and record, for messages.

    A file is read whole, whatever the split. In a folder and its sub-folders the split's files are those whose name has
    it among its words, or else whose folder's name has it.

    Raises:
        DataError: no source, an unknown split, a source that cannot be read, or a malformed row or one of another
            task; one line.
    """
    split = reading.split_name(task, request.split)
    if request.source is None:
        raise DataError(
            f"{task}: is published without questions; have some written (python -m eval.synthesise --task {task} "
            "--help) and name their file as its source"
        )
    known: dict[str, str] = {}
    records = reading.local_records(reading.local_path(request.source), split)
    for where, record in records:
        row = read_row(record, task, where)
        if row.material.id in known:
            raise DataError(f"{where}: {shown(row.material.id)} is a duplicate of {known[row.material.id]}")
        known[row.material.id] = where
        yield where, row


def read_row(record: Any, task: str, where: str) -> Row:
    """A line of a synthesised set.

    Raises:
        DataError: a field is missing, of the wrong type or of another task; one line that begins with ``where``.
    """
    row_task = required_text(record, "task", where)
    if row_task != task:
        raise DataError(f"{where}: is a row of {shown(row_task)}, not of {task!r}")
    origin = reading.field(record, "origin", (dict,), where)
    material = Material(
        task=task,
        id=required_text(record, "id", where),
        texts=tuple(reading.texts(record, "texts", where)),
        variant=reading.text(record, "variant", where),
        group=reading.text(record, "group", where),
        origin={key: reading.text(origin, key, f"{where}, origin") for key in origin},
    )
    rows = enumerate(reading.rows(record, "questions", where), start=1)
    return Row(
        material=material,
        writer=required_text(record, "writer", where),
        prompt_version=reading.field(record, "prompt_version", (int,), where),
        attempts=reading.field(record, "attempts", (int,), where),
        questions=tuple(_read_question(row, f"{where}, question {number}") for number, row in rows),
        rejected=tuple(reading.texts(record, "rejected", where)),
    )


def skipped_of(row: Row, kind: str) -> Counter[str]:
    """What a row lacks, by reason: questions that failed a check, and the whole row where none passed.

    Args:
        row: a row of a set.
        kind: what the set holds, in the plural (``pages``).
    """
    return Counter({"questions that failed a check": len(row.rejected), f"{kind} without questions": not row.questions})


def evidence(passage: str, texts_read: tuple[str, ...]) -> tuple[str, ...]:
    """The lines that hold a passage, or the passage itself where it spans several lines; none where no text has it.

    Args:
        passage: what a writer copied; may be empty.
        texts_read: the page, or the sessions.
    """
    if not passage:
        return ()
    lines = [line for text_read in texts_read for line in text_read.split("\n") if passage in line]
    if not lines and any(passage in text_read for text_read in texts_read):
        lines = [passage]
    return tuple(dict.fromkeys(lines))


def _read_question(record: Any, where: str) -> Synthetic:
    kind = required_text(record, "kind", where)
    if kind not in KINDS:
        raise DataError(f"{where}: 'kind' should be one of {', '.join(KINDS)}, it is {shown(kind)}")
    question, answer = required_text(record, "question", where), required_text(record, "answer", where)
    return Synthetic(kind, question, answer, reading.text(record, "quote", where))
