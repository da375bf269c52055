"""QASPER, questions about NLP papers (Dasigi et al. 2021), in both published layouts, from files or from the Hub.

The official layout is one JSON object of papers by id; the Hub's is one row a paper whose nested lists are columns, as
JSON lines, JSON or parquet. References follow the official evaluator, ``allenai/qasper-led-baseline``.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from data.sample import Document, Question

TASK = "qasper"
VERSION = 1
HUB_DATASET = "allenai/qasper"
# The default branch holds a loading script, which `datasets` no longer runs; this one holds what it produced.
HUB_REVISION = "refs/convert/parquet"

SPLIT_WORDS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""Each split, and the words that name it in a file's name."""

UNANSWERABLE = "Unanswerable"
FLOAT_MARK = "FLOAT SELECTED"

_SUFFIXES = (".json", ".jsonl", ".parquet")
_SHOWN_CHARACTERS = 60
_TYPE_NAMES = {str: "text", list: "a list", dict: "an object", bool: "true or false", NoneType: "null"}

Records = Iterator[tuple[str, Any]]
"""Where each record stands, for messages, and the record."""


@dataclass(frozen=True)
class Reference:
    """One annotator's answer.

    Attributes:
        text: the answer as the official evaluator compares it.
        kind: the evaluator's name of its type: none (unanswerable), extractive, abstractive or boolean.
        evidence: the passages it rests on, figures and tables among them.
    """

    text: str
    kind: str
    evidence: tuple[str, ...]


def load_papers(source: str | None, split: str) -> tuple[list[Document], Counter[str]]:
    """Every paper of a split that has an answered question, in the source's order.

    A file is read whole, whatever the split: neither layout says which one it is. In a folder and its sub-folders the
    split's file is the .json, .jsonl or .parquet whose name has the split among its words, or else whose folder's name
    has: ``qasper-train-v0.3.json``, ``train.jsonl``, ``train-00000-of-00002.parquet``, ``train/0000.parquet``. ``dev``,
    ``val`` and ``valid`` mean validation. Several .jsonl or several .parquet files are the parts of one.

    Args:
        source: a file or a folder; None takes the Hub, which needs network or a copy in its cache.
        split: train, validation (or dev) or test.

    Returns:
        The documents, and how many of what was left out, by reason.

    Raises:
        ValueError: the split or the source is unknown or cannot be read, or a record is malformed; one line that names
            the file and the record.
    """
    split = _split_name(split)
    where = f"{HUB_DATASET} on the Hub, split {split}" if source is None else source
    records = _hub_records(split) if source is None else _local_records(Path(source).expanduser(), split)
    documents: dict[str, Document] = {}
    skipped: Counter[str] = Counter()
    papers: dict[str, str] = {}
    for place, record in records:
        paper_id = _text(record, "id", place)
        if paper_id in papers:
            raise ValueError(f"{place}: paper {_shown(paper_id)} is there already, at {papers[paper_id]}")
        papers[paper_id] = place
        document = paper_document(record, place, skipped)
        if document is not None:
            documents[paper_id] = document
    if not documents:
        raise ValueError(f"{where}: has no paper with text and an answered question, of {len(papers)} papers")
    return list(documents.values()), skipped


def paper_document(record: Any, where: str, skipped: Counter[str]) -> Document | None:
    """One paper with its answered questions, or None where it has no text or no such question.

    Args:
        record: a row of the Hub's layout, or a paper of the official one with its ``id`` added.
        where: file and record, for messages.
        skipped: what is left out is added here, by reason.

    Raises:
        ValueError: a field is missing or of the wrong type.
    """
    paper_id = _text(record, "id", where)
    if not paper_id:
        raise ValueError(f"{where}: 'id' is empty; a paper needs one")
    if _shown(paper_id) not in where:
        where = f"{where}, paper {_shown(paper_id)}"
    text = paper_text(record, where)
    questions: dict[str, Question] = {}
    for number, asked in enumerate(_rows(record, "qas", where), start=1):
        question = _question(asked, text, f"{where}, question {number}", skipped)
        if question is not None and question.id in questions:
            skipped["questions with an id that is taken"] += 1
        elif question is not None:
            questions[question.id] = question
    if not text or not questions:
        skipped["papers without text" if not text else "papers without questions"] += 1
        return None
    return Document(paper_id, TASK, text, tuple(questions.values()), group=paper_id)


def paper_text(record: Any, where: str) -> str:
    """Title, abstract and sections, a blank line between them and a line for each paragraph.

    A nested section's name shows its path: ``Experiments ::: Dataset`` reads ``Experiments > Dataset``.

    Raises:
        ValueError: a field is missing or of the wrong type.
    """
    abstract = _text(record, "abstract", where)
    blocks = [_text(record, "title", where), f"Abstract\n{abstract}" if abstract else ""]
    for number, section in enumerate(_rows(record, "full_text", where), start=1):
        place = f"{where}, section {number}"
        lines = [_heading(_text(section, "section_name", place)), *_texts(section, "paragraphs", place)]
        blocks.append("\n".join(line for line in lines if line))
    return "\n\n".join(block for block in blocks if block)


def reference(answer: Any, where: str) -> Reference | None:
    """An annotation's answer by the official precedence: unanswerable, spans, free form, yes or no; None without any.

    Raises:
        ValueError: a field is missing or of the wrong type.
    """
    unanswerable = _field(answer, "unanswerable", (bool,), where)
    spans = _texts(answer, "extractive_spans", where)
    free_form = _text(answer, "free_form_answer", where)
    yes_no = _field(answer, "yes_no", (bool, NoneType), where)
    evidence = tuple(_texts(answer, "evidence", where))
    if unanswerable:
        return Reference(UNANSWERABLE, "none", ())
    if spans:
        return Reference(", ".join(spans), "extractive", evidence)
    if free_form:
        return Reference(free_form, "abstractive", evidence)
    return None if yes_no is None else Reference("Yes" if yes_no else "No", "boolean", evidence)


def _question(asked: Any, text: str, where: str, skipped: Counter[str]) -> Question | None:
    """One question with the references of all its annotators; None where there are none."""
    question_id, question = _text(asked, "question_id", where), _text(asked, "question", where)
    references = []
    for number, annotation in enumerate(_rows(asked, "answers", where), start=1):
        place = f"{where}, answer {number}"
        found = reference(_field(annotation, "answer", (dict,), place), place)
        if found is None:
            skipped["annotations without an answer"] += 1
        else:
            references.append(found)
    if not question or not references:
        skipped["questions without text" if not question else "questions without answers"] += 1
        return None
    return Question(
        id=question_id,
        text=question,
        answers=tuple(dict.fromkeys(found.text for found in references)),
        metric="qasper_f1",
        kind=references[0].kind,
        evidence=_evidence(references, text, skipped),
    )


def _evidence(references: Sequence[Reference], text: str, skipped: Counter[str]) -> tuple[str, ...]:
    """Every annotator's passages that stand in the text; figures and tables do not."""
    found = []
    for passage in dict.fromkeys(passage for answer in references for passage in answer.evidence):
        # Annotators marked section names as well, and these stand in the text as headings.
        as_in_text = next((form for form in (passage, _heading(passage)) if form and form in text), None)
        if FLOAT_MARK in passage:
            skipped["evidence in figures and tables"] += 1
        elif as_in_text is None:
            skipped["evidence that is not in the text"] += 1
        else:
            found.append(as_in_text)
    return tuple(found)


def _heading(section_name: str) -> str:
    return " > ".join(part.strip() for part in section_name.split(":::") if part.strip())


def _split_name(split: str) -> str:
    name = next((name for name, words in SPLIT_WORDS.items() if split in words), None)
    if name is None:
        raise ValueError(f"{TASK}: no split {split!r}; there are {', '.join(SPLIT_WORDS)}")
    return name


def _hub_records(split: str) -> Records:
    # Takes seconds to import, and local files need none of it.
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        rows = load_dataset(HUB_DATASET, revision=HUB_REVISION, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        reason = _one_line(f"{type(error).__name__}: {error}")
        raise ValueError(
            f"{TASK}: cannot get {HUB_DATASET} ({HUB_REVISION}) from the Hub ({reason}); "
            "name a local file or folder as its source"
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{HUB_DATASET} on the Hub, split {split}, row {number}", row


def _local_records(source: Path, split: str) -> Records:
    if not source.exists():
        raise ValueError(f"{source}: no such file or folder")
    paths = _split_files(source, split) if source.is_dir() else [source]
    for path in paths:
        if path.suffix.lower() not in _SUFFIXES:
            raise ValueError(f"{path}: should be a file that ends in {', '.join(_SUFFIXES)}, or a folder of them")
        yield from _parquet_records(path) if path.suffix.lower() == ".parquet" else _text_records(path)


def _split_files(folder: Path, split: str) -> list[Path]:
    """The split's file in a folder, or the parts of it.

    Raises:
        ValueError: there is none, or several that are not parts of one.
    """
    inside = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    shown = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
    found = [path for path in shown if split in _splits_named(path)]
    if not found:
        there = ", ".join(map(str, shown[:5])) or "none"
        raise ValueError(
            f"{folder}: no .json, .jsonl or .parquet file is named after the split {split!r}; found {there}"
        )
    suffixes = {path.suffix.lower() for path in found}
    if len(found) > 1 and (len(suffixes) > 1 or suffixes == {".json"}):
        raise ValueError(f"{folder}: several files of split {split!r}: {', '.join(map(str, found))}; name one of them")
    return [folder / path for path in found]


def _splits_named(path: Path) -> set[str]:
    """The splits a file's name speaks of, or else its folder's."""
    for name in (path.stem, path.parent.name):
        words = set(re.split(r"[^a-z]+", name.lower()))
        if splits := {split for split, names in SPLIT_WORDS.items() if words.intersection(names)}:
            return splits
    return set()


def _parquet_records(path: Path) -> Records:
    import pyarrow
    from pyarrow import parquet

    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read as parquet ({_one_line(str(error))})") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path}, row {number}", row


def _text_records(path: Path) -> Records:
    """The records of a JSON or JSON lines file of either layout."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from error
    if not text.strip():
        raise ValueError(f"{path}: is empty")
    if path.suffix.lower() == ".jsonl":
        return _line_records(text, path)
    try:
        return _json_records(_json(text, str(path)), path)
    except json.JSONDecodeError as error:
        # Many tools write JSON lines under this name as well; then something follows the first value.
        if error.msg == "Extra data":
            return _line_records(text, path)
        raise ValueError(f"{path}, line {error.lineno}: broken JSON: {error.msg} (column {error.colno})") from error


def _json_records(content: Any, path: Path) -> Records:
    if isinstance(content, list):
        yield from ((f"{path}, record {number}", record) for number, record in enumerate(content, start=1))
    elif isinstance(content, dict) and {"id", "qas"} <= content.keys():
        yield f"{path}, record 1", content
    elif isinstance(content, dict):
        for paper_id, paper in content.items():
            yield f"{path}, paper {_shown(paper_id)}", {**paper, "id": paper_id} if isinstance(paper, dict) else paper
    else:
        raise ValueError(f"{path}: should hold an object of papers by id, or a list of papers, it is {_shown(content)}")


def _line_records(text: str, path: Path) -> Records:
    # Not splitlines: it would also split at characters that JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield f"{path}, line {number}", _json(line, f"{path}, line {number}")
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: broken JSON: {error.msg} (column {error.colno})") from error


def _json(text: str, where: str) -> Any:
    """The value in a JSON text.

    Raises:
        JSONDecodeError: it is broken.
        ValueError: Python cannot hold it.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: cannot be read as JSON ({_one_line(str(error))})") from error


def _field(record: Any, key: str, types: tuple[type, ...], where: str) -> Any:
    """A field of a record.

    Raises:
        ValueError: the record is no object, lacks the field, or has another type there.
    """
    if not isinstance(record, dict):
        raise ValueError(f"{where}: should be an object with the field {key!r}, it is {_shown(record)}")
    if key not in record:
        raise ValueError(f"{where}: has no field {key!r}; it has {_one_line(', '.join(map(str, record))) or 'none'}")
    if not isinstance(record[key], types):
        expected = " or ".join(_TYPE_NAMES[kind] for kind in types)
        raise ValueError(f"{where}: {key!r} should be {expected}, it is {_shown(record[key])}")
    return record[key]


def _text(record: Any, key: str, where: str) -> str:
    """A text without the white space around it; null, as some papers have it, is the empty text."""
    text = _field(record, key, (str, NoneType), where) or ""
    if not _encodable(text):
        raise ValueError(f"{where}: {key!r} holds half of a character (a lone surrogate): {_shown(text)}")
    return text.strip()


def _texts(record: Any, key: str, where: str) -> list[str]:
    """A list of texts without the blank ones."""
    items = {str(number): item for number, item in enumerate(_field(record, key, (list,), where), start=1)}
    return [text for number in items if (text := _text(items, number, f"{where}, {key}"))]


def _rows(record: Any, key: str, where: str) -> list[Any]:
    """A list of objects; the Hub's object of equally long lists is turned into one.

    Raises:
        ValueError: the field is neither.
    """
    value = _field(record, key, (list, dict), where)
    if isinstance(value, list):
        return value
    lengths = {name: len(column) if isinstance(column, list) else None for name, column in value.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        raise ValueError(f"{where}: the columns of {key!r} should be lists of one length, they have {lengths}")
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _encodable(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 4 * _SHOWN_CHARACTERS else f"{line[: 4 * _SHOWN_CHARACTERS]}..."


def _shown(value: Any) -> str:
    """A value as JSON, shortened to one line."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
