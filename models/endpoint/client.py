"""One model of one server: conversations one by one or in parallel, from the cache where they were answered before."""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel
from tqdm import tqdm

from models.endpoint.address import checked_address
from models.endpoint.cache import ReplyCache
from models.endpoint.chat import ChatReply, Completion, EchoReply, Messages, Sampling, valid_reply
from models.endpoint.errors import EndpointError
from models.endpoint.habits import DAMAGED, Habits, notes

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable of a server's key unless another is named, as in other clients of such servers."""

TIMEOUT_SECONDS = 300.0
"""How long a request may take: a large model on a busy server takes minutes for a long reply."""

RETRIES = 6
"""How often a request is sent again: the waits double from half a second to eight, about 25 seconds in all, where the
server names no other."""

ANSWER_SECONDS = 600.0
"""How long an answer may take with all its tries: a server that was silent for two of them is not there."""

CONCURRENCY = 8
"""Requests under way at once: they fill the batches of a small server, and stay within the limits of a hosted one."""

TOKENS_READ, TOKENS_WRITTEN = "tokens read", "tokens written"
"""Tokens of the server's model among the counts of an endpoint, as far as its replies tell; the cache costs none."""

REFUSALS = (400, 401, 402, 403, 404, 422)
"""Statuses of a request that would be refused again: no answer is missing by chance there."""

_NO_SUCH_PATH = (404, 405, 501)
"""Statuses of a server that does not know ``/completions``."""

Reply = TypeVar("Reply", bound=BaseModel)


class Endpoint:
    """One model of one server. Threads may share it: no more than ``concurrency`` requests are under way at once.

    Attributes:
        name: base URL and model, as errors name them.
        model: the model's name on the server.
        base_url: where the API begins.
        concurrency: requests under way at once.
        counts: requests answered, their tokens, answers from the cache, missing ones, retries, damaged cache lines.
        habits: what is peculiar about the replies, counted, and how requests have to be written.
        echoes: whether the server gives log-probs of given tokens; None until it was asked.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        key_variable: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        retries: int = RETRIES,
        answer_seconds: float = ANSWER_SECONDS,
        concurrency: int = CONCURRENCY,
        cache: str | Path | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        """Nothing is asked of the server yet.

        Args:
            base_url: where the API begins, such as ``http://127.0.0.1:8000/v1``.
            model: its name on that server.
            key_variable: the environment variable that holds the key; None takes ``OPENAI_API_KEY`` where it is set,
                and a local server needs none.
            timeout_seconds: how long one request may take, from the connection to the last byte.
            retries: after no connection, silence, 408, 409, 429, 5xx, and replies that cannot be read.
                ``Retry-After`` is honoured up to two minutes.
            answer_seconds: how long one answer may take, all its requests and the waits between them.
            concurrency: requests under way at once.
            cache: a JSON lines file of replies, made where it is not there. Replies of another server, model,
                conversation or sampling are never mixed up; a relocated server's are asked again.
            say: takes a line that the user has to see, the first time that something peculiar happens.

        Raises:
            EndpointError: no URL, no such variable, a number out of range, or a file that is not a cache.
        """
        # The HTTP client takes time to import, and few runs have a server.
        from models.endpoint.transport import Limits, Transport

        self.base_url = checked_address(base_url)
        self.name = f"{self.base_url}, model {model!r}"
        for key, value in (
            ("timeout_seconds", timeout_seconds),
            ("retries", retries + 1),
            ("answer_seconds", answer_seconds),
            ("concurrency", concurrency),
        ):
            if value <= 0:
                raise EndpointError(f"{self.name}: {key} is too small")
        self.model = model
        self.concurrency = concurrency
        self.echoes: bool | None = None
        self.counts: Counter[str] = Counter()
        self.habits = Habits(self.name, model, say)
        limits = Limits(timeout_seconds, retries, answer_seconds)
        self._transport = Transport(self.name, self.base_url, self._read_key(key_variable), limits)
        self._cache = None if cache is None else ReplyCache(cache)
        self._say = say
        self._slots = threading.BoundedSemaphore(concurrency)
        self._counting = threading.Lock()
        self._count_damaged()

    def probe(self) -> None:
        """Find out in seconds whether the server is there and takes the key; answers in the cache do without it.

        Raises:
            EndpointError: it is not, and nothing was answered before.
        """
        try:
            self._transport.probe()
        except EndpointError as error:
            if self._cache is None or len(self._cache) == 0:
                raise
            self._say(f"{error}; going on as far as the answers in {self._cache.path} reach")

    def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """The model's next message.

        Raises:
            EndpointError: the server refused, failed, was silent or answered what cannot be read.
        """
        body = {"model": self.model, "messages": messages, **sampling.fields()}
        reply, kept = self._ask("/chat/completions", body, ChatReply)
        completion = reply.completion(kept)
        self.habits.note(reply.model, completion)
        return completion

    def complete_all(
        self, batch: Sequence[Messages], sampling: Sampling, progress: str | None = None
    ) -> list[Completion]:
        """The model's next message in each conversation, in their order; equal ones are asked once.

        Args:
            batch: the conversations.
            sampling: how every reply is sampled.
            progress: what a progress bar on standard error says; None shows none.

        Raises:
            EndpointError: the first that failed. What was answered before is in the cache, what had not begun is left.
        """
        keys = [json.dumps(messages) for messages in batch]
        distinct = dict(zip(keys, batch, strict=True))
        pool = ThreadPoolExecutor(self.concurrency)
        try:
            # Closed also by an error, so that its line does not begin behind the bar.
            with tqdm(total=len(distinct), desc=progress, disable=progress is None) as bar:
                by_key: dict[str, Completion] = {}
                replies = pool.map(lambda messages: self.complete(messages, sampling), distinct.values())
                for key, reply in zip(distinct, replies, strict=True):
                    by_key[key] = reply
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
        return [by_key[key] for key in keys]

    def complete_some(self, batch: Sequence[Messages], sampling: Sampling) -> list[Completion | None]:
        """The model's next message in each conversation, None where the server failed to give it.

        Raises:
            EndpointError: it gave none at all, or refused one as it would refuse it again.
        """
        keys = [json.dumps(messages) for messages in batch]
        distinct = dict(zip(keys, batch, strict=True))
        failures: list[EndpointError] = []

        def attempt(messages: Messages) -> Completion | None:
            try:
                return self.complete(messages, sampling)
            except EndpointError as error:
                failures.append(error)
                return None

        with ThreadPoolExecutor(self.concurrency) as pool:
            by_key = dict(zip(distinct, pool.map(attempt, distinct.values()), strict=True))
        refused = [error for error in failures if error.status in REFUSALS]
        if refused or (failures and len(failures) == len(distinct)):
            raise (refused or failures)[0]
        self._count("missing", sum(by_key[key] is None for key in keys))
        return [by_key[key] for key in keys]

    def given_log_probs(self, prompt_ids: Sequence[int], answer_ids: Sequence[int]) -> tuple[float, ...] | None:
        """log p of each token of a given answer after a prompt, in nats, through ``/completions`` with ``echo``.

        Tokens are sent as ids of the model's own vocabulary, end token included where it should count: no text can
        then be read in another way, and no character of it as a control token.

        Returns:
            None where the server does not give them, which ``echoes`` then says; llama.cpp's is such a server.

        Raises:
            EndpointError: as ``complete``.
            ValueError: there is no prompt or no answer.
        """
        if not prompt_ids or not answer_ids:
            raise ValueError("log-probs of a given answer need at least one token of prompt and of answer")
        ids = [*prompt_ids, *answer_ids]
        # One token more is asked for, as some servers refuse to generate none.
        body = {"model": self.model, "prompt": ids, "max_tokens": 1, "temperature": 0, "logprobs": 1, "echo": True}
        try:
            log_probs = self._ask("/completions", body, EchoReply)[0].token_log_probs()
        except EndpointError as error:
            if error.status not in _NO_SUCH_PATH:
                raise
            log_probs = []
        known = tuple(value for value in log_probs[len(prompt_ids) : len(ids)] if value is not None)
        self.echoes = len(known) == len(answer_ids)
        return known if self.echoes else None

    def totals(self) -> dict[str, int]:
        """Everything counted so far that happened at all, by name."""
        return {event: count for event, count in {**self.counts, **self.habits.counts}.items() if count}

    def notes(self, limit_key: str) -> list[str]:
        """What the user should know at the end, a line each.

        Args:
            limit_key: the key that gives replies more tokens.
        """
        return notes(self.name, self.totals(), limit_key)

    def _ask(self, path: str, body: dict[str, Any], kind: type[Reply]) -> tuple[Reply, bool]:
        """A valid reply of the cache or of the server, and whether it is of the cache.

        The cache knows a request as it was meant, not as a server's habits had it written.
        """
        request = json.dumps([self.base_url, path, body], sort_keys=True)
        key = hashlib.sha256(request.encode()).hexdigest()
        cached = self._cache.get(key, kind) if self._cache is not None else None
        if cached is not None:
            self._count("from the cache")
            return cached, True
        self._count_damaged()
        with self._slots:
            reply, retries = self._post(path, body, kind)
        self._count("retries", retries)
        self._count("requests")
        if isinstance(reply, ChatReply) and reply.usage is not None:
            self._count(TOKENS_READ, reply.usage.prompt_tokens or 0)
            self._count(TOKENS_WRITTEN, reply.usage.completion_tokens or 0)
        if self._cache is not None:
            self._cache.add(key, self.model, reply)
        return reply, False

    def _post(self, path: str, body: dict[str, Any], kind: type[Reply]) -> tuple[Reply, int]:
        """A server's reply to a request, written as the server wants it, and how often it was sent again."""
        while True:
            written = self.habits.written(body)
            try:
                return self._transport.post(path, written, lambda content: valid_reply(content, kind))
            except EndpointError as error:
                if not self.habits.learn(error, written):
                    raise

    def _count(self, event: str, number: int = 1) -> None:
        with self._counting:
            self.counts[event] += number

    def _count_damaged(self) -> None:
        self.counts[DAMAGED] = self._cache.damaged if self._cache is not None else 0

    def _read_key(self, variable: str | None) -> str:
        if variable is not None and not os.environ.get(variable):
            raise EndpointError(f"{self.name}: the environment variable {variable!r}, for its key, is not set")
        return os.environ.get(variable or KEY_VARIABLE, "").strip()
