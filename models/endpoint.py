"""A thin client of any OpenAI-compatible server: chat completions, and log-probs of a given answer where it has them.

Whatever a server does wrong is an ``EndpointError`` of one line. With a cache, whatever it did right is kept, so that
an interrupted run asks again only what it has not heard yet.
"""

import hashlib
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2  # the HTTP client that the openai package itself installs
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI, OpenAIError
from pydantic import BaseModel, Field, ValidationError
from tqdm import tqdm

from data.errors import InputError

KEY_VARIABLE = "OPENAI_API_KEY"
TIMEOUT_SECONDS = 300.0
RETRIES = 6
"""With waits that double from half a second to eight, about 25 seconds in all, where the server names no other."""

CONCURRENCY = 8

Messages = list[dict[str, str]]
"""One conversation: ``role`` and ``content`` of each message."""

_SHOWN_CHARACTERS = 240
_RETRIED = (408, 409, 429)
_NO_SUCH_PATH = (404, 405, 501)


class EndpointError(InputError):
    """A server that cannot be used as asked; the message is one line that names it.

    Attributes:
        status: the HTTP status it answered with; None where there was no answer, or one that cannot be read.
    """

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Sampling:
    """How a reply is sampled.

    Attributes:
        max_tokens: the most tokens of a reply.
        temperature: 0 is greedy; None sends none, for models that refuse the field.
        seed: several samples of one conversation need one each: equal requests are answered from the cache.
        stop: texts that end a reply.
        schema: a JSON schema the reply has to follow, where the server can constrain it.
        log_probs: whether to ask for the log-probs of the reply's tokens.
        extra: further fields of the request as the server knows them (``{"reasoning_effort": "low"}``). They replace
            those above, and None takes one out: ``{"max_tokens": None, "max_completion_tokens": 64}``.
    """

    max_tokens: int
    temperature: float | None = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: Mapping[str, Any] | None = None
    log_probs: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def fields(self) -> dict[str, Any]:
        """The request's fields."""
        schema = {"type": "json_schema", "json_schema": {"name": "reply", "strict": True, "schema": self.schema}}
        given = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": list(self.stop) or None,
            "response_format": schema if self.schema else None,
            "logprobs": self.log_probs or None,
        }
        return {key: value for key, value in {**given, **self.extra}.items() if value is not None}


@dataclass(frozen=True)
class Completion:
    """A reply.

    Attributes:
        text: empty where the server gave none; ``finish_reason`` says why.
        finish_reason: ``stop``, ``length`` or another word of the server's; None where it says nothing.
        tokens: of the reply, as the server counts them; None where it does not.
        log_probs: of the reply's tokens, in nats; None where they were not asked for or not given.
    """

    text: str
    finish_reason: str | None
    tokens: int | None
    log_probs: tuple[float, ...] | None = None


class _Message(BaseModel):
    content: str | None = None


class _TokenLogProb(BaseModel):
    logprob: float


class _ReplyLogProbs(BaseModel):
    content: list[_TokenLogProb] | None = None


class _Usage(BaseModel):
    completion_tokens: int | None = None


class _ChatChoice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ReplyLogProbs | None = None


class _Chat(BaseModel):
    choices: list[_ChatChoice] = Field(min_length=1)
    usage: _Usage | None = None


class _EchoLogProbs(BaseModel):
    token_logprobs: list[float | None] | None = None


class _EchoChoice(BaseModel):
    logprobs: _EchoLogProbs | None = None


class _Echo(BaseModel):
    choices: list[_EchoChoice] = Field(min_length=1)


Reply = TypeVar("Reply", bound=BaseModel)


class ReplyCache:
    """Replies by the hash of what was asked, one JSON line each, appended as they come.

    Several processes may append to one file; each knows what stood there when it opened it, and what it added itself.

    Attributes:
        damaged: lines that are no cached reply, such as the half-written last one of a killed process.
    """

    def __init__(self, path: str | Path) -> None:
        """Read what is there.

        Raises:
            EndpointError: the file cannot be read or written, or holds lines and none is a cached reply.
        """
        self.path = Path(path).expanduser()
        self.damaged = 0
        self._lock = threading.Lock()
        self._replies: dict[str, Any] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("ab+", buffering=0)
            self._file.seek(0)
            content = self._file.read()
        except OSError as error:
            raise EndpointError(f"cache {self.path}: cannot be opened ({error.strerror})") from error
        for line in content.splitlines():
            self._read(line)
        if self.damaged and not self._replies:
            raise EndpointError(f"cache {self.path}: holds no cached replies; name another file")
        # A half-written last line is closed, so that the next reply does not become part of it.
        self._opening = b"" if content.endswith(b"\n") or not content else b"\n"

    def get(self, key: str) -> Any | None:
        """The reply cached under ``key``, None where there is none."""
        return self._replies.get(key)

    def add(self, key: str, model: str, reply: Any) -> None:
        """Keep a reply.

        Raises:
            EndpointError: the file cannot be written to.
        """
        line = json.dumps({"key": key, "model": model, "reply": reply}).encode() + b"\n"
        with self._lock:
            try:
                self._file.write(self._opening + line)
            except OSError as error:
                raise EndpointError(f"cache {self.path}: cannot be written to ({error.strerror})") from error
            self._opening = b""
            self._replies[key] = reply

    def _read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            self._replies[str(record["key"])] = record["reply"]
        except (ValueError, TypeError, KeyError):
            self.damaged += 1


class Endpoint:
    """One model of one server. Threads may share it: no more than ``concurrency`` requests are under way at once.

    Attributes:
        name: base URL and model, as errors name them.
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
            EndpointError: no URL, no such variable, a number out of range, or a cache that is none.
        """
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
        self._timeout_seconds = timeout_seconds
        self._key = self._read_key(key_variable)
        self._cache = None if cache is None else ReplyCache(cache)
        self.counts["damaged cache lines"] = self._cache.damaged if self._cache else 0
        self._slots = threading.BoundedSemaphore(concurrency)
        self._counting = threading.Lock()
        self._client = OpenAI(
            base_url=self.base_url, api_key=self._key or "none", timeout=timeout_seconds, max_retries=retries
        )

    def complete(self, messages: Messages, sampling: Sampling) -> Completion:
        """The model's next message.

        Raises:
            EndpointError: the server refused, failed, was silent or answered what cannot be read.
        """
        body = {"model": self.model, "messages": messages, **sampling.fields()}
        reply = self._ask("/chat/completions", body, _Chat)
        choice = reply.choices[0]
        content = choice.logprobs.content if choice.logprobs else None
        return Completion(
            text=choice.message.content or "",
            finish_reason=choice.finish_reason,
            tokens=reply.usage.completion_tokens if reply.usage else None,
            log_probs=None if content is None else tuple(token.logprob for token in content),
        )

    def complete_all(
        self, batch: Sequence[Messages], sampling: Sampling, progress: str | None = None
    ) -> list[Completion]:
        """The model's next message in each conversation, in their order; equal ones are asked once.

        Args:
            batch: the conversations.
            sampling: of every reply.
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
            found = self._ask("/completions", body, _Echo).choices[0].logprobs
        except EndpointError as error:
            if error.status not in _NO_SUCH_PATH:
                raise
            found = None
        log_probs = (found.token_logprobs or [] if found else [])[len(prompt_ids) : len(ids)]
        known = tuple(value for value in log_probs if value is not None)
        self.echoes = len(known) == len(answer_ids)
        return known if self.echoes else None

    def _ask(self, path: str, body: dict[str, Any], kind: type[Reply]) -> Reply:
        """A valid reply of the cache or of the server."""
        asked = json.dumps([self.base_url, path, body], sort_keys=True)
        key = hashlib.sha256(asked.encode()).hexdigest()
        cached = self._cache.get(key) if self._cache else None
        if cached is not None:
            self._count("from the cache")
            return self._valid(cached, kind)
        with self._slots:
            response = self._post(path, body)
        try:
            content = json.loads(response.content)
        except ValueError as error:
            raise EndpointError(f"{self.name}: its reply is no JSON: {self._quoted(response.text)}") from error
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
            said = self._quoted(json.dumps(content))
            raise EndpointError(
                f"{self.name}: its reply is not understood ({where}: {first['msg']}): {said}"
            ) from error

    def _post(self, path: str, body: dict[str, Any]) -> httpx2.Response:
        """The server's reply, after as many tries as it takes and may take."""
        try:
            response = self._client.post(path, body=body, cast_to=httpx2.Response)
        except APIStatusError as error:
            tries = _tries(error.request) if error.status_code in _RETRIED or error.status_code >= 500 else ""
            said = self._quoted(_said(error.response))
            raise EndpointError(f"{self.name}: {error.status_code}{tries}: {said}", error.status_code) from error
        except APITimeoutError as error:
            silent = f"no answer within {self._timeout_seconds:g} seconds"
            raise EndpointError(f"{self.name}: {silent}{_tries(error.request)}") from error
        except APIConnectionError as error:
            reason = self._quoted(str(error.__cause__ or error))
            raise EndpointError(f"{self.name}: cannot be reached{_tries(error.request)}: {reason}") from error
        except (OpenAIError, httpx2.InvalidURL) as error:
            raise EndpointError(f"{self.name}: {self._quoted(str(error))}") from error
        self._count("retries", _retries(response.request))
        return response

    def _count(self, what: str, number: int = 1) -> None:
        with self._counting:
            self.counts[what] += number

    def _read_key(self, variable: str | None) -> str:
        if variable is not None and not os.environ.get(variable):
            raise EndpointError(f"{self.name}: the environment variable {variable!r}, for its key, is not set")
        return os.environ.get(variable or KEY_VARIABLE, "")

    def _quoted(self, text: str) -> str:
        """What a server said, on one short line and without the key, which some repeat."""
        hidden = text.replace(self._key, "[key]") if self._key else text
        line = " ".join(hidden.split()) or "nothing"
        return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}..."


def _without_password(base_url: str) -> str:
    """A URL as messages may show it.

    Raises:
        EndpointError: it is none.
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


def _said(response: httpx2.Response) -> str:
    """The message of a server's error, or else all it sent."""
    try:
        content = response.json()
    except ValueError:
        return response.text
    error = content.get("error", content) if isinstance(content, dict) else content
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message)


def _retries(request: httpx2.Request) -> int:
    # The client writes into each request how often it has tried before.
    return int(request.headers.get("x-stainless-retry-count", 0))


def _tries(request: httpx2.Request) -> str:
    retries = _retries(request)
    return f" after {retries + 1} tries" if retries else ""
