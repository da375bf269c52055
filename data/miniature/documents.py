"""The embedded five-task suite: seeded documents in natural-looking English whose every fact is known.

Each task mirrors one of the five real ones in shape: patient notes with multiple-choice questions (LongHealth), filings
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
from data.miniature.shape import Relation, Shape
from data.miniature.values import Split, Values, wording
from data.sample import Document, Question

VERSION = 2
"""Version of the documents and questions: the same version and arguments give the same bytes."""

DEFAULT_FACTS = 24
"""Facts that a document states: some 350 to 700 tokens, the longest that `make run` can train on in minutes."""

DEFAULT_FILLER = 0.6
"""Probability that a sentence without a fact follows one that states a fact."""


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

    ``order`` interleaves facts (their index) and filler or section texts.
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
UNANSWERABLE = "Unanswerable"
"""The gold answer where the document does not state what is asked for."""

NOT_STATED = "The {k} is not stated."
"""The message about a key that the document does not state."""

OPEN_QUESTION = "Write a short note about the {k}."
"""The question that asks for a text of its own, which has one right wording so that it can be scored."""

OPEN_ANSWER = "Dear reader, the {k}: {v}. Best wishes."
"""The gold answer to an open question."""


def make_layout(shape: Shape, seed: int, split: Split, facts: int, filler: float) -> tuple[Layout, Values]:
    """Draw a document: which facts, their values and wordings, and the filler between them.

    Args:
        shape: the kind of document.
        seed: tells documents apart; the same arguments give the same document.
        split: ``test`` draws from what is held out.
        facts: how many facts it states; more than ``shape.max_facts`` are that many.
        filler: probability that a filler sentence follows a fact.

    Returns:
        The layout, and the values it has left to draw from.
    """
    generator = random.Random(f"{shape.name}/{split}/{seed}/{facts}")
    values = Values(generator, split)
    title = (values.name(), values.number("title"))
    pairs = [(relation, key) for relation in shape.relations for key in relation.keys]
    chosen = generator.sample(pairs, min(facts, shape.max_facts))
    chosen_facts = tuple(
        Fact(key, values.draw(relation.value, key), relation, wording(relation.document, split, generator))
        for relation, key in chosen
    )
    order: list[int | str] = []
    per_section = max(4, -(-len(chosen_facts) // len(shape.sections)))
    for index in range(len(chosen_facts)):
        if index % per_section == 0:
            order.append("\n" + shape.sections[index // per_section % len(shape.sections)])
        order.append(index)
        if generator.random() < filler:
            order.append(generator.choice(shape.fillers))
    return Layout(shape, split, title, chosen_facts, tuple(order)), values


def options_for(layout: Layout, index: int, values: Values, generator: random.Random) -> tuple[str, ...]:
    """Five options of the fact's type: the right one, others of the same document first."""
    fact = layout.facts[index]
    others = [f.value for i, f in enumerate(layout.facts) if i != index and f.relation.value == fact.relation.value]
    others = generator.sample(others, min(4, len(others)))
    others += [values.draw(fact.relation.value, fact.key) for _ in range(4 - len(others))]
    return tuple(generator.sample([fact.value, *others], 5))


def twin_values(fact: Fact, values: Values, count: int) -> list[str]:
    """Other values the fact could have had: all different; a yes/no fact has only one."""
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
    """What the document could have stated and does not; a yes/no question always has an answer to guess."""
    present = {fact.key for fact in layout.facts}
    return [(r, k) for r in layout.shape.relations for k in r.keys if k not in present and r.value != "yes_no"]


def ask_absent(layout: Layout, generator: random.Random, values: Values, twins: int) -> Question:
    """A question the document does not answer; its twins are documents that do.

    Raises:
        IndexError: the document leaves out nothing that can be asked (see ``absent_keys``).
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
) -> Document:
    """One document with its questions.

    Args:
        task: a key of ``SHAPES``.
        seed: the document; the same arguments give the same document.
        split: ``test`` holds out names, numbers and wordings.
        facts: how many facts the document states; more than the shape's ``max_facts`` are that many.
        filler: probability that a filler sentence follows a fact.
        questions: how many of the facts are asked, all by default. About a tenth of a paper's questions ask for a fact
            it does not state; where two of these are the same, the document has one question fewer.
        twins: counterfactual twins a question; a yes/no question has one.
    """
    layout, values = make_layout(SHAPES[task], seed, split, facts, filler)
    generator = values.generator
    count = len(layout.facts) if questions is None else min(questions, len(layout.facts))
    asked_questions = []
    for index in generator.sample(range(len(layout.facts)), count):
        absent = task == PAPERS.name and generator.random() < 0.1 and bool(absent_keys(layout))
        fork = values.fork()
        asked_questions.append(
            ask_absent(layout, generator, fork, twins) if absent else ask(layout, index, fork, generator, twins)
        )
    unique = {question.id: question for question in asked_questions}
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
) -> list[Document]:
    """``count`` documents of consecutive seeds from ``first_seed`` on; the rest as for ``make_document``."""
    seeds = range(first_seed, first_seed + count)
    return [make_document(task, seed, split, facts, filler, questions, twins) for seed in seeds]
