"""What runs a compressor: one small interface, and the watch by which its work is ended early."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """What one request asks of a backend.

    Attributes:
        document: untrusted text.
        question: untrusted text; empty where there is none.
        budget_tokens: the most tokens of a message, its end token included.
        n: how many messages.
        temperature: 0 takes the most likely tokens.
        seed: of the sampling; equal tasks with equal seeds have equal messages.
        bits: whether to tell what the messages carry, which costs about as much time as to read the document again.
    """

    document: str = field(repr=False)
    question: str = field(repr=False)
    budget_tokens: int
    n: int = 1
    temperature: float = 0.0
    seed: int = 0
    bits: bool = True


@dataclass(frozen=True)
class Choice:
    """One message.

    Attributes:
        text: as a reader sees it.
        tokens: what it cost to write, its end token included.
        ended: whether it ended by itself; otherwise the budget cut it off.
        bits: log2 of how much likelier the document makes it than no document does, to the base model without adapter;
            None where that cannot be told or was not asked for.
        parts: the text of each token, the end token included, with its share of the bits; empty where there are none.
    """

    text: str
    tokens: int
    ended: bool
    bits: float | None = None
    parts: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class Written:
    """What a backend wrote.

    Attributes:
        choices: the messages.
        read_tokens: tokens of the prompt that was read, template included.
        truncated_tokens: tokens cut out of the middle of the document before; None where the backend cannot tell.
        neutralised: texts of the document and the question that looked like control tokens and were spelled apart.
    """

    choices: tuple[Choice, ...]
    read_tokens: int
    truncated_tokens: int | None
    neutralised: int = 0


class Abandoned(Exception):
    """The client has gone; nobody waits for the work any more."""


class Overdue(Exception):
    """The work took longer than it may."""


class Watch:
    """How far work may go on, and who hears of it. Any thread may abandon it."""

    def __init__(self, said: Callable[[int, str], None] | None = None) -> None:
        """Work may go on for ever until `begin`.

        Args:
            said: hears the number of a choice and the next piece of its text, in the thread that works; None where
                nobody listens.
        """
        self._said = said
        self._abandoned = threading.Event()
        self._deadline = float("inf")

    def begin(self, seconds: float) -> None:
        """Start the clock."""
        self._deadline = time.monotonic() + seconds

    def abandon(self) -> None:
        """Nobody waits any more."""
        self._abandoned.set()

    @property
    def listening(self) -> bool:
        """Whether anybody hears pieces of text."""
        return self._said is not None

    def say(self, number: int, piece: str) -> None:
        """Tell the next piece of a choice's text; an empty one is none."""
        if self._said is not None and piece:
            self._said(number, piece)

    def check(self) -> None:
        """Called often by who works.

        Raises:
            Abandoned: nobody waits any more.
            Overdue: the time is over.
        """
        if self._abandoned.is_set():
            raise Abandoned
        if time.monotonic() > self._deadline:
            raise Overdue


class Backend(Protocol):
    """A compressor, however it is run. Called by one thread at a time.

    Attributes:
        budget_tokens: the budget where a request names none.
        most_budget_tokens: the largest budget that leaves room to read.
        hidden: whether it has learned to write without a question, and is told none.
    """

    budget_tokens: int
    most_budget_tokens: int
    hidden: bool

    def write(self, task: Task, watch: Watch) -> Written:
        """Messages of a document; ``watch`` is checked often and hears the text as it is written.

        Raises:
            Refusal: the task cannot be done as asked.
            Abandoned, Overdue: as the watch says.
            InputError: the model or the server fails.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What a client may know of it: names and limits, no paths."""
        ...
