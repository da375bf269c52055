"""QASPER, questions about NLP papers (Dasigi et al. 2021), in both published layouts, from files or from the Hub.

The official layout is one JSON object of papers by id; the Hub's is one row a paper whose nested lists are columns, as
JSON lines, JSON or parquet. References follow the official evaluator, ``allenai/qasper-led-baseline``.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from data import reading
from data.errors import DataError
from data.sample import Document, Question
from data.task import Loaded, Request, draw

NAME = "qasper"
VERSION = 1
"""Version of the task's documents and questions: results of different versions do not compare."""

VARIANTS: tuple[str, ...] = ()
SPLITS: tuple[str, ...] = ()
"""Any split that a file or the Hub names: see `data.reading.split_name`."""

INSTRUCTION = (
    "Write a short note for a reader who has this question and cannot see the paper. Note what the paper says "
    "that answers the question, with its own words, names and numbers, and nothing else. If the paper does not "
    "answer it, say so."
)
ANSWER_INSTRUCTION = (
    "The text above is a note on a paper. Answer the question from the note alone, as briefly as possible: a "
    "phrase of the note, a short sentence, Yes, No, or Unanswerable where the note does not answer it."
)

HUB_DATASET = "allenai/qasper"
HUB_REVISION = "refs/convert/parquet"
"""The Hub's conversion to parquet: the default branch holds a loading script, which `datasets` no longer runs."""

UNANSWERABLE = "Unanswerable"
"""The reference where a paper holds no answer, in the official evaluator's word."""

FLOAT_MARK = "FLOAT SELECTED"
"""What evidence begins with that is a figure or a table, as published."""


@dataclass(frozen=True)
class Reference:
    """One annotator's answer.

    Attributes:
        text: the answer as the official evaluator compares it.
        kind: the evaluator's name of the answer's type: none (unanswerable), extractive, abstractive or boolean.
        evidence: the passages that the answer rests on, figures and tables among them.
    """

    text: str
    kind: str
    evidence: tuple[str, ...]


def load(request: Request) -> Loaded:
    """Papers of a split with their questions.

    Raises:
        DataError: the source cannot be read: see `load_papers`.
    """
    documents, skipped = load_papers(request.source, request.split)
    return draw(documents, skipped, request)


def load_papers(source: str | None, split: str) -> tuple[list[Document], Counter[str]]:
    """Every paper of a split that has an answered question, in the source's order.

    A file is read whole, whatever the split, since neither layout names it. In a folder and its sub-folders the
    split's file is the .json, .jsonl or .parquet whose name has the split among its words, or else whose folder's name
    has: ``qasper-train-v0.3.json``, ``train.jsonl``, ``train-00000-of-00002.parquet``, ``train/0000.parquet``. ``dev``,
    ``val`` and ``valid`` mean validation. Several .jsonl or several .parquet files are the parts of one.

    Args:
        source: a file or a folder; None takes the Hub, which needs network or a copy in its cache.
        split: train, validation (or dev) or test.

    Returns:
        The documents, and how many things were left out, by reason.

    Raises:
        DataError: the split or the source is unknown or cannot be read, or a record is malformed; one line that names
            the file and the record.
    """
    split = reading.split_name(NAME, split)
    where = f"{HUB_DATASET} on the Hub, split {split}" if source is None else source
    if source is None:
        records = reading.hub_records(NAME, HUB_DATASET, split, revision=HUB_REVISION)
    else:
        records = reading.local_records(reading.local_path(source), split, _json_records)
    documents: dict[str, Document] = {}
    skipped: Counter[str] = Counter()
    papers: dict[str, str] = {}
    for where, record in records:
        paper_id = reading.text(record, "id", where)
        if paper_id in papers:
            raise DataError(f"{where}: paper {reading.shown(paper_id)} is a duplicate of {papers[paper_id]}")
        papers[paper_id] = where
        document = paper_document(record, where, skipped)
        if document is not None:
            documents[paper_id] = document
    if not documents:
        raise DataError(f"{where}: has no paper with text and an answered question, of {len(papers)} papers")
    return list(documents.values()), skipped


def paper_document(record: Any, where: str, skipped: Counter[str]) -> Document | None:
    """One paper with its answered questions, or None where it has no text or no such question.

    Args:
        record: a row of the Hub's layout, or a paper of the official one with its ``id`` added.
        where: the file and the record, for messages.
        skipped: counts what is left out, by reason.

    Raises:
        DataError: a field is missing or of the wrong type.
    """
    paper_id = reading.text(record, "id", where)
    if not paper_id:
        raise DataError(f"{where}: 'id' is empty; a paper needs one")
    if reading.shown(paper_id) not in where:
        where = f"{where}, paper {reading.shown(paper_id)}"
    text = paper_text(record, where)
    questions: dict[str, Question] = {}
    for number, published in enumerate(reading.rows(record, "qas", where), start=1):
        question = _question(published, text, f"{where}, question {number}", skipped)
        if question is not None and question.id in questions:
            skipped["questions with an id that is taken"] += 1
        elif question is not None:
            questions[question.id] = question
    if not text or not questions:
        skipped["papers without text" if not text else "papers without questions"] += 1
        return None
    return Document(paper_id, NAME, text, tuple(questions.values()), group=paper_id)


def paper_text(record: Any, where: str) -> str:
    """Title, abstract and sections, a blank line between them and a line for each paragraph.

    A nested section's name shows its path: ``Experiments ::: Dataset`` reads ``Experiments > Dataset``.

    Raises:
        DataError: a field is missing or of the wrong type.
    """
    abstract = reading.text(record, "abstract", where)
    blocks = [reading.text(record, "title", where), f"Abstract\n{abstract}" if abstract else ""]
    for number, section in enumerate(reading.rows(record, "full_text", where), start=1):
        section_where = f"{where}, section {number}"
        heading = _heading(reading.text(section, "section_name", section_where))
        lines = [heading, *reading.texts(section, "paragraphs", section_where)]
        blocks.append("\n".join(line for line in lines if line))
    return "\n\n".join(block for block in blocks if block)


def reference(answer: Any, where: str) -> Reference | None:
    """An annotation's answer by the official precedence (unanswerable, spans, free form, yes or no); None without any.

    Raises:
        DataError: a field is missing or of the wrong type.
    """
    unanswerable = reading.field(answer, "unanswerable", (bool,), where)
    spans = reading.texts(answer, "extractive_spans", where)
    free_form = reading.text(answer, "free_form_answer", where)
    yes_no = reading.field(answer, "yes_no", (bool, NoneType), where)
    evidence = tuple(reading.texts(answer, "evidence", where))
    if unanswerable:
        return Reference(UNANSWERABLE, "none", ())
    if spans:
        return Reference(", ".join(spans), "extractive", evidence)
    if free_form:
        return Reference(free_form, "abstractive", evidence)
    return None if yes_no is None else Reference("Yes" if yes_no else "No", "boolean", evidence)


def _question(published: Any, text: str, where: str, skipped: Counter[str]) -> Question | None:
    """One question with the references of all its annotators; None where there are none."""
    question_id, question = reading.text(published, "question_id", where), reading.text(published, "question", where)
    references = []
    for number, annotation in enumerate(reading.rows(published, "answers", where), start=1):
        answer_where = f"{where}, answer {number}"
        annotated = reference(reading.field(annotation, "answer", (dict,), answer_where), answer_where)
        if annotated is None:
            skipped["annotations without an answer"] += 1
        else:
            references.append(annotated)
    if not question or not references:
        skipped["questions without text" if not question else "questions without answers"] += 1
        return None
    return Question(
        id=question_id,
        text=question,
        answers=tuple(dict.fromkeys(annotated.text for annotated in references)),
        metric="qasper_f1",
        kind=references[0].kind,
        evidence=_evidence(references, text, skipped),
    )


def _evidence(references: Sequence[Reference], text: str, skipped: Counter[str]) -> tuple[str, ...]:
    """Every annotator's passages that are in the text; figures and tables are not."""
    passages = []
    for passage in dict.fromkeys(passage for answer in references for passage in answer.evidence):
        # Annotators marked section names as well, which the text has as headings.
        as_in_text = next((form for form in (passage, _heading(passage)) if form and form in text), None)
        if FLOAT_MARK in passage:
            skipped["evidence in figures and tables"] += 1
        elif as_in_text is None:
            skipped["evidence that is not in the text"] += 1
        else:
            passages.append(as_in_text)
    return tuple(passages)


def _heading(section_name: str) -> str:
    return " > ".join(part.strip() for part in section_name.split(":::") if part.strip())


def _json_records(content: Any, path: Path) -> reading.Records:
    """The papers of a JSON file of either layout."""
    if isinstance(content, list):
        yield from reading.listed_records(content, path)
    elif isinstance(content, dict) and {"id", "qas"} <= content.keys():
        yield f"{path}, record 1", content
    elif isinstance(content, dict):
        for paper_id, paper in content.items():
            where = f"{path}, paper {reading.shown(paper_id)}"
            yield where, {**paper, "id": paper_id} if isinstance(paper, dict) else paper
    else:
        raise DataError(
            f"{path}: should hold an object of papers by id, or a list of papers, it is {reading.shown(content)}"
        )
