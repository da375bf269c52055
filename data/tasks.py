"""The tasks a run can name: where their documents come from and what models are told about them.

The embedded suite is generated without end; a published task is read from its files or from the Hub.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import get_args

from data import miniature, qasper
from data.sample import Document

TWINS = 3
"""Counterfactual twins of each embedded question: its hard negatives."""

SEED_STRIDE = 1_000_000
"""How far the documents of one run's seed are from those of the next: further than a run can count."""


@dataclass(frozen=True)
class Request:
    """Which documents of a task.

    Attributes:
        split: the part of the task.
        source: a local file or folder; None takes the Hub. The embedded suite has none.
        documents: the most documents; None takes all, of which the embedded suite has no end.
        questions_per_document: the most questions of each document; None takes all.
        facts: facts a generated document states; None takes the suite's default.
        seed: draws what is generated, or which documents and questions are taken.
    """

    split: str
    source: str | None = None
    documents: int | None = None
    questions_per_document: int | None = None
    facts: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Loaded:
    """The documents of a task, and how many of what was left out, by reason."""

    documents: list[Document] = field(repr=False)
    skipped: dict[str, int]


@dataclass(frozen=True)
class Task:
    """A kind of documents and questions.

    Attributes:
        name: what a config calls it.
        version: of its documents and questions: results of different versions do not compare.
        instruction: trusted text, what the compressor is told; empty for what the embedded models know by training.
        answer_instruction: trusted text, what the predictor is told.
        load: its documents.
    """

    name: str
    version: int
    instruction: str
    answer_instruction: str
    load: Callable[[Request], Loaded] = field(repr=False)


def load_documents(
    name: str,
    *,
    split: str,
    source: str | None = None,
    documents: int | None = None,
    questions_per_document: int | None = None,
    facts: int | None = None,
    seed: int = 0,
) -> Loaded:
    """Documents of a task with their questions; the same arguments give the same ones.

    Another seed gives other documents of the embedded suite. Where a published task has more documents or questions
    than asked for, the seed draws which are taken; they stay in their order, and the rest is counted as skipped.

    Args:
        name: a key of ``TASKS``.
        split: train or test of the embedded suite; of a published task, a split it has.
        source: a local file or folder in the task's published layout; None takes the Hub.
        documents: the most documents; None takes all. The embedded suite needs a number.
        questions_per_document: the most questions of each document; None takes all.
        facts: facts each generated document states; None takes the suite's default. Embedded suite only.
        seed: of the run.

    Raises:
        ValueError: an argument does not fit the task, or its data cannot be read; one line.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}")
    counts = {"documents": documents, "questions_per_document": questions_per_document, "facts": facts}
    for key, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}: {key} = {count} should be at least 1")
    return TASKS[name].load(Request(split, source, documents, questions_per_document, facts, seed))


def generate(shape: miniature.Shape, request: Request) -> Loaded:
    """Documents of the embedded suite.

    Raises:
        ValueError: a split it does not have, a source, no number of documents, or more facts than the shape can state.
    """
    splits = get_args(miniature.Split)
    facts = miniature.DEFAULT_FACTS if request.facts is None else request.facts
    if request.split not in splits:
        raise ValueError(f"{shape.name}: no split {request.split!r}; there are {' and '.join(splits)}")
    if request.source is not None:
        raise ValueError(f"{shape.name}: source = {request.source!r}, but it is generated and reads nothing")
    if request.documents is None:
        raise ValueError(f"{shape.name}: is generated without end; say how many documents")
    if facts > shape.max_facts:
        raise ValueError(f"{shape.name}: facts = {facts}, but a document states {shape.max_facts} at most")
    asked = facts if request.questions_per_document is None else min(request.questions_per_document, facts)
    documents = miniature.make_documents(
        shape.name,
        request.seed * SEED_STRIDE,
        request.documents,
        "test" if request.split == "test" else "train",
        facts=facts,
        questions=asked,
        twins=TWINS,
    )
    repeated = sum(asked - len(document.questions) for document in documents)
    return Loaded(documents, {"questions asked twice": repeated} if repeated else {})


def read_qasper(request: Request) -> Loaded:
    """Papers of QASPER.

    Raises:
        ValueError: a number of facts, or what ``qasper.load_papers`` refuses.
    """
    if request.facts is not None:
        raise ValueError(f"{qasper.TASK}: facts = {request.facts} sets the length of generated documents; leave it out")
    documents, skipped = qasper.load_papers(request.source, request.split)
    return draw(documents, skipped, request)


def draw(documents: list[Document], skipped: Counter[str], request: Request) -> Loaded:
    """At most as many documents, and questions of each, as asked for: drawn by the seed, left in their order."""
    chosen = _draw(len(documents), request.documents, f"{request.seed}")
    beyond = Counter({"documents beyond the number asked for": len(documents) - len(chosen)})
    drawn = []
    for document in (documents[index] for index in chosen):
        asked = _draw(len(document.questions), request.questions_per_document, f"{request.seed}/{document.id}")
        beyond["questions beyond the number asked for"] += len(document.questions) - len(asked)
        drawn.append(replace(document, questions=tuple(document.questions[index] for index in asked)))
    return Loaded(drawn, dict(skipped + beyond))


def _draw(available: int, wanted: int | None, seed: str) -> list[int]:
    """Which of the available items to take, in their order: all of them where no fewer are wanted."""
    if wanted is None or wanted >= available:
        return list(range(available))
    return sorted(random.Random(seed).sample(range(available), wanted))


TASKS: dict[str, Task] = {
    **{
        shape.name: Task(shape.name, miniature.VERSION, "", "", partial(generate, shape))
        for shape in miniature.SHAPES.values()
    },
    qasper.TASK: Task(
        name=qasper.TASK,
        version=qasper.VERSION,
        instruction=(
            "Write a short note for a reader who has this question and cannot see the paper. Note what the paper says "
            "that answers the question, with its own words, names and numbers, and nothing else. If the paper does not "
            "answer it, say so."
        ),
        answer_instruction=(
            "The text above is a note on a paper. Answer the question from the note alone, as briefly as possible: a "
            "phrase of the note, a short sentence, Yes, No, or Unanswerable where the note does not answer it."
        ),
        load=read_qasper,
    ),
}
"""Every task by name: the shapes of the embedded suite, and the published ones."""
