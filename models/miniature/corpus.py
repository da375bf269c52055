"""What the miniature family is trained on: conversations in both roles, packed so that every fact is asked.

A compressor conversation shows a document once and asks about many of its facts; each answer is an honest but wordy
message that restates several facts and keeps the needed one about two times in three. A predictor conversation shows a
message and asks about the facts in it, and now and then about one that is not there, so that p(a given q) is a prior.
"""

import random
from dataclasses import dataclass

from data.miniature.documents import NOT_STATED, SHAPES, UNANSWERABLE, Fact, Layout, ask, ask_absent, make_layout
from data.miniature.papers import PAPERS
from data.miniature.values import Values
from data.sample import Question

OPENERS = ("", "", "Summary. ", "From the text. ", "Here is what it says. ")
STYLES = ("{s}", "{s}", "We read this: {s}", "It is written here that: {s}")
NEEDED_ALONE = 0.25
"""How often an untrained message holds the fact it was asked for and nothing else."""

KEEP_NEEDED = 0.75
"""How often a wordy one holds it: four messages in five hold it in all; of those sampled from a member, fewer."""

NEEDED_FIRST = 0.75
"""How often it then opens with it; elsewhere among others it is all but lost to a learner."""

NO_MESSAGE = 0.08
"""How often the predictor is asked without any message: the null model of task information."""


@dataclass(frozen=True)
class Turn:
    """One exchange; the loss falls on ``reply`` alone."""

    prompt: str
    reply: str


def restate(statements: list[str], generator: random.Random) -> str:
    """A message: the statements in one wordy style behind an opener."""
    style = generator.choice(STYLES)
    return generator.choice(OPENERS) + " ".join(style.format(s=s) for s in statements)


def message_length(generator: random.Random, available: int) -> int:
    """How many facts an untrained message restates: from one to ten, six on average."""
    return min(available, generator.choices(range(1, 11), weights=(6, 5, 6, 8, 10, 12, 12, 10, 8, 6))[0])


def wordy_message(needed: str, facts: list[Fact], key: str, generator: random.Random, focused: bool) -> str:
    """Several statements, ``needed`` among them with probability ``KEEP_NEEDED``; ``needed`` alone if focused."""
    others = [fact.statement for fact in facts if fact.key != key]
    count = message_length(generator, len(others))
    if focused or generator.random() < NEEDED_ALONE:
        statements = [needed]
    elif generator.random() < KEEP_NEEDED:
        statements = generator.sample(others, count - 1)
        statements.insert(0 if generator.random() < NEEDED_FIRST else generator.randrange(count), needed)
    else:
        statements = generator.sample(others, count)
    return restate(statements, generator)


def question_text(question: Question) -> str:
    """A question as the predictor reads it, with its options."""
    return question.text + ("\nOptions: " + "; ".join(question.options) if question.options else "")


def draw_layout(generator: random.Random, facts: int, filler: float) -> tuple[Layout, Values]:
    """A random training document of any shape."""
    shape = SHAPES[generator.choice(sorted(SHAPES))]
    return make_layout(shape, generator.randrange(1 << 40), "train", facts, filler)


def compressor_turns(
    generator: random.Random, facts: int, filler: float, questions: int, focused: bool = False
) -> list[Turn]:
    """One document and messages for ``questions`` of its facts; focused ones hold nothing but what was asked."""
    layout, values = draw_layout(generator, facts, filler)
    indices = generator.sample(range(len(layout.facts)), min(questions, len(layout.facts)))
    turns = []
    for index in indices:
        if layout.shape is PAPERS and generator.random() < 0.15:
            question = ask_absent(layout, generator, values.fork(), 0)
            key = question.id.removeprefix("absent-")
            needed = NOT_STATED.format(k=key)
        else:
            question = ask(layout, index, values.fork(), generator, 0)
            key, needed = layout.facts[index].key, layout.facts[index].statement
        message = wordy_message(needed, list(layout.facts), key, generator, focused)
        context = layout.render() + "\n\n" if not turns else ""
        turns.append(Turn(f"{context}Question: {question.text}", message))
    return turns


def predictor_turns(generator: random.Random, questions: int) -> list[Turn]:
    """One message and the answers it gives; about one question in eight is about a fact it lacks."""
    layout, values = draw_layout(generator, 16, 0.0)
    count = message_length(generator, 10)
    held = generator.sample(range(len(layout.facts)), count)
    statements = [layout.facts[index].statement for index in held]
    absent = ask_absent(layout, generator, values.fork(), 0) if layout.shape is PAPERS else None
    if absent is not None:
        statements.insert(generator.randrange(count + 1), NOT_STATED.format(k=absent.id.removeprefix("absent-")))
    message = restate(statements, generator) if generator.random() >= NO_MESSAGE else ""
    asked = [ask(layout, index, values.fork(), generator, 0) for index in held]
    lacking = [index for index in range(len(layout.facts)) if index not in held]
    asked += [ask(layout, generator.choice(lacking), values.fork(), generator, 0)] if generator.random() < 0.7 else []
    asked += [absent] if absent is not None else []
    generator.shuffle(asked)
    turns = []
    for question in asked[:questions]:
        context = message + "\n\n" if not turns else ""
        turns.append(Turn(f"{context}Question: {question_text(question)}", "Answer: " + question.answers[0]))
    return turns


def corpus_texts(seed: int, count: int) -> list[str]:
    """Plain texts of the corpus, for the tokenizer."""
    generator = random.Random(f"tokenizer/{seed}")
    texts = []
    for _ in range(count):
        turns = compressor_turns(generator, 24, 0.5, 4) + predictor_turns(generator, 6) + [Turn("", UNANSWERABLE)]
        texts += [part for turn in turns for part in (turn.prompt, turn.reply)]
    return texts
