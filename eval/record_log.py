"""What an evaluation has done so far, batch by batch: a killed one goes on from there, whoever did what.

A batch goes by the hash of everything its records depend on: models, adapters, task versions, settings, and its samples
word for word. What was made with anything else is not found, so one folder may serve changing evaluations.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from accelerate import PartialState

from configs.command import say
from data.sample import Sample
from data.writing import append_text, json_text
from eval.record import SCHEMA_VERSION

SEAL = "sha256"
"""The field of a line that holds the hash of all others."""

Logged = TypeVar("Logged", bound=Mapping[str, Any])


class RecordLog(Generic[Logged]):
    """A folder of JSON lines, one file a process; a line is a batch."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], process: int = 0) -> None:
        """Read the batches that are done.

        A line that is not letter for letter what was written, for a kill cut it short or something damaged it, is
        dropped, and counted in ``torn``: its batch is done again. The last line of this process's own file is cut off
        as well where it is cut short, so that it is counted once. A batch whose records have another schema version is
        dropped too, and counted in ``outdated``.

        Args:
            folder: is made where it is absent.
            identity: whatever the records depend on beside the samples and how they are made; JSON values.
            process: whose file new batches go to.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.identity = json.dumps(identity, sort_keys=True)
        self.path = folder / f"{process}.jsonl"
        self.torn = 0
        self.outdated = 0
        self.done: dict[str, list[Logged]] = {}
        for path in sorted(folder.glob("*.jsonl")):
            self._read(path)

    def _read(self, path: Path) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        for line in lines:
            batch = _unsealed(line)
            if batch is None:
                self.torn += 1
            elif batch["schema_version"] != SCHEMA_VERSION:
                self.outdated += 1
            else:
                self.done[batch["key"]] = batch["records"]
        if path == self.path and lines and not lines[-1].endswith(b"\n"):
            # What is appended next begins a line of its own.
            os.truncate(path, sum(map(len, lines[:-1])))

    def holds(self, origin: Mapping[str, Any], batch: Sequence[Sample]) -> bool:
        """Whether a batch is done."""
        return self.key(origin, batch) in self.done

    def records(self, origin: Mapping[str, Any], batch: Sequence[Sample]) -> list[Logged] | None:
        """The records of a batch; None where it is not done."""
        return self.done.get(self.key(origin, batch))

    def add(self, origin: Mapping[str, Any], batch: Sequence[Sample], records: Sequence[Logged]) -> list[Logged]:
        """Write a batch down for good, and return it as it will be read back."""
        key = self.key(origin, batch)
        line = sealed({"schema_version": SCHEMA_VERSION, "key": key, "records": records})
        append_text(self.path, line)
        self.done[key] = json.loads(line)["records"]
        return self.done[key]

    def key(self, origin: Mapping[str, Any], batch: Sequence[Sample]) -> str:
        """The hash of all that the records of a batch depend on."""
        digest = hashlib.sha256(f"{self.identity}\0{json.dumps(origin, sort_keys=True)}".encode())
        for sample in batch:
            document = sample.document
            parts = (sample.id, sample.cluster, document.group, document.text, *document.parts, repr(sample.question))
            for part in parts:
                digest.update(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest())
        return digest.hexdigest()


def sealed(batch: Mapping[str, Any]) -> str:
    """A batch as a line: what it holds, behind the hash of that."""
    text = json_text(batch)
    return f'{{"{SEAL}": "{hashlib.sha256(text.encode()).hexdigest()}", {text.removeprefix("{")}\n'


def _unsealed(line: bytes) -> dict[str, Any] | None:
    """The batch of a line; None where the line is not letter for letter what `sealed` gives."""
    try:
        batch = json.loads(line)
        del batch[SEAL]
        return (
            batch if {"schema_version", "key", "records"} == batch.keys() and sealed(batch).encode() == line else None
        )
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def open_log(folder: Path, identity: Mapping[str, Any]) -> RecordLog[Any]:
    """The log in a folder, for this process; says how many batches of a former run cannot be used.

    Args:
        folder: the folder of the log.
        identity: see `RecordLog`.
    """
    log: RecordLog[Any] = RecordLog(folder, identity, PartialState().process_index)
    if log.torn:
        say(f"{folder}: interrupted or damaged batches that will be redone: {log.torn}")
    if log.outdated:
        say(f"{folder}: batches with records of another schema version that will be redone: {log.outdated}")
    return log
