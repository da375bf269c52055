"""Your own documents and questions: a record a question, from JSON lines, JSON, CSV, parquet or a data set of the Hub.

A record has ``context``, ``question`` and ``answers``; it may have ``id``, ``document``, ``options``, ``evidence``,
``negatives`` and ``split``. Fields of other names are mapped. SQuAD's records are understood as they are. A number is
its text, a whole one without a point, as tables hold 52 as 52.0 where another row has none; NaN and Infinity are null.
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data import reading
from data.errors import DataError, one_line
from data.reading import Records, shown
from data.sample import Document, Question
from data.task import Loaded, Request, draw
from objectives.accuracy import METRICS

NAME = "records"
VERSION = 1
"""Version of the task's documents and questions: results of different versions do not compare."""

VARIANTS: tuple[str, ...] = ()
SPLITS: tuple[str, ...] = ()

INSTRUCTION = (
    "Write a short note for a reader who has this question and cannot see the text. Note what the text says that "
    "answers the question, with its own words, names and numbers, and nothing else. If the text does not answer it, "
    "say so."
)
ANSWER_INSTRUCTION = (
    "The text above is a note on a longer text. Answer the question from the note alone, as briefly as possible. If "
    "the note does not answer it, say so."
)

REQUIRED = ("context", "question", "answers")
OPTIONAL = ("id", "document", "options", "evidence", "negatives", "split")
FIELDS = (*REQUIRED, *OPTIONAL)
"""Fields of a record, which ``columns`` may map to other names."""

HUB = "hub:"
"""Beginning of a source on the Hub: ``hub:owner/name``, or with a subset ``hub:owner/name/subset``."""

MOST_PROBLEMS = 8
"""The most wrong records that one message names: enough to see the pattern, few enough to read."""

CELL_CHARACTERS = 1 << 30
"""Longest cell of a CSV file: a context is longer than the 131,072 characters that Python allows by default."""


@dataclass(frozen=True)
class _Reader:
    """How the records of one request are read."""

    columns: Mapping[str, str]
    metric: str | None
    problems: list[str] = field(default_factory=list)

    def value(self, record: Mapping[str, Any], name: str) -> Any:
        """The field that ``name`` is mapped to, or that has that name; None where the record lacks it or it is null."""
        return _known(record.get(self.columns.get(name, name)))


def load(request: Request) -> Loaded:
    """Documents with their questions; records of one ``document``, or of the same context, share a document.

    Where records have a ``split``, those of the request's split are read; a source without any is read whole.

    Raises:
        DataError: no source, or a source that cannot be read, or wrong records; one line that counts them and names the
            first of them.
    """
    if request.source is None:
        raise DataError(f"{NAME}: needs a source: a .jsonl, .json, .csv or .parquet file, a folder, or hub:owner/name")
    unknown = sorted(set(request.columns) - set(FIELDS))
    if unknown:
        raise DataError(f"{NAME}: columns maps {', '.join(unknown)}, but a record has {', '.join(FIELDS)}")
    if request.metric is not None and request.metric not in METRICS:
        raise DataError(f"{NAME}: no metric {request.metric!r}; there are {', '.join(METRICS)}")
    reader = _Reader(dict(request.columns), request.metric)
    documents: dict[str, Document] = {}
    skipped: Counter[str] = Counter()
    count = 0
    for where, record in _records(request):
        count += 1
        try:
            _add(documents, skipped, reader, record, where, request.split)
        except DataError as error:
            reader.problems.append(str(error))
    if reader.problems:
        raise DataError(_summary(request.source, reader.problems, count))
    if not documents:
        raise DataError(f"{request.source}: {_nothing(count, skipped, request.split)}")
    return draw(list(documents.values()), skipped, request)


def _records(request: Request) -> Records:
    """The records of a source, each with its file and its line, row or number there, for messages."""
    assert request.source is not None
    if request.source.startswith(HUB):
        owner, name, *subset = [*request.source.removeprefix(HUB).split("/"), ""][:3]
        split = reading.split_name(NAME, request.split)
        yield from reading.hub_records(NAME, f"{owner}/{name}", split, name=subset[0] or None)
        return
    path = reading.local_path(request.source)
    if path.suffix.lower() == ".csv":
        yield from _csv_records(path)
    else:
        yield from reading.local_records(path, reading.split_name(NAME, request.split), _json_records)


def _csv_records(path: Path) -> Records:
    """The rows of a CSV file with a header; cells that hold JSON lists are lists."""
    previous = csv.field_size_limit(CELL_CHARACTERS)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file, strict=True)
            header = Counter(name for name in rows.fieldnames or () if name)
            if twice := [name for name, times in header.items() if times > 1]:
                raise DataError(f"{path}: the header names {', '.join(map(shown, twice))} more than once")
            for row in rows:
                if None in row or None in row.values():
                    raise DataError(f"{path}, line {rows.line_num}: has another number of cells than the header")
                where = f"{path}, line {rows.line_num}"
                yield where, {name: _cell(text, f"{where}, {name}") for name, text in row.items() if text}
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV ({one_line(error)})") from error
    finally:
        csv.field_size_limit(previous)


def _cell(text: str, where: str) -> Any:
    """A cell's text, or its JSON list; what only begins like a list is text.

    Raises:
        DataError: Python cannot hold the list: too many brackets in one another, or numbers of thousands of digits.
    """
    if not text.lstrip().startswith("["):
        return text
    try:
        return reading.json_value(text, where)
    except json.JSONDecodeError:
        return text


def _json_records(content: Any, path: Path) -> Records:
    """A list of records, or SQuAD's published file: articles of paragraphs of questions."""
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        yield from _squad_records(content["data"], path)
    else:
        yield from reading.listed_records(content, path)


def _squad_records(articles: list[Any], path: Path) -> Records:
    for number, article in enumerate(articles, start=1):
        title = reading.text(article, "title", f"{path}, article {number}")
        for paragraph_number, paragraph in enumerate(reading.rows(article, "paragraphs", title), start=1):
            where = f"{path}, {title}, paragraph {paragraph_number}"
            context = reading.required_text(paragraph, "context", where)
            for question in reading.rows(paragraph, "qas", where):
                yield where, {"context": context, "title": title, **(question if isinstance(question, dict) else {})}


def _add(
    documents: dict[str, Document],
    skipped: Counter[str],
    reader: _Reader,
    record: Any,
    where: str,
    split: str,
) -> None:
    """Add a record's question to its document.

    Raises:
        DataError: the record is wrong; one line that names it and what is wrong.
    """
    if not isinstance(record, dict):
        raise DataError(f"{where}: should be an object, it is {shown(record)}")
    if not _belongs(reader.value(record, "split"), split):
        skipped["records of another split"] += 1
        return
    missing = [name for name in REQUIRED if reader.value(record, name) is None]
    if missing == ["answers"] and record.get("is_impossible") is True:
        record = record | {reader.columns.get("answers", "answers"): []}
    elif missing:
        raise DataError(f"{where}: {_missing(missing, reader, record)}")
    context = _text(reader, record, "context", where)
    key = _identity(reader.value(record, "document"), "document", where) or reading.content_id(context)
    question = _question(reader, record, where, context)
    if question is None:
        skipped["questions without an answer"] += 1
        return
    known = documents.get(key)
    if known is None:
        title = _identity(_known(record.get("title")), "title", where)
        documents[key] = Document(key, NAME, context, (question,), group=title or key, cluster=title or key)
    elif known.text != context:
        raise DataError(f"{where}: document {shown(key)} has another context than before")
    elif question.id in [earlier.id for earlier in known.questions]:
        raise DataError(f"{where}: id {shown(question.id)} is a duplicate")
    else:
        documents[key] = replace(known, questions=(*known.questions, question))


def _belongs(named: Any, split: str) -> bool:
    """Whether a record is of the requested split; a record that names none belongs to every split."""
    words = next((words for words in reading.SPLIT_WORDS.values() if split in words), (split,))
    return named is None or str(named).strip().lower() in words


def _known(value: Any) -> Any:
    """A value; None where it is NaN or Infinity: tables write them where there is none, and no text says them."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _written(value: str | int | float) -> str:
    """A text, or the text of a number: a table of numbers that lacks one holds 52 as 52.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def _question(reader: _Reader, record: dict[str, Any], where: str, context: str) -> Question | None:
    """A record's question; None where it has no answer, as SQuAD's impossible questions have none."""
    text = _text(reader, record, "question", where)
    answers = _answers(reader, record, where)
    options = _texts(reader, record, "options", where)
    if not answers:
        return None
    if options and not set(answers) <= set(options):
        raise DataError(f"{where}: 'answers' should be among 'options', they are {shown(list(answers))}")
    evidence = _texts(reader, record, "evidence", where)
    if absent := [passage for passage in evidence if passage not in context]:
        raise DataError(f"{where}: 'evidence' should be passages of the context, one is {shown(absent[0])}")
    return Question(
        id=_identity(reader.value(record, "id"), "id", where) or reading.content_id(context, text),
        text=text,
        answers=answers,
        metric=reader.metric or ("multiple_choice" if options else "qasper_f1"),
        options=options,
        kind="choice" if options else "open",
        evidence=evidence,
        negatives=tuple(negative for negative in _texts(reader, record, "negatives", where) if negative != context),
    )


def _answers(reader: _Reader, record: dict[str, Any], where: str) -> tuple[str, ...]:
    """Gold answers: a text, a list of texts, SQuAD's object of lists, or SQuAD's list of objects."""
    value = reader.value(record, "answers")
    if isinstance(value, dict) and "text" in value:
        value = value["text"]
    if isinstance(value, list) and value and all(isinstance(answer, dict) and "text" in answer for answer in value):
        value = [answer["text"] for answer in value]
    return _as_texts(value, "answers", where)


def _text(reader: _Reader, record: dict[str, Any], name: str, where: str) -> str:
    value = reader.value(record, name)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise DataError(f"{where}: {name!r} should be text, it is {shown(value)}")
    return reading.required_text({name: _written(value)}, name, where)


def _texts(reader: _Reader, record: dict[str, Any], name: str, where: str) -> tuple[str, ...]:
    return _as_texts(reader.value(record, name), name, where)


def _as_texts(value: Any, name: str, where: str) -> tuple[str, ...]:
    """Texts of a field without repetition; numbers count as their text, null as none."""
    items = [] if value is None else value if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or _known(item) is None or not isinstance(item, str | int | float) for item in items):
        raise DataError(f"{where}: {name!r} should be a text or a list of texts, it is {shown(value)}")
    texts = [reading.text({name: _written(item)}, name, where) for item in items]
    return tuple(dict.fromkeys(text for text in texts if text))


def _identity(value: Any, name: str, where: str) -> str:
    """An id, a document or a title as text; empty where there is none."""
    return "" if value is None or isinstance(value, list | dict) else reading.text({name: _written(value)}, name, where)


def _missing(names: list[str], reader: _Reader, record: dict[str, Any]) -> str:
    source_names = " and ".join(repr(reader.columns.get(name, name)) for name in names)
    known = [str(name) for name, value in record.items() if _known(value) is not None]
    present = one_line(", ".join(known), 80) or "none"
    unmapped = [name for name in names if name not in reader.columns]
    hint = f"; map it with columns: {{{unmapped[0]}: ...}}" if unmapped else ""
    return f"has no field {source_names}; it has {present}{hint}"


def _nothing(count: int, skipped: Counter[str], split: str) -> str:
    """Why a source gives no document."""
    if not count:
        return "is empty: it has no record"
    without, elsewhere = skipped["questions without an answer"], skipped["records of another split"]
    if not without:
        return f"has no record of split {split!r}, but {elsewhere} of another"
    further = f", and {elsewhere} records of another split than {split!r}" if elsewhere else ""
    return f"has no question with an answer ({without} without{further})"


def _summary(source: str, problems: list[str], count: int) -> str:
    """What is wrong with a source, on one line."""
    if len(problems) == 1:
        return problems[0]
    further = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    named = "; ".join(_without(source, problem) for problem in problems[:MOST_PROBLEMS])
    return f"{source}: {len(problems)} of {count} records cannot be used: {named}{further}"


def _without(source: str, problem: str) -> str:
    """A problem without the file's name, with which the whole message begins."""
    return problem.removeprefix(f"{source}, ")


def paths(source: str | None) -> Iterator[Path]:
    """The local path that a source names, to be checked before anything is loaded; none for the Hub."""
    if source is not None and not source.startswith(HUB):
        yield reading.local_path(source)
