"""How the scorer reads a document for a question: as it is, or with the evidence of its answer moved to the end.

With the evidence last, all versions of a document that differ in it begin alike, and in a token tree each costs the
evidence alone. Any function of context, message and question may be the critic of a contrastive bound (Poole et al.,
arXiv 1905.06922, section 2): the arrangement is one of the document and its question, made before any message is
seen, and every column is arranged by the same rule. It uses the gold answer, as the twins themselves do: what is
bounded is the information about the document, not how a reader who has to find the evidence would fare.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from data.evidence import Evidence, answer_spans, find_evidence
from data.sample import Document, Question

Place = Literal["in_place", "last"]
"""Where the scorer reads the evidence: where the document has it, or after the rest of the document."""

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


def arranged(document: Document, question: Question, place: Place) -> Arranged:
    """A document for a question; as it is where the evidence is not known, or where there is nothing else.

    A sentence from within a speaker's turn takes the speaker's name along.
    """
    evidence = find_evidence(document, question)
    if place == "in_place" or evidence is None:
        return Arranged(document.text, evidence)
    rest = replaced(document.text, evidence, "")
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
def arranged_by_text(documents: tuple[Document, ...], place: Place) -> dict[str, str]:
    """How documents are read in columns of other documents' questions, by their texts: for their first question each.

    So the place of its evidence tells no document from another.
    """
    return {document.text: arranged_first(document, place) for document in reversed(documents)}


def arranged_first(document: Document, place: Place) -> str:
    """A document as it is read for the first of its questions."""
    if place == "in_place" or not document.questions:
        return document.text
    return arranged(document, document.questions[0], place).text


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


def _speaker(text: str, start: int) -> str:
    """The label of the line that a sentence stands in, where it does not begin that line; else nothing."""
    line = text.rfind("\n", 0, start) + 1
    label = _LABEL.match(text[line:start])
    return label[0] if label else ""
