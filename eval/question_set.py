"""A set of synthesised questions on disk, and the loop that has a model write what it still lacks."""

import hashlib
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data.errors import DataError
from data.reading import file_records
from data.synthesis import PROMPT_VERSION, Messages, Write, synthesise
from data.written_questions import Material, Row, read_row
from models.endpoint import Endpoint, EndpointError, Sampling

REFUSALS = (400, 413, 422)
"""What servers answer to one conversation they cannot take, such as one too long for the model."""


class QuestionSet:
    """A synthesised set on disk: one JSON lines file, or a folder with ``train.jsonl`` and ``test.jsonl``.

    Attributes:
        done: the ids of the rows that are there.
        damaged: half-written last lines of an interrupted run, which were cut off.
    """

    def __init__(self, out: str, task: str, writer: str, test_share: float) -> None:
        """Read what is there.

        Args:
            out: a name that ends in .jsonl is a file; any other is a folder.
            task: the task of every row.
            writer: the writer model of every row.
            test_share: the share of rows that go to the folder's test.jsonl; a row's id decides.

        Raises:
            DataError: a file is unreadable, or has rows of another task, writer or prompt version.
        """
        self.path = Path(out).expanduser()
        self.test_share = test_share
        self.damaged = 0
        self.done: set[str] = set()
        folder = self.path.suffix.lower() != ".jsonl"
        self.files = [self.path / "train.jsonl", self.path / "test.jsonl"] if folder else [self.path]
        try:
            for path in self.files:
                path.parent.mkdir(parents=True, exist_ok=True)
                self.damaged += _cut_half_line(path)
        except OSError as error:
            raise DataError(f"{error.filename}: cannot be written ({error.strerror})") from error
        for path in self.files:
            if path.exists() and path.stat().st_size:
                self._read(path, task, writer)

    def add(self, row: Row) -> None:
        """Append a row, unless it is there.

        Raises:
            DataError: the file cannot be written.
        """
        if row.material.id in self.done:
            return
        path = self.files[-1] if _share(row.material.id) < self.test_share else self.files[0]
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(row.line() + "\n")
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror})") from error
        self.done.add(row.material.id)

    def _read(self, path: Path, task: str, writer: str) -> None:
        for where, record in file_records(path):
            row = read_row(record, task, where)
            found, wanted = (row.writer, row.prompt_version), (writer, PROMPT_VERSION)
            if found != wanted:
                raise DataError(
                    f"{where}: was written by {found[0]!r} with prompts {found[1]}, not by {wanted[0]!r} with prompts "
                    f"{wanted[1]}; results of different ones do not compare: name another --out"
                )
            self.done.add(row.material.id)


def run(
    materials: Iterator[Material],
    questions: QuestionSet,
    writer: str,
    write: Write,
    concurrency: int,
    total: int | None,
) -> Counter[str]:
    """Have questions written for every material that has none yet, a few at a time, and append them to the set.

    Whatever a writer has answered when something fails is appended as well.

    Returns:
        How many materials, questions by kind, replies and rejections there were.

    Raises:
        EndpointError: the server fails, or refuses the first conversations; later refusals are counted.
        DataError: a material or the set cannot be read or written.
    """
    counts: Counter[str] = Counter()
    pending: set[Future[Row]] = set()
    pool = ThreadPoolExecutor(concurrency)
    bar = tqdm(total=total, desc="synthesising", unit="text")
    try:
        for material in materials:
            if material.id in questions.done:
                counts["written before"] += 1
                bar.update()
                continue
            pending.add(pool.submit(synthesise, material, writer, write))
            if len(pending) >= 2 * concurrency:
                pending = _collect(pending, questions, counts, bar)
        while pending:
            pending = _collect(pending, questions, counts, bar)
    finally:
        pool.shutdown(cancel_futures=True)
        bar.close()
        for future in pending:
            if not future.cancelled() and future.exception() is None:
                questions.add(future.result())
    return counts


def _collect(pending: set[Future[Row]], questions: QuestionSet, counts: Counter[str], bar: tqdm) -> set[Future[Row]]:
    """Append what is finished; the rest."""
    finished, rest = wait(pending, return_when=FIRST_COMPLETED)
    # Rows before errors: what the server has answered is kept.
    for future in sorted(finished, key=lambda future: future.exception() is not None):
        bar.update()
        try:
            row = future.result()
        except EndpointError as error:
            if error.status not in REFUSALS or not counts["written"]:
                raise
            counts["refused by the server"] += 1
            bar.write(f"refused: {error}", file=sys.stderr)
            continue
        questions.add(row)
        counts["written"] += 1
        counts["replies"] += row.attempts
        counts["rejected"] += len(row.rejected)
        counts["without any usable question"] += not row.questions
        counts.update(f"{one.kind} questions" for one in row.questions)
    return rest


def writer_of(endpoint: Endpoint, sampling: Sampling, use_schema: bool) -> Write:
    """A writer that asks an endpoint, and has the server enforce the schema where it may."""

    def write(messages: Messages, schema: Mapping[str, Any]) -> str:
        return endpoint.complete(messages, replace(sampling, schema=schema if use_schema else None)).text

    return write


def _cut_half_line(path: Path) -> int:
    """Cut off a last line that a killed process did not finish; how many there were."""
    if not path.exists():
        return 0
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole == len(content):
        return 0
    os.truncate(path, whole)
    return 1


def _share(identity: str) -> float:
    """A number in [0, 1) that an id always has."""
    return int.from_bytes(hashlib.sha256(identity.encode()).digest()[:8]) / 2**64
