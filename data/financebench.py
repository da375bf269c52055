"""FinanceBench, questions about companies' filings (Islam et al. 2023): its 150 open questions and their PDFs.

Published are JSON lines of questions and of documents, and a folder ``pdfs`` of filings; the field names here are the
files' own, not those of the published README. Pages count from zero.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from data import reading
from data.errors import DataError
from data.filings import page_texts
from data.sample import Document, Question
from data.task import Loaded, Request, draw
from objectives.accuracy import answer_kind

NAME = "financebench"
VERSION = 1
"""Version of the task's documents and questions: results of different versions do not compare."""

VARIANTS = ("window", "filing", "evidence")
"""What a context is, the default first: pages grown outward from the evidence, the whole filing, the evidence pages.

Whole filings have up to 935,000 characters; where one is longer than a compressor reads, its middle is cut out.
"""

SPLITS = ("test",)
HUB_DATASET = "PatronusAI/financebench"
HUB_SPLIT = "train"
"""The Hub's name of the one split, although the questions are for evaluation."""

QUESTIONS_FILE = "financebench_open_source.jsonl"
DOCUMENTS_FILE = "financebench_document_information.jsonl"

CONTEXT_TOKENS = 8_000
"""Tokens up to which a window grows unless a request says otherwise: six to twelve pages of a filing."""

JUDGE = "judge"
"""The metric of answers that neither a number nor a yes or no decides: a judge's verdict."""

PAGE_BREAK = "\n\n"
"""Separates the pages of a context."""

INSTRUCTION = (
    "Write a short note for a reader who has this question and cannot see the filing. Note what the filing says that "
    "answers the question, with its own names, dates, units and numbers, and every number that has to be computed "
    "with, and nothing else. If the filing does not answer it, say so."
)
ANSWER_INSTRUCTION = (
    "The text above is a note on a company's filing. Answer the question from the note alone, as briefly as possible: "
    "the number alone, in the unit the question asks for; Yes or No and the reason in one sentence; or a short "
    "sentence. If the note does not answer it, say so."
)


@dataclass(frozen=True)
class Evidence:
    """A published passage, the number of its page (from zero), and the whole text of that page."""

    passage: str
    page: int
    page_text: str


@dataclass(frozen=True)
class FilingQuestion:
    """A published question.

    Attributes:
        where: the file and the record, for messages.
        question: the question without its evidence, which depends on the kind of context.
        company: the company that filed the document.
        filing: the document's name, which is its PDF's without the suffix.
        evidence: the passages that the answer rests on.
    """

    where: str
    question: Question
    company: str
    filing: str
    evidence: tuple[Evidence, ...]

    @property
    def pages(self) -> list[int]:
        """The evidence pages, in order."""
        return sorted({evidence.page for evidence in self.evidence})


@dataclass(frozen=True)
class _Context:
    """A context's name, its text, and the passages of the text that hold the answer."""

    name: str
    text: str
    evidence: tuple[str, ...]


def load(request: Request) -> Loaded:
    """The questions with a context each; questions with the same context share a document.

    A document's group is the company, its cluster the filing. The variant ``evidence`` takes the page texts and the
    passages that are published with the questions, and needs no PDF. The others take the text of PDFs, with whole
    evidence pages as passages, and skip questions whose PDF is missing.

    Raises:
        DataError: the variant needs a source and the request has none, or a file cannot be read or is malformed; one
            line that names the file and the record.
    """
    variant, budget = _variant_and_budget(request)
    skipped: Counter[str] = Counter()
    if request.source is None:
        questions = read_questions(reading.hub_records(NAME, HUB_DATASET, HUB_SPLIT), f"{HUB_DATASET} on the Hub")
        return draw(_documents(questions, _published_pages, skipped), skipped, request)
    file = _questions_file(reading.local_path(request.source))
    questions = read_questions(reading.file_records(file), str(file))
    links = read_document_links(file.with_name(DOCUMENTS_FILE), questions, skipped)
    if variant == "evidence":
        return draw(_documents(questions, _published_pages, skipped), skipped, request)
    filings = _Filings(file.with_name("pdfs"), budget, request.count_tokens, skipped)
    present = filings.present(questions, links)
    build = filings.whole if variant == "filing" else filings.window
    return draw(_documents(present, build, skipped), skipped, request)


def read_questions(records: reading.Records, source: str) -> list[FilingQuestion]:
    """The published questions, in order.

    Args:
        records: the records of the questions' file.
        source: the file's name, for messages.

    Raises:
        DataError: there is no question, or a field is missing or of the wrong type, or an id is taken.
    """
    questions: dict[str, FilingQuestion] = {}
    for where, record in records:
        question = _question(record, where)
        if question.question.id in questions:
            raise DataError(
                f"{where}: {question.question.id} is a duplicate of {questions[question.question.id].where}"
            )
        questions[question.question.id] = question
    if not questions:
        raise DataError(f"{source}: has no question")
    return list(questions.values())


def read_document_links(path: Path, questions: Sequence[FilingQuestion], skipped: Counter[str]) -> dict[str, str]:
    """The address of each filing by its name; empty where there is no such file, as only messages need it.

    Raises:
        DataError: the file is malformed.
    """
    links: dict[str, str] = {}
    if not path.exists():
        return links
    for where, record in reading.file_records(path):
        name = reading.required_text(record, "doc_name", where)
        if name in links:
            skipped["document rows with a name that is taken"] += 1
        else:
            links[name] = reading.text(record, "doc_link", where)
    if unlisted := len({question.filing for question in questions} - links.keys()):
        skipped["filings without a document row"] += unlisted
    return links


class _Filings:
    """Contexts from the PDFs of a folder.

    A window whose evidence pages alone are longer than the token budget is kept and counted. Pages without text are
    counted by file.
    """

    def __init__(self, folder: Path, budget: int, count_tokens: Callable[[str], int], skipped: Counter[str]) -> None:
        self.folder = folder
        self.budget = budget
        self.count_tokens = count_tokens
        self.skipped = skipped
        self.texts: dict[str, list[str]] = {}

    def present(self, questions: Sequence[FilingQuestion], links: dict[str, str]) -> list[FilingQuestion]:
        """The questions whose PDF is in the folder; the others are counted.

        Raises:
            DataError: the folder has none of the PDFs.
        """
        present = [question for question in questions if self._pdf(question).is_file()]
        if not present:
            name = questions[0].filing
            origin = f", published at {links[name]}" if links.get(name) else ""
            raise DataError(f"{self.folder}: holds no PDF of the filings asked about, such as {name}.pdf{origin}")
        if missing := len(questions) - len(present):
            self.skipped["questions whose PDF is missing"] += missing
        return present

    def whole(self, question: FilingQuestion) -> _Context:
        """The whole filing."""
        pages = self._pages(question)
        return _Context(question.filing, _joined(pages, range(len(pages))), _page_passages(pages, question.pages))

    def window(self, question: FilingQuestion) -> _Context:
        """The evidence pages and those around them, the nearest first, as far as the budget goes; no page is cut."""
        pages = self._pages(question)
        chosen = question.pages
        tokens_left = self.budget - sum(self.count_tokens(pages[page] + PAGE_BREAK) for page in chosen)
        if tokens_left < 0:
            self.skipped["windows beyond the token budget: evidence pages are never cut"] += 1
        for page in _outward(question.pages, len(pages)):
            tokens_left -= self.count_tokens(pages[page] + PAGE_BREAK)
            if tokens_left < 0:
                break
            chosen = [*chosen, page]
        name = f"{question.filing}/pages {page_ranges(chosen)}"
        return _Context(name, _joined(pages, chosen), _page_passages(pages, question.pages))

    def _pdf(self, question: FilingQuestion) -> Path:
        return self.folder / f"{question.filing}.pdf"

    def _pages(self, question: FilingQuestion) -> list[str]:
        """The text of every page of a question's filing.

        Raises:
            DataError: the PDF cannot be read, or has fewer pages than the evidence needs.
        """
        if question.filing not in self.texts:
            texts = self.texts[question.filing] = page_texts(self._pdf(question))
            if blank := sum(not text for text in texts):
                # A damaged stream leaves its page as empty as a blank one: PDFium says nothing.
                self.skipped[f"pages without text (blank, scanned or damaged) in {self._pdf(question).name}"] += blank
        pages = self.texts[question.filing]
        if question.pages and question.pages[-1] >= len(pages):
            raise DataError(
                f"{question.where}: evidence is on page {question.pages[-1]}, from zero, but {self._pdf(question)} has "
                f"{len(pages)} pages"
            )
        return pages


def page_ranges(pages: Iterable[int]) -> str:
    """Page numbers in order, those that follow each other as a range: ``7,9-12``."""
    ordered = sorted(pages)
    starts = [ordered[0], *(after for before, after in pairwise(ordered) if after > before + 1)]
    ends = [*(before for before, after in pairwise(ordered) if after > before + 1), ordered[-1]]
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)
    )


def _documents(
    questions: Iterable[FilingQuestion], context_of: Callable[[FilingQuestion], _Context], skipped: Counter[str]
) -> list[Document]:
    """A document for each distinct context, with the questions that are asked of it."""
    documents: dict[str, Document] = {}
    for published in questions:
        context = context_of(published)
        if not context.evidence:
            skipped["questions without text on their evidence pages"] += 1
            continue
        question = replace(published.question, evidence=context.evidence)
        document = documents.get(context.name) or Document(
            context.name, NAME, context.text, (), group=published.company, cluster=published.filing
        )
        documents[context.name] = replace(document, questions=(*document.questions, question))
    return list(documents.values())


def _published_pages(question: FilingQuestion) -> _Context:
    """The evidence pages as published with the question."""
    pages = {evidence.page: evidence.page_text for evidence in question.evidence}
    text = PAGE_BREAK.join(pages[page] for page in question.pages)
    passages = tuple(dict.fromkeys(evidence.passage for evidence in question.evidence if evidence.passage in text))
    return _Context(f"{question.filing}/pages {page_ranges(pages)}", text, passages)


def _outward(evidence: Sequence[int], count: int) -> list[int]:
    """The other pages of a filing, the nearest to an evidence page first; of two equally near, the earlier."""
    others = [page for page in range(count) if page not in evidence]
    return sorted(others, key=lambda page: (min(abs(page - cited) for cited in evidence), page))


def _joined(pages: Sequence[str], chosen: Iterable[int]) -> str:
    return PAGE_BREAK.join(pages[page] for page in sorted(chosen) if pages[page])


def _page_passages(pages: Sequence[str], evidence: Sequence[int]) -> tuple[str, ...]:
    return tuple(pages[page] for page in evidence if pages[page])


def _question(record: Any, where: str) -> FilingQuestion:
    """One published question.

    Raises:
        DataError: a field is missing or of the wrong type.
    """
    question_id = reading.required_text(record, "financebench_id", where)
    where = f"{where}, {question_id}"
    filing = reading.required_text(record, "doc_name", where)
    if Path(filing).name != filing:
        raise DataError(f"{where}: 'doc_name' should be the name of a PDF, it is {reading.shown(filing)}")
    answer = reading.required_text(record, "answer", where)
    kind = answer_kind(answer)
    rows = reading.rows(record, "evidence", where)
    if not rows:
        raise DataError(f"{where}: 'evidence' is empty; a question needs some")
    return FilingQuestion(
        where=where,
        question=Question(
            id=question_id,
            text=reading.required_text(record, "question", where),
            answers=(answer,),
            metric=JUDGE if kind == "open" else NAME,
            kind=kind,
        ),
        company=reading.required_text(record, "company", where),
        filing=filing,
        evidence=tuple(_evidence(row, filing, f"{where}, evidence {n}") for n, row in enumerate(rows, start=1)),
    )


def _evidence(row: Any, filing: str, where: str) -> Evidence:
    document_name = reading.required_text(row, "doc_name", where)
    if document_name != filing:
        raise DataError(
            f"{where}: is of {reading.shown(document_name)}, but the question is about {reading.shown(filing)}"
        )
    page = reading.field(row, "evidence_page_num", (int,), where)
    if page < 0:
        raise DataError(f"{where}: 'evidence_page_num' should count pages from zero, it is {page}")
    passage = reading.required_text(row, "evidence_text", where)
    page_text = reading.required_text(row, "evidence_text_full_page", where)
    if passage not in page_text:
        raise DataError(f"{where}: 'evidence_text' does not stand in 'evidence_text_full_page'")
    return Evidence(passage, page, page_text)


def _variant_and_budget(request: Request) -> tuple[str, int]:
    """The variant and the token budget of a request.

    Raises:
        DataError: the variant needs files that are not on the Hub, and no source is named.
    """
    variant = VARIANTS[0] if request.variant is None else request.variant
    budget = CONTEXT_TOKENS if request.context_tokens is None else request.context_tokens
    if request.source is None and variant != "evidence":
        raise DataError(
            f"{NAME}: variant {variant} needs the filings' PDFs, which are not on the Hub; name a folder with "
            f"{QUESTIONS_FILE} and pdfs/ as its source, or take the variant evidence"
        )
    return variant, budget


def _questions_file(source: Path) -> Path:
    """The questions' file: the source itself, or in the folder that the source is.

    Raises:
        DataError: there is no such file.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    file = source / QUESTIONS_FILE if source.is_dir() else source
    if not file.is_file():
        raise DataError(f"{source}: has no {QUESTIONS_FILE}")
    return file
