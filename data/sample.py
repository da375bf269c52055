"""The records every task speaks: documents, their questions, and the (document, question) pairs drawn from them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

UNSCORED = ("judge", "perplexity")
"""Metrics that are no function of an answer and its references: a judge's verdict, the gold answer's perplexity."""


@dataclass(frozen=True)
class Question:
    """One question about a document, with everything needed to score an answer to it.

    Attributes:
        id: unique within its task.
        text: the question as the compressor and the predictor read it.
        answers: gold references; a metric takes the best over them.
        metric: a name in ``objectives.accuracy.METRICS``; or ``judge`` where only a judge can tell, or ``perplexity``
            where the gold answer's perplexity is reported.
        options: multiple-choice options, shown to the predictor and never to the compressor.
        kind: the task's own label of the question type ("span", "yes_no", "numeric", "open", ...).
        evidence: passages of the document that the answer rests on, where the task knows them.
        negatives: hard negative contexts made by the task: the same document with only the facts of the answer changed.
        blind: whether the compressor writes without being told the question.
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

    @property
    def scored(self) -> bool:
        """Whether its metric is one of ``objectives.accuracy.METRICS``."""
        return self.metric not in UNSCORED


@dataclass(frozen=True)
class Document:
    """A long context and the questions asked of it.

    Attributes:
        id: unique within its task.
        task: the name of the task it belongs to.
        text: the context, untrusted text.
        questions: at least one.
        group: documents of one group (patient, company, topic, user) are neighbours, the harder negatives.
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
    def asked(self) -> str:
        """The question as the compressor is told it; empty where it has to write without one."""
        return "" if self.question.blind else self.question.text

    @property
    def cluster(self) -> str:
        """The unit that statistics resample, as its questions are not independent: see `Document`."""
        return self.document.cluster or self.document.id

    @property
    def id(self) -> str:
        """Unique across tasks: task, document and question."""
        return f"{self.document.task}/{self.document.id}/{self.question.id}"


def neighbours(documents: Iterable[Document]) -> dict[tuple[str, str], tuple[str, ...]]:
    """By task and id of each document, the texts of the others of its group (patient, company, paper, user)."""
    distinct = {(document.task, document.id): document for document in documents}
    groups: dict[tuple[str, str], list[Document]] = {}
    for document in distinct.values():
        groups.setdefault((document.task, document.group or document.id), []).append(document)
    return {
        (document.task, document.id): tuple(other.text for other in group if other.id != document.id)
        for group in groups.values()
        for document in group
    }


def samples_of(documents: list[Document]) -> list[Sample]:
    """Every question of every document, in order."""
    return [Sample(document, question) for document in documents for question in document.questions]
