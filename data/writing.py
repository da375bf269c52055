"""Files that are whole or absent: written under another name, flushed to the disk, and renamed in one step."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file so that a reader finds the former file or the new one, even after a kill at any moment.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; the former file is still there.
    """
    # The process id keeps two writers of one file out of each other's half-written copy.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON: see `write_text`."""
    write_text(path, json.dumps(value, indent=1))


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, one a line: see `write_text`."""
    write_text(path, "".join(json.dumps(record) + "\n" for record in records))
