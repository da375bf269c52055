"""What every task gives: documents with their questions, and samples, each of which is one question of a document."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

UNSCORED = ("judge", "perplexity")
"""Metrics that an answer and its references do not decide: a judge's verdict, and the gold answer's perplexity."""


@dataclass(frozen=True)
class Question:
    """One question about a document, with everything needed to score an answer to it.

    Attributes:
        id: unique within its task.
        text: the question as the compressor and the predictor read it.
        answers: gold references; a metric takes the best over them.
        metric: a name in ``objectives.accuracy.METRICS``; or ``judge`` where only a judge can tell, or ``perplexity``
            where the perplexity of the gold answer is reported.
        options: multiple-choice options, shown to the predictor and never to the compressor.
        kind: the task's own label of the question type ("span", "yes_no", "numeric", "open", ...).
        evidence: passages of the document that the answer rests on, where the task knows them.
        negatives: hard negative contexts made by the task: the same document with only the facts of the answer changed.
        blind: whether the compressor writes without being told the question.
        together: the texts of the questions that the compressor is told at once, this one among them; empty where it is
            told this one alone.
    """

    id: str
    text: str
    answers: tuple[str, ...]
    metric: str
    options: tuple[str, ...] = ()
    kind: str = ""
    evidence: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    blind: bool = False
    together: tuple[str, ...] = ()

    @property
    def scored(self) -> bool:
        """Whether the metric is one of ``objectives.accuracy.METRICS``."""
        return self.metric not in UNSCORED


@dataclass(frozen=True)
class Document:
    """A long context and the questions about it.

    Attributes:
        id: unique within its task.
        task: the name of the task it belongs to.
        text: the context, untrusted text.
        questions: at least one.
        group: the patient, company, topic or user; documents of one group are neighbours, which are harder negatives.
        cluster: the unit that statistics resample, since questions of one patient, filing or user are not independent;
            empty where the document is a cluster by itself.
        parts: pieces of the text that are compressed one by one, and whose messages are joined; empty where the text is
            compressed in one piece.
    """

    id: str
    task: str
    text: str
    questions: tuple[Question, ...]
    group: str = ""
    cluster: str = ""
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One question of one document: the unit of training and of evaluation."""

    document: Document = field(repr=False)
    question: Question

    @property
    def compressor_question(self) -> str:
        """What the compressor is told to answer, a line a question; empty where it writes without any."""
        if self.question.blind:
            return ""
        return "\n".join(self.question.together) or self.question.text

    @property
    def message_id(self) -> str:
        """The same for all questions of a document that one message is written for."""
        if self.question.blind or self.question.together:
            return f"{self.document.task}/{self.document.id}/{self.compressor_question}"
        return self.id

    @property
    def cluster(self) -> str:
        """The unit that statistics resample, as its questions are not independent: see `Document`."""
        return self.document.cluster or self.document.id

    @property
    def id(self) -> str:
        """Unique across tasks: task, document and question."""
        return f"{self.document.task}/{self.document.id}/{self.question.id}"


def without_questions(document: Document) -> Document:
    """The document with questions that the compressor is not told."""
    return replace(document, questions=tuple(replace(question, blind=True) for question in document.questions))


def with_questions_together(document: Document, count: int) -> Document:
    """The document with questions of which the compressor is told so many at once, in their order; fewer at the end."""
    texts = [question.text for question in document.questions]
    groups = [tuple(texts[start : start + count]) for start in range(0, len(texts), count)]
    told = [replace(question, together=groups[place // count]) for place, question in enumerate(document.questions)]
    return replace(document, questions=tuple(told))


def neighbours(documents: Iterable[Document]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Texts of the other documents in each document's group (patient, company, paper, user), by task and id."""
    distinct = {(document.task, document.id): document for document in documents}
    groups: dict[tuple[str, str], list[Document]] = {}
    for document in distinct.values():
        groups.setdefault((document.task, document.group or document.id), []).append(document)
    return {
        (document.task, document.id): tuple(neighbour.text for neighbour in group if neighbour.id != document.id)
        for group in groups.values()
        for document in group
    }


def samples_of(documents: list[Document]) -> list[Sample]:
    """Every question of every document, in order."""
    return [Sample(document, question) for document in documents for question in document.questions]
