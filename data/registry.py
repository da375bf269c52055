"""The tasks a run can name: where their documents come from and what models are told about them.

The embedded suite is generated without end; a published task is read from its files or from the Hub.
"""

from collections.abc import Callable
from functools import partial

from data import financebench, fineweb, longhealth, qasper, wildchat
from data.miniature import documents as miniature
from data.miniature.task import generate
from data.qasper import read_qasper
from data.task import Loaded, Request, Task, estimated_tokens


def load_documents(
    name: str,
    *,
    split: str,
    source: str | None = None,
    documents: int | None = None,
    questions_per_document: int | None = None,
    facts: int | None = None,
    seed: int = 0,
    variant: str | None = None,
    context_tokens: int | None = None,
    count_tokens: Callable[[str], int] = estimated_tokens,
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
        variant: the protocol of a task that has several; None takes its first.
        context_tokens: how long contexts are made that a task puts together from parts; None takes its default.
        count_tokens: how long a text is.

    Raises:
        ValueError: an argument does not fit the task, or its data cannot be read; one line.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(TASKS)}")
    counts = {
        "documents": documents,
        "questions_per_document": questions_per_document,
        "facts": facts,
        "context_tokens": context_tokens,
    }
    for key, count in counts.items():
        if count is not None and count < 1:
            raise ValueError(f"{name}: {key} = {count} should be at least 1")
    task = TASKS[name]
    if facts is not None and name not in miniature.SHAPES:
        raise ValueError(f"{name}: facts = {facts} sets the length of generated documents; leave it out")
    if variant is not None and variant not in task.variants:
        there = ", ".join(task.variants) or "none"
        raise ValueError(f"{name}: no variant {variant!r}; there are {there}")
    return task.load(
        Request(split, source, documents, questions_per_document, facts, seed, variant, context_tokens, count_tokens)
    )


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
    **{
        task.NAME: Task(task.NAME, task.VERSION, task.INSTRUCTION, task.ANSWER_INSTRUCTION, task.load, task.VARIANTS)
        for task in (longhealth, financebench, fineweb, wildchat)
    },
}
"""Every task by name: the shapes of the embedded suite, and the published ones."""
