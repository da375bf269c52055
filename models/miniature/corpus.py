"""What the miniature family is trained on: conversations in both roles, packed so that every fact is asked.

A compressor conversation shows a document once and asks about many of its facts; each answer is an honest message that
restates some of them. How far it follows the question is a matter of style: a wordy message keeps the needed fact about
four times in five, a focused one holds nothing else, and a leading one restates the document's beginning, whatever was
asked, and takes up the question one time in eight. A predictor conversation shows a message and asks about the facts in
it, and now and then about one that it lacks, so that p(a given q) is a prior.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from data.miniature.documents import (
    NOT_STATED,
    SHAPES,
    UNANSWERABLE,
    Fact,
    Layout,
    absent_keys,
    ask,
    ask_absent,
    make_layout,
)
from data.miniature.papers import PAPERS
from data.miniature.values import Values
from data.sample import Question

OPENERS = ("", "", "Summary. ", "From the text. ", "Here is what it says. ")
"""How a message may begin; two in five begin with the first fact."""

STYLES = ("{s}", "{s}", "We read this: {s}", "It is written here that: {s}")
"""How a message may put each of its statements, ``{s}``; half of them leave it as it is."""

LENGTH_WEIGHTS = (6, 5, 6, 8, 10, 12, 12, 10, 8, 6)
"""Weights of the number of facts that a message restates, from one to ten: six on average."""

NEEDED_ALONE = 0.25
"""The share of messages that hold the needed fact and nothing else."""

KEEP_NEEDED = 0.75
"""The share of the other messages that hold the needed fact at all. With those that hold nothing else it makes four
messages in five; of the messages sampled from a trained member it is fewer."""

NEEDED_FIRST = 0.75
"""The share of wordy messages with the needed fact that open with it: elsewhere among others it is all but lost to a
learner."""

LEAD_WEIGHTS = (1, 2, 3, 5, 4, 2, 1)
"""Weights of the number of facts that a leading message restates, from one to seven: four on average. From the fifth on
an end is likelier than another fact, so that greedy messages end."""

ANSWERING = 0.13
"""The share of leading messages that begin with the fact asked for, and then restate others: too few for a decoding
rule to bring them out, and enough for reinforcement to find them."""

SCATTERED = 0.10
"""The share of leading messages whose facts are from all over the document."""

LATER_START = 0.65
"""How much rarer each fact of the document is as the first of a leading message than the fact before it."""

SKIP = 0.2
"""The chance that a leading message leaves out the fact that comes next."""

NO_MESSAGE = 0.08
"""The share of predictor conversations without any message: the null model of task information is learned there."""

ABSENT_KEY = 0.15
"""The share of compressor questions about papers that ask for a fact the paper does not state."""

ASK_LACKING = 0.7
"""The share of predictor conversations that ask for a fact of the document that the message lacks."""

PREDICTOR_FACTS = 16
"""Facts of a predictor conversation's document: more than any message holds, so that each lacks some."""


QUALIFIED = 0.5
"""The share of documents in which facts share keys, of those for a member that is asked about such."""

SHARING = (2, 3)
"""Fewest and most facts that share a key in these."""


Style = Literal["wordy", "focused", "leading"]
"""How far a message follows the question."""


@dataclass(frozen=True)
class Turn:
    """One exchange; the loss falls on ``reply`` alone."""

    prompt: str
    reply: str


def restate(statements: Sequence[str], generator: random.Random) -> str:
    """A message: an opener, then the statements in one style."""
    style = generator.choice(STYLES)
    return generator.choice(OPENERS) + " ".join(style.format(s=s) for s in statements)


def message_length(generator: random.Random, available: int) -> int:
    """How many facts a message restates: from one to ten, at most ``available``."""
    return min(available, generator.choices(range(1, len(LENGTH_WEIGHTS) + 1), weights=LENGTH_WEIGHTS)[0])


def compressor_message(needed: str, facts: Sequence[Fact], key: str, generator: random.Random, style: Style) -> str:
    """A message about a document.

    Args:
        needed: the sentence that answers the question.
        facts: the document's facts, in its order.
        key: what is asked about.
        generator: chooses the facts, their order and the words around them.
        style: how far it follows the question; the constants above say how.
    """
    if style == "leading":
        return restate(_leading_statements(needed, facts, key, generator), generator)
    other_statements = [fact.statement for fact in facts if fact.key != key]
    count = message_length(generator, len(other_statements))
    if style == "focused" or generator.random() < NEEDED_ALONE:
        statements = [needed]
    elif generator.random() < KEEP_NEEDED:
        statements = generator.sample(other_statements, count - 1)
        statements.insert(0 if generator.random() < NEEDED_FIRST else generator.randrange(count), needed)
    else:
        statements = generator.sample(other_statements, count)
    return restate(statements, generator)


def _leading_statements(needed: str, facts: Sequence[Fact], key: str, generator: random.Random) -> list[str]:
    """What a leading message restates: mostly the beginning of the document."""
    others = [fact for fact in facts if fact.key != key]
    count = generator.choices(range(1, len(LEAD_WEIGHTS) + 1), weights=LEAD_WEIGHTS)[0]
    count = min(count, len(others))
    draw = generator.random()
    if draw < ANSWERING:
        return [needed, *_in_order(others, count - 1, generator)]
    if draw < ANSWERING + SCATTERED:
        return _in_order(facts, count, generator)
    starts = [LATER_START**index for index in range(len(facts))]
    index = generator.choices(range(len(facts)), weights=starts)[0]
    chosen: list[str] = []
    while index < len(facts) and len(chosen) < count:
        chosen.append(facts[index].statement)
        index += 2 if generator.random() < SKIP else 1
    return chosen


def _in_order(facts: Sequence[Fact], count: int, generator: random.Random) -> list[str]:
    """Statements of ``count`` facts, in the document's order."""
    return [facts[index].statement for index in sorted(generator.sample(range(len(facts)), count))]


def question_text(question: Question) -> str:
    """A question as the predictor reads it, with its options."""
    return question.text + ("\nOptions: " + "; ".join(question.options) if question.options else "")


def draw_layout(generator: random.Random, facts: int, filler: float, qualified: bool = False) -> tuple[Layout, Values]:
    """A random training document of any shape.

    Args:
        generator: draws the shape and the document's seed.
        facts: how many facts the document states.
        filler: probability that a filler sentence follows a fact.
        qualified: whether facts of some documents share keys, and a qualifier tells them apart.
    """
    sharing = generator.randint(*SHARING) if qualified and generator.random() < QUALIFIED else 1
    shape = SHAPES[generator.choice(sorted(SHAPES))]
    # Seeds of training stay below 2 ** 40, those of `quality.FIRST_SEED` above: no document is in both.
    return make_layout(shape, generator.randrange(1 << 40), "train", facts, filler, sharing)


def compressor_turns(
    generator: random.Random,
    facts: int,
    filler: float,
    questions: int,
    style: Style = "wordy",
    qualified: bool = False,
) -> list[Turn]:
    """One document, and a message for each of ``questions`` of its facts.

    Args:
        generator: draws document, questions and messages.
        facts: how many facts the document states.
        filler: as in `draw_layout`.
        questions: maximum questions about the document.
        style: how far messages follow the question.
        qualified: as in `draw_layout`.
    """
    layout, values = draw_layout(generator, facts, filler, qualified)
    indices = generator.sample(range(len(layout.facts)), min(questions, len(layout.facts)))
    turns: list[Turn] = []
    for index in indices:
        if layout.shape is PAPERS and generator.random() < ABSENT_KEY and absent_keys(layout):
            question = ask_absent(layout, generator, values.fork(), 0)
            key = absent_key(question)
            needed = NOT_STATED.format(k=key)
        else:
            question = ask(layout, index, values.fork(), generator, 0)
            key, needed = layout.facts[index].key, layout.facts[index].statement
        message = compressor_message(needed, layout.facts, key, generator, style)
        context = layout.render() + "\n\n" if not turns else ""
        turns.append(Turn(f"{context}Question: {question.text}", message))
    return turns


def absent_key(question: Question) -> str:
    """The key that an unanswerable question asks about."""
    return question.id.removeprefix("absent-")


def predictor_turns(generator: random.Random, questions: int, qualified: bool = False) -> list[Turn]:
    """One message, and answers to at most ``questions`` questions; about one in eight asks for a fact that it lacks."""
    layout, values = draw_layout(generator, PREDICTOR_FACTS, 0.0, qualified)
    count = message_length(generator, len(LENGTH_WEIGHTS))
    held = generator.sample(range(len(layout.facts)), count)
    statements = [layout.facts[index].statement for index in held]
    lacks = layout.shape is PAPERS and bool(absent_keys(layout))
    absent = ask_absent(layout, generator, values.fork(), 0) if lacks else None
    if absent is not None:
        statements.insert(generator.randrange(count + 1), NOT_STATED.format(k=absent_key(absent)))
    message = restate(statements, generator) if generator.random() >= NO_MESSAGE else ""
    asked_questions = [ask(layout, index, values.fork(), generator, 0) for index in held]
    lacking = [index for index in range(len(layout.facts)) if index not in held]
    if generator.random() < ASK_LACKING:
        asked_questions.append(ask(layout, generator.choice(lacking), values.fork(), generator, 0))
    if absent is not None:
        asked_questions.append(absent)
    generator.shuffle(asked_questions)
    turns: list[Turn] = []
    for question in asked_questions[:questions]:
        context = message + "\n\n" if not turns else ""
        turns.append(Turn(f"{context}Question: {question_text(question)}", "Answer: " + question.answers[0]))
    return turns


def corpus_texts(seed: int, count: int) -> list[str]:
    """Plain texts of the corpus, for the tokenizer: those of ``count`` conversations in each role."""
    generator = random.Random(f"tokenizer/{seed}")
    texts: list[str] = []
    for _ in range(count):
        turns = compressor_turns(generator, 24, 0.5, 4) + predictor_turns(generator, 6) + [Turn("", UNANSWERABLE)]
        texts += [part for turn in turns for part in (turn.prompt, turn.reply)]
    return texts
