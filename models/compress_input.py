"""What ``models.compress`` compresses: a document with a question, or JSON lines, all of whose mistakes are told."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data.errors import DataError, one_line
from data.reading import required_text, shown, text, texts

STANDARD_INPUT = "-"
"""The name that stands for standard input."""

MOST_PROBLEMS = 8
"""The most wrong lines that one message names: enough to see the pattern, few enough to read."""


@dataclass(frozen=True)
class Item:
    """One document with one question.

    Attributes:
        where: the file and the line, for messages.
        context: the document.
        question: what the predictor is asked; empty where there is none.
        options: the answers that the predictor chooses from; the compressor never sees them.
        further: the other fields of its line, which are passed on.
    """

    where: str
    context: str = field(repr=False)
    question: str
    options: tuple[str, ...] = ()
    further: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_document(document: str, question: str | None) -> Item:
    """A document from a UTF-8 file or standard input, with its question.

    Raises:
        DataError: it cannot be read, is not UTF-8 or has no text, or the question has none.
    """
    where = f"document {document!r}"
    try:
        content = _bytes(document).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{where}: {one_line(error)}") from error
    if not content.strip():
        raise DataError(f"{where}: has no text: a message of it would be made up")
    context = required_text({"document": content}, "document", where)
    if question is None:
        return Item(where, context, "")
    asked = required_text({"question": question}, "question", "--question")
    return Item(where, context, asked, further={"question": asked})


def read_lines(source: str, question_needed: bool) -> list[Item]:
    """Every line of a JSON lines file, or of standard input, that is not blank.

    Args:
        source: the file's name, or ``-``.
        question_needed: whether a line without a question is wrong.

    Raises:
        DataError: it cannot be read or is empty, or lines are wrong: one line that names them.
    """
    items, problems = [], []
    for where, line in _numbered(source):
        try:
            items.append(_item(where, line, question_needed))
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError(told(source, problems, len(items) + len(problems)))
    if not items:
        raise DataError(f"{source}: is empty")
    return items


def told(source: str, problems: Sequence[str], count: int) -> str:
    """What is wrong with some of ``count`` lines, on one line."""
    if len(problems) == 1:
        return problems[0]
    further = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    named = "; ".join(problem.removeprefix(f"{source}, ") for problem in problems[:MOST_PROBLEMS])
    return f"{source}: {len(problems)} of {count} lines cannot be used: {named}{further}"


def _bytes(source: str) -> bytes:
    return sys.stdin.buffer.read() if source == STANDARD_INPUT else Path(source).expanduser().read_bytes()


def _numbered(source: str) -> Iterator[tuple[str, bytes]]:
    try:
        content = _bytes(source)
    except (OSError, ValueError) as error:
        raise DataError(f"input {source!r}: {one_line(error)}") from error
    # Bytes are split at line feeds alone; as text they would also split at characters that JSON allows inside a text.
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            yield f"{source}, line {number}", line


def _item(where: str, line: bytes, question_needed: bool) -> Item:
    record = _object(where, line)
    context = required_text(record, "context", where)
    known = record.get("question") is not None
    question = required_text(record, "question", where) if known or question_needed else ""
    options = () if record.get("options") is None else tuple(texts(record, "options", where))
    return Item(where, context, question, options, {key: value for key, value in record.items() if key != "context"})


def _object(where: str, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: is not UTF-8 text (byte {error.start})") from error
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: broken JSON: {error.msg} (column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({one_line(error)})") from error
    if not isinstance(record, dict):
        raise DataError(f"{where}: should be an object with 'context' and 'question', it is {shown(record)}")
    for name in ("context", "question"):
        text({name: record.get(name)}, name, where)
    return record


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
