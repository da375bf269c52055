"""Files of records: one JSON line a record, each with the version of the records' schema."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from data.errors import DataError, one_line
from data.writing import write_json_lines
from eval.record import SCHEMA_VERSION, BaseRecord

AnyRecord = TypeVar("AnyRecord", bound=BaseRecord)

BASELINE_RECORDS = "baselines.jsonl"
"""The file of an evaluation's run folder that holds the records of its baselines, where it has some."""

VERSION_FIELD = "schema_version"
"""The field of a line that holds the version; it stands in the file alone, not in records in memory."""


def write_records(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, so that the file is whole or absent.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; a former file is still there.
    """
    write_json_lines(path, ({VERSION_FIELD: SCHEMA_VERSION, **record} for record in records))


def read_records(path: Path, kind: type[AnyRecord]) -> Iterator[AnyRecord]:
    """The records of a file, one at a time.

    Args:
        path: a file that `write_records` wrote, such as ``samples.jsonl``.
        kind: what its records are: ``Record``, ``BaselineRecord``, ``SweepRecord`` or ``RoundRecord``.

    Raises:
        DataError: a line is no JSON object, has another schema version, or lacks a field; file and line are named.
        OSError: the file cannot be read.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            yield cast(AnyRecord, _checked(line, f"{path} line {number}", kind.__required_keys__))


def _checked(line: bytes, where: str, required: frozenset[str]) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON: {one_line(error)}") from error
    if not isinstance(record, dict):
        raise DataError(f"{where} is {type(record).__name__}, expected an object")
    version = record.pop(VERSION_FIELD, None)
    if version != SCHEMA_VERSION:
        found = "no schema version" if version is None else f"schema version {version}"
        raise DataError(f"{where} has {found}, and this code reads version {SCHEMA_VERSION}: evaluate again")
    if missing := sorted(required - record.keys()):
        raise DataError(f"{where} lacks {', '.join(missing)}")
    return record
