"""Where in a document a message came from: the sentences that share most with it, word for word.

Documents are kept in memory for one session, the latest of them, by ids that are drawn at random.
"""

import math
import re
import secrets
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from data.evidence import STEM
from data.sentences import sentences

MOST_DOCUMENTS = 64
"""Documents that are kept."""

MOST_CHARACTERS = 32_000_000
"""Characters that are kept, of all documents together."""

MOST_PASSAGES = 5
"""Passages of one message: it is short, and rests on few sentences."""

LEAST_SHARE = 0.25
"""What a sentence has to share with the message, as a part of what the nearest one shares."""

_WORD = re.compile(r"\w+")

_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]{2,}")
"""Japanese, Chinese and Korean are compared by pairs of letters: words have no spaces, or many endings."""


@dataclass(frozen=True)
class Passage:
    """Neighbouring sentences of a document.

    Attributes:
        start: where it begins in the document, in characters.
        text: the passage, word for word.
    """

    start: int
    text: str


@dataclass(frozen=True)
class _Kept:
    document: str = field(repr=False)
    message: str
    question: str


class Session:
    """What was compressed, so that it can be expanded."""

    def __init__(self, most_documents: int = MOST_DOCUMENTS, most_characters: int = MOST_CHARACTERS) -> None:
        """Nothing is kept yet."""
        self._most_documents, self._most_characters = most_documents, most_characters
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._characters = 0

    def keep(self, document: str, question: str, message: str) -> str:
        """The id of a message; the oldest documents go where there are too many."""
        key = f"m_{secrets.token_hex(6)}"
        self._kept[key] = _Kept(document, message, question)
        self._characters += len(document)
        while len(self._kept) > 1 and (
            len(self._kept) > self._most_documents or self._characters > self._most_characters
        ):
            _, oldest = self._kept.popitem(last=False)
            self._characters -= len(oldest.document)
        return key

    def expand(self, key: str) -> list[Passage]:
        """Where a message came from.

        Raises:
            KeyError: no message of that id is kept.
        """
        kept = self._kept[key]
        return source_passages(kept.document, kept.message) or source_passages(kept.document, kept.question)


def source_passages(document: str, message: str) -> list[Passage]:
    """The sentences of a document that share most with a message, in their order, neighbours joined.

    Sentences are compared by their words' first letters, each word of the message counted by how rare it is in the
    document. Empty where they share nothing.
    """
    spans, start = [], 0
    for sentence in sentences(document):
        spans.append((start, sentence))
        start += len(sentence)
    words = [_stems(sentence) for _, sentence in spans]
    common = Counter(stem for stems in words for stem in stems)
    wanted = {stem: math.log(1 + len(spans) / common[stem]) for stem in _stems(message) if common[stem]}
    # Of two sentences that share the same words the shorter one is nearer.
    shared = [sum(wanted[stem] for stem in stems & wanted.keys()) / math.sqrt(1 + len(stems) / 32) for stems in words]
    nearest = max(shared, default=0.0)
    order = sorted(range(len(spans)), key=lambda number: (-shared[number], number))
    chosen = sorted(
        number for number in order[:MOST_PASSAGES] if shared[number] > 0 and shared[number] >= LEAST_SHARE * nearest
    )
    passages: list[Passage] = []
    for number in chosen:
        begin, sentence = spans[number]
        if passages and passages[-1].start + len(passages[-1].text) == begin:
            passages[-1] = Passage(passages[-1].start, passages[-1].text + sentence)
        else:
            passages.append(Passage(begin, sentence))
    return passages


def _stems(text: str) -> set[str]:
    pairs = {run[start : start + 2] for run in _UNSPACED.findall(text) for start in range(len(run) - 1)}
    return {word[:STEM] for word in _WORD.findall(_UNSPACED.sub(" ", text.lower()))} | pairs
