"""What is peculiar about one server: how it wants requests written, and what its replies have in them beside answers.

Everything here is counted, and said the first time it happens.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from models.endpoint.chat import Completion
from models.endpoint.errors import EndpointError

DAMAGED = "damaged cache lines"
"""Lines of a file of replies that are none, among the counts of an endpoint."""

_REFUSED = (400, 422)
"""Statuses of a request with a field that the server does not take."""

_NOT_TAKEN = re.compile(r"unsupported|not support|instead|only the default", re.IGNORECASE)
"""How servers say that they do not take a field, apart from taking it with another value."""

_VERSION = re.compile(r"(?:[-@:.]\d[-.\w]*)?")
"""What a server adds to a model's name: a date or a number."""


class Habits:
    """The habits of one model on one server, as far as they are known; threads may share it.

    Attributes:
        counts: replies; of them empty ones, those that ended at their limit of tokens before any text, those that began
            with thoughts, and those of another model than was asked for.
    """

    def __init__(self, name: str, model: str, say: Callable[[str], None]) -> None:
        """Nothing is known yet.

        Args:
            name: how messages name the server.
            model: the model that is asked for.
            say: takes what has to be said.
        """
        self.name = name
        self.model = model
        self.counts: Counter[str] = Counter()
        self._say = say
        self._said: set[str] = set()
        self._other_limit = self._no_temperature = False
        self._lock = threading.RLock()

    def written(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """A request as the server takes it."""
        written = dict(body)
        if "messages" not in body:
            return written
        if self._other_limit and "max_tokens" in written:
            written["max_completion_tokens"] = written.pop("max_tokens")
        if self._no_temperature:
            written.pop("temperature", None)
        return written

    def learn(self, error: EndpointError, written: Mapping[str, Any]) -> bool:
        """Whether a refused request can be written in another way, as hosted reasoning models want it.

        These take ``max_completion_tokens`` for ``max_tokens`` and no temperature; some name but one of the two.

        Args:
            error: the refusal.
            written: the request that was refused.
        """
        if error.status not in _REFUSED or "messages" not in written:
            return False
        words = str(error)
        if not _NOT_TAKEN.search(words):
            return False
        with self._lock:
            if "max_tokens" in written and "max_completion_tokens" in words:
                self._other_limit = True
                self._once("max_tokens", "refuses max_tokens: max_completion_tokens is sent in its place")
                return True
            if "temperature" in written and ("temperature" in words or "max_completion_tokens" in words):
                self._no_temperature = True
                self._once("temperature", "refuses the temperature: none is sent, and its answers are its own samples")
                return True
        return False

    def note(self, model: str | None, completion: Completion) -> None:
        """Count what is peculiar about a reply, and say it the first time.

        Args:
            model: the model that the reply says it is of; None where it says nothing.
            completion: the reply.
        """
        with self._lock:
            self.counts["replies"] += 1
            if completion.thoughts:
                self.counts["thoughts cut off"] += 1
            if not completion.text.strip():
                self.counts["empty"] += 1
                if completion.finish_reason == "length":
                    self.counts["empty at the token limit"] += 1
                    self._once("empty", "its token limit ended an answer before any text; the end says how many")
                else:
                    self._once("nothing", f"an answer has no text ({completion.finish_reason}); the end says how many")
            if not same_model(self.model, model):
                self.counts["of another model"] += 1
                self._once(f"model {model}", f"answers as another model, {model!r}: results are that model's")

    def _once(self, event: str, words: str) -> None:
        if event not in self._said:
            self._said.add(event)
            self._say(f"{self.name}: {words}")


def notes(name: str, counts: Mapping[str, int], limit_key: str) -> list[str]:
    """What the user should know of a server at the end, a line each.

    Args:
        name: how messages name the server.
        counts: the totals of an endpoint, or of several processes'.
        limit_key: the key that gives its replies more tokens.
    """
    of_all = f"of {counts.get('replies', 0)} answers"
    cut, empty = counts.get("empty at the token limit", 0), counts.get("empty", 0)
    told = [
        (cut, f"{of_all} empty: the server's token limit ended them before any text; raise {limit_key}"),
        (empty - cut, f"{of_all} empty, though no limit ended them"),
        (counts.get("thoughts cut off", 0), f"{of_all} with thoughts in front of them, which were cut off"),
        (counts.get("of another model", 0), f"{of_all} of another model than was asked for"),
        (counts.get(DAMAGED, 0), "damaged lines of its cache were left out"),
    ]
    return [f"{name}: {count} {what}" for count, what in told if count]


def same_model(asked: str, answered: str | None) -> bool:
    """Whether a reply is of the model that was asked for, as far as names tell.

    A server may add a date or a number (``gpt-4o`` answers as ``gpt-4o-2024-08-06``) and leave folders out or add some
    (``Qwen2.5-7B`` for ``Qwen/Qwen2.5-7B``); one that names no model is believed.
    """
    if not answered:
        return True
    first, second = (name.lower().rstrip("/").rpartition("/")[2] for name in (asked, answered))
    first = first.removesuffix("-latest").removesuffix(":latest")
    return second.startswith(first) and _VERSION.fullmatch(second.removeprefix(first)) is not None
