"""The shape of an invented document: what its facts are about, and the words around them."""

from dataclasses import dataclass
from typing import Literal

ValueType = Literal["number", "name", "yes_no"]

SPARE_KEYS = 4
"""Keys that even the longest document leaves out, so that some questions have no answer in it."""


def words(text: str) -> tuple[str, ...]:
    """The words of a list written with spaces."""
    return tuple(text.split())


@dataclass(frozen=True)
class Relation:
    """A kind of fact. In all wordings ``{k}`` stands for the key and ``{v}`` for its value.

    Attributes:
        keys: what a fact can be about; a document states at most one fact about a key.
        value: the type of the value.
        document: wordings of the fact in a document; the last is used by the ``test`` split alone.
        questions: wordings of a question about the fact; the last is used by the ``test`` split alone.
        statement: the plain sentence in which a message restates the fact.
        metric: the metric of an answer, a name in ``objectives.accuracy.METRICS``.
        kind: the label of the question type.
    """

    keys: tuple[str, ...]
    value: ValueType
    document: tuple[str, ...]
    questions: tuple[str, ...]
    statement: str
    metric: str
    kind: str


@dataclass(frozen=True)
class Shape:
    """One of the five kinds of document.

    Attributes:
        name: the task's name.
        header: the first line; ``{a}`` stands for an invented name and ``{b}`` for a number.
        fillers: sentences that state no fact.
        relations: the kinds of facts.
        separator: what joins sentences, headings and rows.
        sections: headings, each before a share of the facts.
    """

    name: str
    header: str
    fillers: tuple[str, ...]
    relations: tuple[Relation, ...]
    separator: str = " "
    sections: tuple[str, ...] = ()

    @property
    def max_facts(self) -> int:
        """The most facts that a document can state: one for every key but ``SPARE_KEYS`` of them."""
        return sum(len(relation.keys) for relation in self.relations) - SPARE_KEYS
