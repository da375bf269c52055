"""How the scorer reads a document for a question: as it is, or with the evidence of its answer moved to the end.

With the evidence last, all versions of a document that differ in it begin alike, and in a token tree each costs the
evidence alone. Any function of context, message and question may be the critic of a contrastive bound (Poole et al.
2019, "On variational bounds of mutual information"): the arrangement is one of the document and its question, made
before any message is seen, and every column is arranged by the same rule. It uses the gold answer, as the twins
themselves do: what is bounded is what a message tells of the document, not how a reader who has to find the evidence
would fare.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from data.evidence import Evidence, answer_spans, find_evidence
from data.sample import Document, Question

Place = Literal["in_place", "last"]
"""Where the scorer reads the evidence: where the document has it, or after the rest of the document."""


@dataclass(frozen=True)
class Arrangement:
    """How documents are read.

    Attributes:
        place: where the evidence is read.
        words: with the evidence last, the most words of the rest of a document that stand before it, those around it in
            the document; None is all.
    """

    place: Place = "in_place"
    words: int | None = None

    @property
    def last(self) -> bool:
        """Whether the evidence is read last."""
        return self.place == "last"


AS_IT_IS, LAST = Arrangement(), Arrangement("last")
"""A document as it is; the whole of it with its evidence last."""

SEPARATOR = "\n\n"
"""Stands between the rest of a document and its evidence: a paragraph of its own."""

_LABEL = re.compile(r"^[^\W\d_a-z][\w .'’-]{0,30}:[ ]")
"""A speaker, or another label, in front of a line."""


@dataclass(frozen=True)
class Arranged:
    """A document as the scorer reads it for a question.

    Attributes:
        text: the whole text.
        evidence: the sentences that the answer rests on, as characters of that text; None where they are not known.
    """

    text: str
    evidence: Evidence | None

    @property
    def passages(self) -> tuple[str, ...]:
        """The sentences of the evidence."""
        return tuple(self.text[start:end] for start, end in self.evidence.spans) if self.evidence else ()


def arranged(document: Document, question: Question, arrangement: Arrangement) -> Arranged:
    """A document for a question; as it is where the evidence is not known, or where there is nothing else.

    A sentence from within a speaker's turn takes the speaker's name along.
    """
    evidence = find_evidence(document, question)
    if not arrangement.last or evidence is None:
        return Arranged(document.text, evidence)
    rest = _around(replaced(document.text, evidence, ""), document.text[: evidence.spans[0][0]], arrangement.words)
    if not rest:
        return Arranged(document.text, evidence)
    whole, text, spans = document.text, f"{rest}{SEPARATOR}", []
    # A line of a table or a dialogue stays a line.
    joints = ["\n" if _speaker(whole, start) or whole[start - 1] == "\n" else " " for start, _ in evidence.spans[1:]]
    for (start, end), joint in zip(evidence.spans, [*joints, ""], strict=True):
        begin, text = len(text), f"{text}{_speaker(whole, start)}{whole[start:end].strip()}{joint}"
        spans.append((begin, len(text)))
    answers = answer_spans(text, question.answers) if evidence.answers else []
    return Arranged(text, Evidence(tuple(spans), tuple(answers), evidence.basis))


@lru_cache(maxsize=16)
def arranged_by_text(documents: tuple[Document, ...], arrangement: Arrangement) -> dict[str, str]:
    """How documents are read in columns of other documents' questions, by their texts: for their first question each.

    So the place of its evidence tells no document from another.
    """
    return {document.text: arranged_first(document, arrangement) for document in reversed(documents)}


def arranged_first(document: Document, arrangement: Arrangement) -> str:
    """A document as it is read for the first of its questions."""
    if not arrangement.last or not document.questions:
        return document.text
    return arranged(document, document.questions[0], arrangement).text


def replaced(text: str, evidence: Evidence, passage: str) -> str:
    """The text with a passage in the place of the first sentence of the evidence, and the others left out."""
    pieces, at = [], 0
    for number, (start, end) in enumerate(evidence.spans):
        old = text[start:end]
        space, label = old[len(old.rstrip()) :], _LABEL.match(old)
        filled = f"{label[0] if label else ''}{passage}{space}"
        pieces += [text[at:start], filled if passage and number == 0 else ""]
        at = end
        if not (passage and number == 0) and "\n" in space:
            # What ended a line has to end it still, for the sentence before.
            pieces[-2:] = [(pieces[-2]).rstrip(" "), space if pieces[-2] and not pieces[-2].endswith("\n") else ""]
    return "".join([*pieces, text[at:]]).rstrip()


def unlabelled(sentence: str) -> str:
    """A sentence without the speaker, or another label, in front of it."""
    return _LABEL.sub("", sentence).strip()


def _around(rest: str, before: str, most: int | None) -> str:
    """Words of the rest of a document around where its evidence stood, after the text ``before``."""
    words = [match.span() for match in re.finditer(r"\S+", rest)]
    if most is None or len(words) <= most:
        return rest
    first = max(0, min(len(before.split()) - most // 2, len(words) - most))
    return rest[words[first][0] : words[first + most - 1][1]]


def _speaker(text: str, start: int) -> str:
    """The label of the line that a sentence stands in, where it does not begin that line; else nothing."""
    line = text.rfind("\n", 0, start) + 1
    label = _LABEL.match(text[line:start])
    return label[0] if label else ""
