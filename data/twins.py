"""Twins of a document: versions in which what a question's answer rests on is gone, another's, or changed in a value.

They are rivals that only a message with the fact itself can tell apart. In a token tree each costs what follows its
first difference, which is little where the scorer reads the evidence last (`data.arrangement`). All of it is a function
of the seed, the documents of the task, the document and the question.
"""

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from data.arrangement import AS_IT_IS, Arranged, Arrangement, arranged, replaced, unlabelled
from data.evidence import Basis, Evidence, find_evidence, word_stems
from data.sample import Document, Question
from data.typed_values import Value, cased, exchanged, values, within
from data.value_choice import others, pools_of

ANSWER, REMOVED, REPLACED, VALUE = "answer exchanged", "evidence removed", "evidence replaced", "value exchanged"
"""What differs in a twin: the gold answer, or a value in it; the evidence; another value in the evidence."""

LARGEST_RATIO = 3
"""How many times as long as the other a passage may be that is exchanged for it."""

MOST_LENT = 64
"""Passages of other documents that are drawn at random, and then taken in the order in which they fit."""

MOST_PHRASE_WORDS = 6
"""Words of the longest answer without a name or a number that is exchanged for another question's."""

Change = tuple[str, str]
"""A text, and what differs in it."""


@dataclass(frozen=True)
class Twin:
    """A version of a document.

    Attributes:
        text: the whole version.
        change: what differs: ``ANSWER``, ``REMOVED``, ``REPLACED`` or ``VALUE``.
        basis: how the changed evidence is known.
    """

    text: str
    change: str
    basis: Basis


@dataclass(frozen=True)
class _Role:
    """A question's evidence and answer, as they may stand in the place of another question's.

    Attributes:
        document: the id of its document.
        opening: the question's word that tells what is asked for: who, when, how many.
        passage: its evidence.
        answer: its answer as the text has it; empty where the text does not, or where it has a name or a number.
        stems: the words of the passage: see `data.evidence.word_stems`.
    """

    document: str
    opening: str
    passage: str
    answer: str
    stems: frozenset[str]


class Twins:
    """Makes the twins of a task's documents."""

    def __init__(self, documents: Iterable[Document]) -> None:
        """Collect what other documents can lend: names and numbers by type, evidence and answers by what is asked.

        Args:
            documents: those of one task, in any order; equal ones count once.
        """
        distinct = {document.id: document for document in documents}
        ordered = [distinct[key] for key in sorted(distinct)]
        self.pools = pools_of(document.text for document in ordered)
        self.roles = [_role(document, question) for document in ordered for question in document.questions]

    def of(
        self, document: Document, question: Question, count: int, seed: int, arrangement: Arrangement = AS_IT_IS
    ) -> list[Twin]:
        """Up to ``count`` versions about a question, each another text than the document and than the rest.

        In turn: the answer exchanged for others of its type; the evidence removed, then exchanged for evidence of other
        documents; other names, numbers and dates of the evidence exchanged. Where one kind runs out the others go on.
        Values that the text has before its evidence come last.

        Args:
            document: the document.
            question: what the twins are about.
            count: the most twins.
            seed: changes what is drawn.
            arrangement: how the document and its twins are read. Where the evidence is in its place, a value is
                exchanged wherever the document has it. Where it is last, a value is exchanged in the evidence alone,
                and elsewhere the twin keeps it: so all twins are the document up to its evidence.
        """
        read = arranged(document, question, arrangement) if count else None
        if read is None or read.evidence is None:
            return []
        text, evidence, key = read.text, read.evidence, f"{seed}/{document.task}/{document.id}/{question.id}"
        begin = evidence.spans[0][0] if arrangement.last else 0
        late, early = _other_values(text, evidence)
        streams = [
            self._answers(document.id, question, read, begin, random.Random(f"{key}/answer")),
            self._passages(document.id, question, read, random.Random(f"{key}/passage")),
            self._values(text, late, VALUE, begin, random.Random(f"{key}/late")),
        ]
        last = self._values(text, early, VALUE, begin, random.Random(f"{key}/early"))
        found: dict[str, Twin] = {}
        for version, change in itertools.chain(in_turn(streams), last):
            if len(found) == count:
                break
            if version.strip() and version != text:
                found.setdefault(version, Twin(version, change, evidence.basis))
        return list(found.values())

    def _answers(
        self, document_id: str, question: Question, read: Arranged, begin: int, generator: random.Random
    ) -> Iterator[Change]:
        """The answer exchanged: its names and numbers, or where it has none the whole phrase for another answer."""
        text, evidence = read.text, read.evidence
        assert evidence is not None
        typed = _answer_values(text, evidence)
        if typed:
            yield from self._values(text, typed, ANSWER, begin, generator)
            return
        spans = [span for span in evidence.answers if _inside(span, evidence)]
        if not spans:
            return
        phrase, opening = text[slice(*spans[0])], _opening(question.text)
        lent = [role.answer for role in self.roles if role.opening == opening and role.document != document_id]
        alike = sorted({answer for answer in lent if _alike(answer, phrase)})
        pattern = re.compile(rf"(?<!\w){re.escape(phrase)}(?!\w)", re.IGNORECASE)
        for answer in generator.sample(alike, len(alike)):
            if answer.lower() not in text.lower():
                changed = pattern.sub(lambda match, new=answer: cased(new, match[0]), text[begin:])
                yield text[:begin] + changed, ANSWER

    def _passages(
        self, document_id: str, question: Question, read: Arranged, generator: random.Random
    ) -> Iterator[Change]:
        """The evidence removed; then evidence of other documents in its place, of questions that ask alike first."""
        text, evidence = read.text, read.evidence
        assert evidence is not None
        yield replaced(text, evidence, ""), REMOVED
        own, opening = _passage(text, evidence), _opening(question.text)
        golds = {text[start:end].lower() for start, end in evidence.answers}
        fitting = [
            role
            for role in self.roles
            if role.passage and role.document != document_id and _exchangeable(role.passage, own)
        ]
        drawn = generator.sample(fitting, min(len(fitting), MOST_LENT))
        subject = word_stems(text)
        for role in sorted(drawn, key=lambda role: (role.opening != opening, -_share(role.stems, subject))):
            if not any(gold in role.passage.lower() for gold in golds):
                yield replaced(text, evidence, role.passage), REPLACED

    def _values(
        self, text: str, chosen: Sequence[Value], change: str, begin: int, generator: random.Random
    ) -> Iterator[Change]:
        """One version for each value in turn, then a second one for each."""
        yield from in_turn([self._versions(text, value, change, begin, generator) for value in chosen])

    def _versions(self, text: str, value: Value, change: str, begin: int, generator: random.Random) -> Iterator[Change]:
        """The text with one value after another in the place of one of its own, from a character on."""
        for new in others(value, text, self.pools, generator):
            yield exchanged(text, value.key, new, begin), change


def in_turn(streams: Sequence[Iterator[Change]]) -> Iterator[Change]:
    """The next of every stream, then again, until all have ended."""
    while streams:
        going_on = []
        for stream in streams:
            for change in itertools.islice(stream, 1):
                yield change
                going_on.append(stream)
        streams = going_on


@lru_cache(maxsize=16)
def twins_of_task(documents: tuple[Document, ...]) -> Twins:
    """`Twins`, made once for the same documents."""
    return Twins(documents)


def counted(twins: Iterable[Twin]) -> dict[str, int]:
    """How many twins there are of each change and each basis: ``answer exchanged, by answer``."""
    return dict(sorted(Counter(f"{twin.change}, by {twin.basis}" for twin in twins).items()))


def _role(document: Document, question: Question) -> _Role:
    evidence = find_evidence(document, question)
    if evidence is None:
        return _Role(document.id, _opening(question.text), "", "", frozenset())
    spans = [span for span in evidence.answers if _inside(span, evidence)]
    answer = document.text[slice(*spans[0])] if spans and not _answer_values(document.text, evidence) else ""
    passage = _passage(document.text, evidence)
    return _Role(document.id, _opening(question.text), passage, answer, frozenset(word_stems(passage)))


def _share(stems: frozenset[str], subject: set[str]) -> float:
    """The share of a passage's words that a text has as well: how near their subjects are."""
    return len(stems & subject) / len(stems) if stems else 0.0


def _opening(question: str) -> str:
    """The question word, with the word after how, which, what: how many."""
    words = re.findall(r"\w+", question.lower())
    asked = next((at for at, word in enumerate(words) if word in _QUESTION_WORDS), None)
    if asked is None:
        return ""
    return " ".join(words[asked : asked + 2]) if words[asked] == "how" else words[asked]


_QUESTION_WORDS = frozenset("who whom whose when where why how what which".split())


def _inside(span: tuple[int, int], evidence: Evidence) -> bool:
    return any(start <= span[0] < end for start, end in evidence.spans)


def _passage(text: str, evidence: Evidence) -> str:
    """The evidence in one run, without the speakers of its lines."""
    return " ".join(unlabelled(text[start:end]) for start, end in evidence.spans)


def _exchangeable(first: str, second: str) -> bool:
    """Whether two passages have the same form: sentences of similar length, or rows of as many cells."""
    lengths = sorted((len(first), len(second)))
    return first.count("|") == second.count("|") and lengths[1] <= LARGEST_RATIO * lengths[0]


def _alike(first: str, second: str) -> bool:
    """Whether two phrases without a name or a number can stand for each other: case, words, article, ending."""
    words = len(first.split()), len(second.split())
    lengths = sorted((len(first), len(second)))
    if words[0] != words[1] or words[0] > MOST_PHRASE_WORDS or lengths[1] > LARGEST_RATIO * lengths[0]:
        return False
    return first[:1].isupper() == second[:1].isupper() and _ends(first) == _ends(second)


def _ends(phrase: str) -> tuple[str, str]:
    """The article that a phrase begins with, and the ending of its last word; each empty where it has none."""
    article = re.match(r"(?:an?|the)\b", phrase, re.IGNORECASE)
    return (article[0].lower() if article else ""), next(
        (ending for ending in ("ing", "ed", "ly", "s") if phrase.endswith(ending)), ""
    )


def _answer_values(text: str, evidence: Evidence) -> list[Value]:
    """The values of the gold answers that stand in the evidence, one for each key."""
    found: dict[str, Value] = {}
    for span in evidence.answers:
        if _inside(span, evidence):
            for value in within(values(text), max(0, span[0] - 1), span[1]):
                if value.end > span[0]:
                    found.setdefault(value.key, value)
    return list(found.values())


def _other_values(text: str, evidence: Evidence) -> tuple[list[Value], list[Value]]:
    """The other values of the evidence, one for each key: those that the text first has there, and those it has before.

    Those that the text has last come first.
    """
    firsts: dict[str, Value] = {}
    for value in values(text):
        firsts.setdefault(value.key, value)
    of_answer = {value.key for value in _answer_values(text, evidence)}
    keys = {value.key for start, end in evidence.spans for value in within(values(text), start, end)} - of_answer
    ordered = sorted((firsts[key] for key in keys), key=lambda value: -value.start)
    begin = evidence.spans[0][0]
    return [value for value in ordered if value.start >= begin], [value for value in ordered if value.start < begin]
