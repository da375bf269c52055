"""A task: what a run requests of it, what it gives back, and how a seed draws some of its documents and questions."""

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from data.errors import DataError
from data.sample import Document

CHARACTERS_PER_TOKEN = 4
"""Average characters of a token of English text: near what the common tokenizers come to."""


def estimated_tokens(text: str) -> int:
    """The approximate tokens of an English text, where no tokenizer is at hand."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


@dataclass(frozen=True)
class Request:
    """Which documents of a task to load; the same request gives the same documents.

    Attributes:
        split: the part of the task: train or test of the embedded suite, a split that a published task has.
        source: a local file or folder in the task's published layout; None takes the Hub. The embedded suite has none.
        documents: the most documents; None takes all. The embedded suite, which is generated without limit, needs a
            number.
        questions_per_document: the most questions of each document; None takes all.
        facts: facts that a generated document states; None takes the suite's default.
        seed: decides what is generated, or, where a published task has more than is requested, which documents and
            questions are taken.
        variant: the protocol of a task that has several; None takes its first.
        context_tokens: the longest context, in tokens: tasks put contexts together up to it, or leave longer ones out;
            None takes the task's default.
        columns: names of fields in the source by the names that a record has; for the task ``records`` alone.
        metric: the metric of every answer; None takes the task's own. For the task ``records`` alone.
        count_tokens: gives the length of a text in tokens.
    """

    split: str
    source: str | None = None
    documents: int | None = None
    questions_per_document: int | None = None
    facts: int | None = None
    seed: int = 0
    variant: str | None = None
    context_tokens: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    metric: str | None = None
    count_tokens: Callable[[str], int] = field(default=estimated_tokens, repr=False)

    def check(self, task: "Task") -> None:
        """Refuse what the task cannot give.

        Raises:
            DataError: a count below 1, a split or variant that the task does not have, facts of documents that are not
                generated, or columns or a metric for another task than ``records``.
        """
        for key in ("documents", "questions_per_document", "facts", "context_tokens"):
            count = getattr(self, key)
            if count is not None and count < 1:
                raise DataError(f"{task.name}: {key} = {count} should be at least 1")
        if self.facts is not None and not task.generated:
            raise DataError(f"{task.name}: facts = {self.facts} sets the length of generated documents; leave it out")
        for key in ("columns", "metric"):
            if getattr(self, key) and not task.mapped:
                raise DataError(f"{task.name}: {key} = {getattr(self, key)!r} is read by the task records only")
        if self.variant is not None and self.variant not in task.variants:
            known = ", ".join(task.variants) or "none"
            raise DataError(f"{task.name}: no variant {self.variant!r}; there are {known}")
        if task.splits and self.split not in task.splits:
            raise DataError(f"{task.name}: no split {self.split!r}; there is {' and '.join(task.splits)}")


@dataclass(frozen=True)
class Loaded:
    """The documents of a task, and how many things were left out, by reason."""

    documents: list[Document] = field(repr=False)
    skipped: dict[str, int]


@dataclass(frozen=True)
class Task:
    """A kind of documents and questions.

    Attributes:
        name: the task's name in a configuration.
        version: the version of its documents and questions: results of different versions do not compare.
        instruction: trusted text that tells the compressor what to write; empty for the embedded models, which know it
            by training.
        answer_instruction: trusted text that tells the predictor how to answer.
        load: gives the documents of a request that was checked.
        variants: the names of its protocols, the default first; empty where there is only one.
        splits: the names of its splits; empty where the source decides.
        generated: whether documents are generated, without a source.
        mapped: whether a request may name the source's columns and the metric.
    """

    name: str
    version: int
    instruction: str
    answer_instruction: str
    load: Callable[[Request], Loaded] = field(repr=False)
    variants: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    generated: bool = False
    mapped: bool = False


def draw(documents: list[Document], skipped: Counter[str], request: Request) -> Loaded:
    """At most as many documents, and questions of each, as are requested: drawn by the seed, kept in their order."""
    chosen = _draw(len(documents), request.documents, f"{request.seed}")
    surplus = Counter({"documents beyond the number asked for": len(documents) - len(chosen)})
    kept = []
    for document in (documents[index] for index in chosen):
        questions = _draw(len(document.questions), request.questions_per_document, f"{request.seed}/{document.id}")
        surplus["questions beyond the number asked for"] += len(document.questions) - len(questions)
        kept.append(replace(document, questions=tuple(document.questions[index] for index in questions)))
    return Loaded(kept, dict(skipped + surplus))


def _draw(available: int, most: int | None, seed: str) -> list[int]:
    """The indices of at most ``most`` of the available items, in their order; None takes all of them."""
    if most is None or most >= available:
        return list(range(available))
    return sorted(random.Random(seed).sample(range(available), most))
