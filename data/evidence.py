"""The sentences of a document that a question's answer rests on, and how they are known."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Literal

from data.sample import Document, Question
from data.sentences import sentences
from objectives.negatives import Span, evidence_spans

Basis = Literal["answer", "evidence", "likely"]
"""How evidence is known: it holds a gold answer; the task marked it; or its words are nearest to the question's."""

MOST_SENTENCES = 3
"""Sentences with a gold answer that are taken as evidence, those nearest to the question first: a short answer may
stand in many."""

LIKELY_SENTENCES = 2
"""Sentences nearest to the question that are taken where neither the task nor an answer tells."""

LEAST_NEARNESS = 0.25
"""The share of the nearest sentence's nearness that a finding on a question of yes or no has to have: what a text sets
out to ask it says in the question's words, and what it finds in fewer of them."""

VERDICTS = frozenset(["yes", "no", "true", "false", "none", "unanswerable", "maybe"])
"""Answers that are found in no text: where their words stand says nothing about them."""

CASED_LENGTH = 3
"""Characters up to which an answer has to be found in its own case: P is not p."""

STEM = 5
"""Characters of a word by which it is compared, so that forms of it are alike."""

_NUMBER_IN = re.compile(r"[^\w.]{0,3}(\d[\d,]*(?:\.\d+)?)\W{0,3}(?:%|million|billion|thousand|percent)?\W?", re.I)


@dataclass(frozen=True)
class Evidence:
    """The sentences that an answer rests on.

    Attributes:
        spans: the sentences, in order, as characters of the document.
        answers: where gold answers stand in the document, in any of their forms, in order.
        basis: how the sentences are known.
    """

    spans: tuple[Span, ...]
    answers: tuple[Span, ...]
    basis: Basis


def find_evidence(document: Document, question: Question) -> Evidence | None:
    """The sentences with a gold answer, within the passages that the task marked where it marked any.

    Where no answer is in the text, these passages as they are; where there are none, the sentences nearest to the
    question by its rarer words. None where nothing in the text has to do with the question.
    """
    spans = _sentence_spans(document.text)
    marked = _meeting(spans, evidence_spans(document.text, question.evidence))
    answers = answer_spans(document.text, question.answers)
    holding = _meeting(marked or spans, answers)
    if holding:
        chosen = holding
        if len(holding) > MOST_SENTENCES:
            nearness = _nearness(document.text, holding, question.text)
            chosen = sorted(sorted(holding, key=lambda span: -nearness[span])[:MOST_SENTENCES])
        return Evidence(tuple(chosen), tuple(answers), "answer")
    if marked:
        return Evidence(tuple(marked), (), "evidence")
    telling = [span for span in spans if not document.text[slice(*span)].rstrip().endswith("?")]
    verdict = all(answer.strip(" .").lower() in VERDICTS for answer in question.answers)
    likely = _nearest(document.text, telling, question.text, last=verdict)
    return Evidence(tuple(likely), (), "likely") if likely else None


def evidence_basis(document: Document, question: Question) -> Basis | None:
    """How a question's evidence is known; None where it is not."""
    evidence = find_evidence(document, question)
    return None if evidence is None else evidence.basis


def answer_spans(text: str, answers: Sequence[str]) -> list[Span]:
    """Where answers stand as whole words; a number also without its unit."""
    found: set[Span] = set()
    for answer in answers:
        number = _NUMBER_IN.fullmatch(answer.strip())
        for wanted in (answer, number[1]) if number and len(number[1]) > 1 else (answer,):
            words = wanted.strip(" .").split()
            if words and wanted.strip(" .").lower() not in VERDICTS:
                before = r"(?<![\w.,])" if wanted[0].isdigit() else r"(?<!\w)"
                pattern = before + r"\s+".join(map(re.escape, words)) + r"(?!\w|[.,]\d)"
                flags = re.IGNORECASE if len(wanted) > CASED_LENGTH else re.NOFLAG
                found.update(match.span() for match in re.finditer(pattern, text, flags))
    return sorted(found)


@lru_cache(maxsize=1024)
def _sentence_spans(text: str) -> list[Span]:
    ends = list(accumulate(map(len, sentences(text))))
    return [span for span in zip([0, *ends], ends, strict=False) if text[span[0] : span[1]].strip()]


def _meeting(spans: Sequence[Span], others: Sequence[Span]) -> list[Span]:
    """The spans, in order and apart, that share a character with one of the others, in order."""
    meeting, first = [], 0
    ordered = sorted(others, key=lambda other: other[1])
    # The earliest beginning of those that end as late as each, or later.
    begins = [*accumulate((begin for begin, _ in reversed(ordered)), min)][::-1]
    for start, end in spans:
        while first < len(ordered) and ordered[first][1] <= start:
            first += 1
        if first < len(begins) and begins[first] < end:
            meeting.append((start, end))
    return meeting


def _nearest(text: str, spans: Sequence[Span], question: str, last: bool) -> list[Span]:
    """The sentences nearest to a question; or the last of those that are at least a quarter as near as the nearest.

    The latter is for questions of yes and no, which a text asks before it tells its findings.
    """
    nearness = _nearness(text, spans, question)
    near = [span for span in spans if nearness[span] > 0]
    if last and near:
        least = max(nearness.values()) * LEAST_NEARNESS
        return [span for span in near if nearness[span] >= least][-LIKELY_SENTENCES:]
    return sorted(sorted(near, key=lambda span: -nearness[span])[:LIKELY_SENTENCES])


def _nearness(text: str, spans: Sequence[Span], question: str) -> dict[Span, float]:
    """How many of a question's words each sentence has, a rare word counting more than one that many have."""
    stems = {span: word_stems(text[span[0] : span[1]]) for span in spans}
    frequency = Counter(stem for found in stems.values() for stem in found)
    asked = word_stems(question)
    return {
        span: sum(math.log(1 + len(spans) / frequency[stem]) for stem in sorted(found & asked))
        for span, found in stems.items()
    }


def word_stems(text: str) -> set[str]:
    """The words of a text by how they begin, without short ones in small letters."""
    return {word.lower()[:STEM] for word in re.findall(r"\w+", text) if len(word) > 3 or not word.islower()}
