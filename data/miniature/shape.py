"""What a shape of invented document consists of."""

from dataclasses import dataclass
from typing import Literal

ValueType = Literal["number", "name", "yes_no"]

SPARE_KEYS = 4
"""Keys that even the longest document leaves out, so that there is something it does not answer."""


def words(text: str) -> tuple[str, ...]:
    """The words of a list written with spaces."""
    return tuple(text.split())


@dataclass(frozen=True)
class Relation:
    """A kind of fact: what can be asked about, the type of its value, and the ways to write it down.

    ``document`` and ``questions`` end with the wording that only the ``test`` split uses. ``statement`` is the plain
    sentence in which a message restates the fact; ``metric`` scores an answer.
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
    """One of the five kinds of document."""

    name: str
    header: str
    fillers: tuple[str, ...]
    relations: tuple[Relation, ...]
    separator: str = " "
    sections: tuple[str, ...] = ()

    @property
    def max_facts(self) -> int:
        """The most facts a document can state: every key but ``SPARE_KEYS``."""
        return sum(len(relation.keys) for relation in self.relations) - SPARE_KEYS
