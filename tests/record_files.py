"""Files of records in every form, damaged ones among them, and what the refusal of bad ones says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from data.errors import DataError


def write_records(path: Path, records: Any) -> str:
    """A file of records in the form that its name asks for; text and bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(records, bytes):
        path.write_bytes(records)
    elif isinstance(records, str):
        path.write_text(records, encoding="utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(records), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    else:
        path.write_text(json.dumps(records), encoding="utf-8")
    return str(path)


def halve(path: str | Path) -> None:
    """Leave the first half of a file."""
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def refusal_of(read: Callable[[], object]) -> str:
    """The message with which bad data is refused: always a ``DataError`` of one line."""
    with pytest.raises(DataError) as caught:
        read()
    message = str(caught.value)
    assert message and "\n" not in message
    return message


def assert_damage_is_refused(path: str, refusal: Callable[[str], str]) -> None:
    """Half of a file, and then an empty one in its place, are refused by their name."""
    halve(path)
    assert refusal(path).startswith(path)
    Path(path).write_bytes(b"")
    assert refusal(path).startswith(path)
