"""What the family's scorer is trained on: every kind of text that an evaluation scores, each after its document.

A scorer has to tell whose document a message is about, whatever wrote the message. One that has seen a compressor's
statements alone gives a sentence quoted from the document, or the document itself, less than it carries. So its corpus
holds statements, quoted sentences, beginnings, ends and whole documents alike.
"""

import random
from collections.abc import Callable

from data.miniature.documents import Layout, ask
from models.miniature.corpus import Style, Turn, compressor_message, draw_layout

MOST_QUOTED = 6
"""The most sentences in a quotation."""

GAP = " ... "
"""What stands where a baseline cut out the middle of a text (``eval.baselines.writers.GAP``)."""

MESSAGE_STYLES: tuple[Style, ...] = ("wordy", "focused", "leading")
"""A message may be of any style that a member learns to write."""


def scorer_turns(generator: random.Random, facts: int, filler: float, texts: int) -> list[Turn]:
    """One document with a question about one of its facts, and ``texts`` texts about it, each in a turn of its own.

    Args:
        generator: draws document, questions and texts.
        facts: how many facts the document states.
        filler: as in `data.miniature.documents.make_layout`.
        texts: turns; the last of them may be the whole document.
    """
    layout, values = draw_layout(generator, facts, filler)
    turns: list[Turn] = []
    for index in range(texts):
        asked = generator.randrange(len(layout.facts))
        question = ask(layout, asked, values.fork(), generator, 0)
        kinds = [*SHORT, *LONG] if index == texts - 1 else SHORT
        context = layout.render() + "\n\n" if not turns else ""
        turns.append(Turn(f"{context}Question: {question.text}", generator.choice(kinds)(layout, asked, generator)))
    return turns


def _statements(layout: Layout, asked: int, generator: random.Random) -> str:
    """A message of a compressor, of any kind."""
    fact = layout.facts[asked]
    return compressor_message(fact.statement, layout.facts, fact.key, generator, generator.choice(MESSAGE_STYLES))


def _evidence(layout: Layout, asked: int, generator: random.Random) -> str:
    """The sentence that answers, as the document has it."""
    return layout.facts[asked].sentence.strip()


def _quotation(layout: Layout, asked: int, generator: random.Random) -> str:
    """Sentences of the document in its order, one after another or from all over it."""
    sentences = [
        part.strip() if isinstance(part, str) else layout.facts[part].sentence.strip() for part in layout.order
    ]
    count = min(generator.randint(1, MOST_QUOTED), len(sentences))
    if generator.random() < 0.5:
        start = generator.randrange(len(sentences) - count + 1)
        chosen = list(range(start, start + count))
    else:
        chosen = sorted(generator.sample(range(len(sentences)), count))
    return " ".join(sentences[index] for index in chosen)


def _beginning(layout: Layout, asked: int, generator: random.Random) -> str:
    """What a cut leaves of the document: its beginning, or its beginning and its end."""
    text = layout.render()
    length = generator.randint(20, max(21, len(text) // 2))
    if generator.random() < 0.5:
        return text[:length].strip()
    return text[: length - length // 2].rstrip() + GAP + text[len(text) - length // 2 :].lstrip()


def _whole(layout: Layout, asked: int, generator: random.Random) -> str:
    """The document."""
    return layout.render()


Text = Callable[[Layout, int, random.Random], str]
"""Makes a text about a document and one of its facts."""

SHORT: tuple[Text, ...] = (_statements, _statements, _evidence, _quotation, _quotation, _beginning)
"""Texts of any turn, each as often as it stands here."""

LONG: tuple[Text, ...] = (_whole, _whole)
"""Texts of a conversation's last turn alone: after a whole document nothing need be looked up any more."""
