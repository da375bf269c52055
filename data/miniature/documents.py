"""The embedded five-task suite: seeded documents in natural-looking English whose every fact is known.

Each task has the shape of a real one: patient notes with multiple-choice questions (LongHealth), filings
with tables and numeric answers (FinanceBench), papers with span, yes/no and unanswerable questions (QASPER), web pages
with extractive and open tasks (FineWeb), chat sessions with memory questions (WildChat). Every question carries
counterfactual twins of its document: the same text with only the answer-bearing fact changed.
"""

import random
from dataclasses import dataclass, field, replace

from data.miniature.chats import CHATS
from data.miniature.filings import FILINGS
from data.miniature.notes import NOTES
from data.miniature.pages import PAGES
from data.miniature.papers import PAPERS
from data.miniature.shape import Relation, Shape, words
from data.miniature.values import Split, Values, wording
from data.sample import Document, Question

VERSION = 2
"""Version of the documents and questions: the same version and arguments give the same bytes."""

DEFAULT_FACTS = 24
"""Facts that a document states: 350 to 700 tokens, the longest documents that `make run` can train on in minutes."""

DEFAULT_FILLER = 0.6
"""Probability that a sentence without a fact follows one that states a fact: documents are more than lists of facts."""

MIN_SECTION_FACTS = 4
"""Fewest facts under a heading: with fewer, a short document would be mostly headings."""

QUALIFIERS = words("new small large short late main")
"""What tells apart facts about one key, in the documents that have several of them."""

WRONG_OPTIONS = 4
"""Options beside the right one: five in all, as in LongHealth."""

ABSENT_SHARE = 0.1
"""Share of a paper's questions whose answer it does not state: about that of unanswerable questions in QASPER."""


@dataclass(frozen=True)
class Fact:
    """One fact of one document: ``key`` has ``value``, written with ``template``."""

    key: str
    value: str
    relation: Relation = field(repr=False)
    template: str = field(repr=False)

    @property
    def sentence(self) -> str:
        """The fact as the document words it."""
        return self.template.format(k=self.key, v=self.value)

    @property
    def statement(self) -> str:
        """The fact as a message restates it."""
        return self.relation.statement.format(k=self.key, v=self.value)


@dataclass(frozen=True)
class Layout:
    """Everything a document is rendered from, so that a twin differs in one value and in nothing else.

    ``order`` interleaves the indices of facts with filler sentences and headings.
    """

    shape: Shape
    split: Split
    title: tuple[str, str]
    facts: tuple[Fact, ...]
    order: tuple[int | str, ...]

    def render(self) -> str:
        """The document's text."""
        parts = [part if isinstance(part, str) else self.facts[part].sentence for part in self.order]
        return self.shape.header.format(a=self.title[0], b=self.title[1]) + "\n" + self.shape.separator.join(parts)

    def with_value(self, index: int, value: str) -> "Layout":
        """The same layout with one fact's value replaced."""
        facts = list(self.facts)
        facts[index] = replace(facts[index], value=value)
        return replace(self, facts=tuple(facts))


SHAPES: dict[str, Shape] = {shape.name: shape for shape in (NOTES, FILINGS, PAPERS, PAGES, CHATS)}
"""The five kinds of document by the names of their tasks."""

UNANSWERABLE = "Unanswerable"
"""The gold answer to a question about a fact that the document does not state."""

NOT_STATED = "The {k} is not stated."
"""The message about a key that the document does not state."""

OPEN_QUESTION = "Write a short note about the {k}."
"""The question that asks for a short text; one wording of it is right, so that it can be scored."""

OPEN_ANSWER = "Dear reader, the {k}: {v}. Best wishes."
"""The gold answer to an open question."""


def make_layout(
    shape: Shape, seed: int, split: Split, facts: int, filler: float, sharing: int = 1
) -> tuple[Layout, Values]:
    """Draw a document: which facts, their values and wordings, and the filler between them.

    Args:
        shape: the kind of document.
        seed: the document's number; the same arguments give the same document.
        split: ``test`` draws values and wordings that are held out of training.
        facts: the number of facts that the document states, at most ``shape.max_facts``.
        filler: probability that a filler sentence follows a fact.
        sharing: how many facts share a key; from two on a qualifier before it tells them apart, at most one of each of
            ``QUALIFIERS``.

    Returns:
        The layout, and the values that are left to draw from.
    """
    generator = random.Random(f"{shape.name}/{split}/{seed}/{facts}")
    values = Values(generator, split)
    title = (values.name(), values.number("title"))
    facts = min(facts, shape.max_facts)
    pairs = [(relation, key) for relation in shape.relations for key in relation.keys]
    chosen = generator.sample(pairs, -(-facts // sharing))
    if sharing > 1:
        parted = [(r, f"{part} {k}") for r, k in chosen for part in generator.sample(QUALIFIERS, sharing)]
        chosen = generator.sample(parted, facts)
    chosen_facts = tuple(
        Fact(key, values.draw(relation.value, key), relation, wording(relation.document, split, generator))
        for relation, key in chosen
    )
    order: list[int | str] = []
    per_section = max(MIN_SECTION_FACTS, -(-len(chosen_facts) // len(shape.sections)))
    for index in range(len(chosen_facts)):
        if index % per_section == 0:
            order.append("\n" + shape.sections[index // per_section % len(shape.sections)])
        order.append(index)
        if generator.random() < filler:
            order.append(generator.choice(shape.fillers))
    return Layout(shape, split, title, chosen_facts, tuple(order)), values


def options_for(layout: Layout, index: int, values: Values, generator: random.Random) -> tuple[str, ...]:
    """The right option and ``WRONG_OPTIONS`` wrong ones of its type, those of the same document first; shuffled."""
    fact = layout.facts[index]
    wrong = [f.value for i, f in enumerate(layout.facts) if i != index and f.relation.value == fact.relation.value]
    wrong = generator.sample(wrong, min(WRONG_OPTIONS, len(wrong)))
    wrong += [values.draw(fact.relation.value, fact.key) for _ in range(WRONG_OPTIONS - len(wrong))]
    return tuple(generator.sample([fact.value, *wrong], 1 + WRONG_OPTIONS))


def twin_values(fact: Fact, values: Values, count: int) -> list[str]:
    """Other values that the fact could have had, all different; a yes/no fact has only one."""
    if fact.relation.value == "yes_no":
        return ["no" if fact.value == "yes" else "yes"]
    return [values.draw(fact.relation.value, fact.key) for _ in range(count)]


def ask(layout: Layout, index: int, values: Values, generator: random.Random, twins: int) -> Question:
    """The question about one fact of the document, with its counterfactual twins."""
    fact, relation = layout.facts[index], layout.facts[index].relation
    text = wording(relation.questions, layout.split, generator).format(k=fact.key)
    is_open = text == OPEN_QUESTION.format(k=fact.key)
    is_choice = relation.metric == "multiple_choice"
    return Question(
        id=f"{index}-{fact.key}",
        text=text,
        answers=(OPEN_ANSWER.format(k=fact.key, v=fact.value) if is_open else fact.value,),
        metric="exact" if is_open else relation.metric,
        options=options_for(layout, index, values, generator) if is_choice else (),
        kind="open" if is_open else relation.kind,
        evidence=(fact.sentence.strip(),),
        negatives=tuple(layout.with_value(index, value).render() for value in twin_values(fact, values, twins)),
    )


def absent_keys(layout: Layout) -> list[tuple[Relation, str]]:
    """The keys that the document states nothing about, without yes/no ones, whose answers could be guessed.

    Where keys have a qualifier, these are the document's own keys with others.
    """
    present = {fact.key for fact in layout.facts}
    relations = [(relation, key) for relation in layout.shape.relations for key in relation.keys]
    if " " in layout.facts[0].key:
        shared = {key.split()[-1] for key in present}
        relations = [(r, f"{part} {k}") for r, k in relations if k in shared for part in QUALIFIERS]
    return [(relation, key) for relation, key in relations if key not in present and relation.value != "yes_no"]


def ask_absent(layout: Layout, generator: random.Random, values: Values, twins: int) -> Question:
    """A question that the document does not answer; its twins are documents that do.

    Raises:
        IndexError: the document states a fact about every key (see ``absent_keys``).
    """
    relation, key = generator.choice(absent_keys(layout))
    template = wording(relation.document, layout.split, generator)
    negatives = []
    for _ in range(twins):
        fact = Fact(key, values.draw(relation.value, key), relation, template)
        position = generator.randrange(1, len(layout.order))
        order = (*layout.order[:position], len(layout.facts), *layout.order[position:])
        negatives.append(replace(layout, facts=(*layout.facts, fact), order=order).render())
    return Question(
        id=f"absent-{key}",
        text=wording(relation.questions, layout.split, generator).format(k=key),
        answers=(UNANSWERABLE,),
        metric="qasper_f1",
        kind="unanswerable",
        negatives=tuple(negatives),
    )


def make_document(
    task: str,
    seed: int,
    split: Split,
    facts: int = DEFAULT_FACTS,
    filler: float = DEFAULT_FILLER,
    questions: int | None = None,
    twins: int = 3,
    sharing: int = 1,
) -> Document:
    """One document with its questions.

    Args:
        task: a key of ``SHAPES``.
        seed: the document's number; the same arguments give the same document.
        split: ``test`` draws names, numbers and wordings that are held out of training.
        facts: the number of facts that the document states, at most the shape's ``max_facts``.
        filler: probability that a filler sentence follows a fact.
        questions: the number of questions, at most one a fact; None asks about every fact. About ``ABSENT_SHARE`` of a
            paper's questions ask for a fact it does not state; where two of these are the same, it has one question
            fewer.
        twins: counterfactual twins of a question; a yes/no question has one.
        sharing: as for ``make_layout``.
    """
    layout, values = make_layout(SHAPES[task], seed, split, facts, filler, sharing)
    generator = values.generator
    count = len(layout.facts) if questions is None else min(questions, len(layout.facts))
    document_questions = []
    for index in generator.sample(range(len(layout.facts)), count):
        absent = task == PAPERS.name and generator.random() < ABSENT_SHARE and bool(absent_keys(layout))
        fork = values.fork()
        document_questions.append(
            ask_absent(layout, generator, fork, twins) if absent else ask(layout, index, fork, generator, twins)
        )
    unique = {question.id: question for question in document_questions}
    return Document(f"{split}-{seed}", task, layout.render(), tuple(unique.values()), group=f"{split}-{seed}")


def make_documents(
    task: str,
    first_seed: int,
    count: int,
    split: Split,
    facts: int = DEFAULT_FACTS,
    filler: float = DEFAULT_FILLER,
    questions: int | None = None,
    twins: int = 3,
    sharing: int = 1,
) -> list[Document]:
    """``count`` documents of consecutive seeds from ``first_seed`` on; the rest as for ``make_document``."""
    seeds = range(first_seed, first_seed + count)
    return [make_document(task, seed, split, facts, filler, questions, twins, sharing) for seed in seeds]
