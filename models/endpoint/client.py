"""One model of one server: conversations one by one or in parallel, from the cache where they were answered before."""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError
from tqdm import tqdm

from models.endpoint.cache import ReplyCache
from models.endpoint.chat import ChatReply, Completion, EchoReply, Messages, Sampling
from models.endpoint.errors import EndpointError

KEY_VARIABLE = "OPENAI_API_KEY"
"""The environment variable of a server's key unless another is named, as in other clients of such servers."""

TIMEOUT_SECONDS = 300.0
"""How long a server may be silent: a large model on a busy server takes minutes for a long reply."""

RETRIES = 6
"""How often a request is sent again: the waits double from half a second to eight, about 25 seconds in all, where the
server names no other."""

CONCURRENCY = 8
"""Requests under way at once: they fill the batches of a small server, and stay within the limits of a hosted one."""

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
        counts: requests answered, answers from the cache, retries, damaged cache lines.
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
        concurrency: int = CONCURRENCY,
        cache: str | Path | None = None,
    ) -> None:
        """Nothing is asked of the server yet.

        Args:
            base_url: where the API begins, such as ``http://127.0.0.1:8000/v1``.
            model: its name on that server.
            key_variable: the environment variable that holds the key; None takes ``OPENAI_API_KEY`` where it is set,
                and a local server needs none.
            timeout_seconds: how long a server may be silent.
            retries: after no connection, silence, 408, 409, 429 and 5xx. ``Retry-After`` is honoured up to two minutes.
            concurrency: requests under way at once.
            cache: a JSON lines file of replies, made where it is not there. Replies of another server, model,
                conversation or sampling are never mixed up; a relocated server's are asked again.

        Raises:
            EndpointError: no URL, no such variable, a number out of range, or a file that is not a cache.
        """
        # The openai package takes most of a second to import, and few runs have a server.
        from models.endpoint.transport import Transport

        self.name = f"{_without_password(base_url)}, model {model!r}"
        for key, value in (
            ("timeout_seconds", timeout_seconds),
            ("retries", retries + 1),
            ("concurrency", concurrency),
        ):
            if value <= 0:
                raise EndpointError(f"{self.name}: {key} is too small")
        self.model = model
        self.base_url = base_url.rstrip("/")
        self.concurrency = concurrency
        self.echoes: bool | None = None
        self.counts: Counter[str] = Counter()
        self._transport = Transport(self.name, self.base_url, self._read_key(key_variable), timeout_seconds, retries)
        self._cache = None if cache is None else ReplyCache(cache)
        self.counts["damaged cache lines"] = self._cache.damaged if self._cache else 0
        self._slots = threading.BoundedSemaphore(concurrency)
        self._counting = threading.Lock()

    def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """The model's next message.

        Raises:
            EndpointError: the server refused, failed, was silent or answered what cannot be read.
        """
        body = {"model": self.model, "messages": messages, **sampling.fields()}
        return self._ask("/chat/completions", body, ChatReply).completion()

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
            replies = pool.map(lambda messages: self.complete(messages, sampling), distinct.values())
            shown = tqdm(replies, total=len(distinct), desc=progress, disable=progress is None)
            by_key = dict(zip(distinct, shown, strict=True))
        finally:
            pool.shutdown(cancel_futures=True)
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
            log_probs = self._ask("/completions", body, EchoReply).token_log_probs()
        except EndpointError as error:
            if error.status not in _NO_SUCH_PATH:
                raise
            log_probs = []
        known = tuple(value for value in log_probs[len(prompt_ids) : len(ids)] if value is not None)
        self.echoes = len(known) == len(answer_ids)
        return known if self.echoes else None

    def _ask(self, path: str, body: dict[str, Any], kind: type[Reply]) -> Reply:
        """A valid reply of the cache or of the server."""
        request = json.dumps([self.base_url, path, body], sort_keys=True)
        key = hashlib.sha256(request.encode()).hexdigest()
        cached = self._cache.get(key) if self._cache else None
        if cached is not None:
            self._count("from the cache")
            return self._valid(cached, kind)
        with self._slots:
            received = self._transport.post(path, body)
        self._count("retries", received.retries)
        try:
            content = json.loads(received.content)
        except (ValueError, RecursionError) as error:
            words = self._transport.quoted(received.text)
            raise EndpointError(f"{self.name}: its reply is no JSON: {words}") from error
        reply = self._valid(content, kind)
        self._count("requests")
        if self._cache:
            self._cache.add(key, self.model, reply.model_dump())
        return reply

    def _valid(self, content: Any, kind: type[Reply]) -> Reply:
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            words = self._transport.quoted(json.dumps(content))
            raise EndpointError(
                f"{self.name}: its reply is not understood ({where}: {first['msg']}): {words}"
            ) from error

    def _count(self, event: str, number: int = 1) -> None:
        with self._counting:
            self.counts[event] += number

    def _read_key(self, variable: str | None) -> str:
        if variable is not None and not os.environ.get(variable):
            raise EndpointError(f"{self.name}: the environment variable {variable!r}, for its key, is not set")
        return os.environ.get(variable or KEY_VARIABLE, "")


def _without_password(base_url: str) -> str:
    """A URL as messages may show it.

    Raises:
        EndpointError: it is not a URL.
    """
    shown = base_url.rpartition("@")[2]
    try:
        parts = urlsplit(base_url)
        host = f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname
    except ValueError as error:
        raise EndpointError(f"endpoint {shown!r}: is no URL ({error})") from error
    if parts.scheme not in ("http", "https") or not host:
        raise EndpointError(f"endpoint {shown!r}: should be a URL such as http://127.0.0.1:8000/v1")
    return f"{parts.scheme}://{host}{parts.path}"
