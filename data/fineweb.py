"""FineWeb, long web pages (Penedo et al. 2024): pages for a writer model, and pages with the questions it wrote.

The data set has no questions. ``pages`` reads it as published, ``python -m eval.synthesise`` has questions written, and
``load`` reads the synthesised set, which holds the pages as well.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from data import reading
from data.errors import DataError
from data.sample import Document, Question
from data.task import Loaded, Request, draw, estimated_tokens
from data.written_questions import Material, Synthetic, evidence, read_rows, skipped_of

NAME = "fineweb"
VERSION = 1
"""Version of the task's documents and questions: results of different versions do not compare."""

VARIANTS: tuple[str, ...] = ()
SPLITS: tuple[str, ...] = ()
INSTRUCTION = (
    "Write a short note on this page for a reader who cannot see it and will have to answer questions about it, or "
    "write about its subject, from the note alone. You do not know what will be asked: note what the page says in "
    "particular, with its own words, names and numbers, the most important first, and nothing else."
)
ANSWER_INSTRUCTION = (
    "The text above is a note on a web page. Do what is asked from the note alone. Where a question asks for a fact, "
    "answer with a phrase or a sentence of the page and nothing else; where a text is asked for, write that text alone."
)

HUB_DATASET = "HuggingFaceFW/fineweb"
HUB_SUBSET = "sample-10BT"
"""The smallest published sample; it is streamed, since pages as long as the study's are rare."""

MIN_TOKENS = 15_000
"""Shortest page of the study, in tokens of the data set's own count."""

MAX_TOKENS = 28_000
"""Longest page of the study, in tokens of the data set's own count."""

_ORIGIN_FIELDS = ("url", "dump", "date", "file_path", "language")


def pages(
    source: str | None,
    skipped: Counter[str],
    min_tokens: int = MIN_TOKENS,
    max_tokens: int = MAX_TOKENS,
) -> Iterator[Material]:
    """Pages within the limits of length, each once, as they are read.

    A page's length is its ``token_count`` (GPT-2's tokens), or an estimate where it has none.

    Args:
        source: a .json, .jsonl or .parquet file, or a folder of them, with ``text`` and the other published fields at
            the top or under ``metadata``; None streams ``sample-10BT`` from the Hub.
        skipped: counts what is left out, by reason.
        min_tokens: tokens of the shortest page.
        max_tokens: tokens of the longest page.

    Raises:
        DataError: the source cannot be read, or a record is malformed; one line that names the file and the record.
    """
    seen: set[str] = set()
    for where, record in reading.published_records(NAME, source, HUB_DATASET, HUB_SUBSET):
        page, tokens = read_page(record, where)
        if not page.texts:
            skipped["pages without text"] += 1
        elif tokens < min_tokens:
            skipped[f"pages below {min_tokens} tokens"] += 1
        elif tokens > max_tokens:
            skipped[f"pages above {max_tokens} tokens"] += 1
        elif page.id in seen:
            skipped["duplicate pages"] += 1
        else:
            seen.add(page.id)
            yield page


def read_page(record: Any, where: str) -> tuple[Material, int]:
    """A published page and its length in tokens; a page without an id gets one from its content.

    Raises:
        DataError: a field is missing or of the wrong type; one line that begins with ``where``.
    """
    page_text = reading.text(record, "text", where)
    fields = {**(reading.optional(record, "metadata", dict, where) or {}), **record}
    origin = {key: value for key in _ORIGIN_FIELDS if (value := reading.optional(fields, key, str, where))}
    tokens = reading.optional(fields, "token_count", int, where)
    page = Material(
        task=NAME,
        id=reading.optional(fields, "id", str, where) or reading.content_id(page_text),
        texts=(page_text,) if page_text else (),
        origin=origin,
    )
    return page, estimated_tokens(page_text) if tokens is None else tokens


def load(request: Request) -> Loaded:
    """Pages with the questions that were written for them; pages longer than ``context_tokens`` are left out.

    Raises:
        DataError: no source, or a source that is no synthesised set of pages; one line that names the file and the
            record.
    """
    documents, skipped = [], Counter[str]()
    for where, row in read_rows(NAME, request):
        skipped += skipped_of(row, "pages")
        if len(row.material.texts) != 1:
            raise DataError(f"{where}: 'texts' should hold one page, it holds {len(row.material.texts)}")
        [page_text] = row.material.texts
        if not row.questions:
            continue
        if request.context_tokens is not None and request.count_tokens(page_text) > request.context_tokens:
            skipped["pages longer than the context asked for"] += 1
            continue
        questions = tuple(
            _question(written, number, page_text) for number, written in enumerate(row.questions, start=1)
        )
        documents.append(Document(id=row.material.id, task=NAME, text=page_text, questions=questions))
    if not documents:
        raise DataError(f"{request.source}: has no page with a question and of a length that can be used")
    return draw(documents, skipped, request)


def _question(written: Synthetic, number: int, page_text: str) -> Question:
    extractive = written.kind == "extractive"
    return Question(
        id=f"{number}-{written.kind}",
        text=written.question,
        answers=(written.answer,),
        metric="perplexity",
        kind="extractive" if extractive else "creative",
        evidence=evidence(written.answer, (page_text,)) if extractive else (),
        blind=True,
    )
