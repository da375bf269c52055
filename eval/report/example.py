"""One question of the run from end to end: document, message, answer. A rule chooses it, not how it came out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from eval.analysis.density import STAGES
from eval.record import Record
from eval.report.formats import number
from eval.report.results import Stage
from eval.report.run_files import json_lines
from objectives.mutual_information import nats_to_bits

RULE = "The first question of the evaluation in the order of ids, whatever came of it."

EXCERPT_CHARACTERS = 420
"""Characters of the document that are shown: about six lines, so that the messages stay in the first screen."""

MESSAGE_CHARACTERS = 600
"""Characters of a message or an answer that are shown: a paragraph."""


@dataclass(frozen=True)
class Excerpt:
    """A part of a document, in three pieces.

    Attributes:
        start: what stands before the answer, or all of it where the answer is nowhere word for word.
        answer: the answer.
        end: what stands after it.
        note: how much of the document this is.
    """

    start: str
    answer: str
    end: str
    note: str


@dataclass(frozen=True)
class Side:
    """The message of one stage, and the answer from it."""

    stage: Stage
    message: str
    cost: str
    answer: str
    accuracy: float | None


@dataclass(frozen=True)
class Example:
    """A question with its document, and what became of it at each stage."""

    id: str
    task: str
    question: str
    gold: str
    excerpt: Excerpt
    sides: tuple[Side, ...]


def example(samples: Path) -> Example | None:
    """The first question that every stage of the run has; None where the file has no records.

    The file is read twice, so that memory holds the contexts of one question only.
    """
    ids: dict[str, set[str]] = {}
    for record in json_lines(samples):
        ids.setdefault(record["stage"], set()).add(record["id"])
    stages = [stage for stage in STAGES if stage in ids]
    if not stages or not (shared := set.intersection(*(ids[stage] for stage in stages))):
        return None
    first = min(shared)
    records = {record["stage"]: cast(Record, record) for record in json_lines(samples) if record["id"] == first}
    record = records[stages[-1]]
    return Example(
        first,
        record["task"],
        record["question"],
        " · ".join(record["answers"]),
        excerpt(record["context"], record["answers"]),
        tuple(_side(cast(Stage, stage), records[stage]) for stage in stages),
    )


def excerpt(context: str, answers: Sequence[str]) -> Excerpt:
    """The part of the document around the first place where an answer stands as a word; else its beginning."""
    places = (re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", context) for answer in answers if answer.strip())
    place = next((place for place in places if place is not None), None)
    begin, end = place.span() if place and len(place[0]) <= EXCERPT_CHARACTERS else (0, 0)
    middle = (begin + end) // 2
    first = max(0, min(middle - EXCERPT_CHARACTERS // 2, len(context) - EXCERPT_CHARACTERS))
    first, last = _at_words(context, first, min(len(context), first + EXCERPT_CHARACTERS), begin, end)
    whole = last - first == len(context)
    note = "the whole document" if whole else f"{last - first:,} of {len(context):,} characters"
    start = f"{'… ' if first else ''}{context[first:begin]}"
    return Excerpt(start, context[begin:end], f"{context[end:last]}{' …' if last < len(context) else ''}", note)


def _at_words(text: str, first: int, last: int, begin: int, end: int) -> tuple[int, int]:
    """The ends moved inwards to where a word begins or ends, but not into the answer."""
    if first and (space := re.compile(r"\s").search(text, first, max(first, begin))):
        first = space.end()
    if last < len(text):
        spaces = list(re.finditer(r"\s", text[end:last]))
        last = end + spaces[-1].start() if spaces else last
    return min(first, begin) if end else 0, last


def _side(stage: Stage, record: Record) -> Side:
    tokens, nats = record["message_tokens"], record["information_nats"]
    cost = f"{tokens:,} token{'' if tokens == 1 else 's'}"
    if nats is not None:
        cost += f", {number(nats_to_bits(nats))} bits"
    message, answer = (_shown(text) for text in (record["message"], record["prediction"]))
    return Side(stage, message, cost, answer, cast(Any, record["accuracy"]))


def _shown(text: str) -> str:
    """A text with what is cut off counted."""
    more = len(text) - MESSAGE_CHARACTERS
    return text if more <= 0 else f"{text[:MESSAGE_CHARACTERS]} … ({more:,} characters more)"
