"""The figures of an evaluation as a small file: per question the score, the tokens and the bits of every message.

Everything that a study reports is computed from these files, whether their run folders are there or not. A file says
what it depends on, and is used for nothing else.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data.errors import DataError
from data.writing import json_text, write_text
from train.study.identity import hash_of, told
from train.study.members import Member

FORMAT = "shorthand study member, version 3"
"""What a file of figures says of itself."""

MEMBERS = "members"
"""The folder of these files, in the folder of the study's pages."""


@dataclass(frozen=True)
class Messages:
    """The messages that one compressor or one baseline wrote, one a question.

    Attributes:
        name: the line of the results that they are.
        baseline: the baseline that they are a point of; None where a compressor wrote them.
        accuracy: the score of each answer, a share; None where it is missing.
        tokens: of each message.
        bits: the information that each passes; None where it is missing.
        is_answer: whether it is a gold answer and nothing else.
        holds_answer: whether a gold answer stands in it.
        readers: the score of each answer that another reader gave from it, by the reader's name.
    """

    name: str
    baseline: str | None
    accuracy: list[float | None]
    tokens: list[int]
    bits: list[float | None]
    is_answer: list[bool]
    holds_answer: list[bool]
    readers: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def columns(self) -> tuple[Sequence[object], ...]:
        """Everything that there is of each message."""
        return self.accuracy, self.tokens, self.bits, self.is_answer, self.holds_answer, *self.readers.values()


@dataclass(frozen=True)
class Figures:
    """The figures of an evaluation.

    Attributes:
        depends: the keys that they depend on.
        made: when, by what and in what time.
        questions: the id of each.
        tasks: the task of each.
        kinds: the task's label of the type of each; empty where it has none.
        metrics: by what the answer to each is scored, a name in ``objectives.accuracy.METRICS``.
        documents: the document of each, as intervals resample them where they resample documents.
        messages: those of the compressor first, then what it was held against.
    """

    depends: Mapping[str, Any]
    made: Mapping[str, Any]
    questions: list[str]
    tasks: list[str]
    kinds: list[str]
    metrics: list[str]
    documents: list[str]
    messages: list[Messages]


def figures_path(pages: Path, member: Member) -> Path:
    """Where the figures of an evaluation lie, below the folder of the study's pages."""
    assert member.set_name is not None
    return pages / MEMBERS / member.set_name / member.variant / f"{member.seed}.json"


def write_figures(path: Path, figures: Figures) -> None:
    """Write a file of figures, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = {name: value for name, value in vars(figures).items() if name != "messages"}
    messages = [vars(one) for one in figures.messages]
    heads = {"format": FORMAT, "hash": hash_of(figures.depends)}
    # A key a line, so that a change can be read, and yet small.
    lines = [f'"{key}": {json_text(value)}' for key, value in {**heads, **fields}.items()]
    listed = ",\n".join(json_text(one) for one in messages)
    write_text(path, "{" + ",\n".join([*lines, f'"messages": [\n{listed}\n]']) + "}\n")


def read_figures(path: Path) -> Figures:
    """A file of figures.

    Raises:
        DataError: it is no such file, or a damaged one.
        OSError: it cannot be read.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        head, stored = tree.pop("format"), tree.pop("hash")
        messages = [Messages(**one) for one in tree.pop("messages")]
        figures = Figures(**tree, messages=messages)
        of_questions = (figures.tasks, figures.kinds, figures.metrics, figures.documents)
        columns = [*of_questions, *(column for one in messages for column in one.columns)]
        count = len(figures.questions)
        whole = bool(messages) and count > 0 and all(len(column) == count for column in columns)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path}: is no file of a study's figures, or a damaged one") from error
    if head != FORMAT or not whole or hash_of(figures.depends) != stored:
        raise DataError(f"{path}: is no file of a study's figures, or a damaged one")
    return figures


def usable_figures(path: Path, member: Member) -> Figures:
    """The figures of a member.

    Raises:
        FileNotFoundError: there are none.
        DataError: the file is damaged, or depends on something else than the member does.
        OSError: it cannot be read.
    """
    figures = read_figures(path)
    if differences := member.depends.differences(figures.depends):
        raise DataError(f"{path}: is stale, for {told(differences)}")
    # A variant that has another name since is still what it was: its file may be moved to the new one's place.
    own, *others = figures.messages
    return replace(figures, messages=[replace(own, name=member.variant), *others])


def rounded(values: Iterator[float | None] | Sequence[float | None], unit: float = 1.0) -> list[float | None]:
    """Values in another unit, to six decimals: far below what a question's sampling leaves open."""
    return [None if value is None or not math.isfinite(value) else round(value * unit, 6) for value in values]
