"""What is sent to a chat server and what comes back, in the published format, as far as it is used here."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from models.endpoint.errors import UnreadableReply

_THOUGHTS = re.compile(r"\A\s*(?:<think>(?:.*?</think>|.*\Z)|(?!\s*[{\[])(?:(?!<think>).)*?</think>)", re.DOTALL)
"""Thoughts in front of an answer: ``<think>...</think>``; without the first, which some templates put into the prompt;
without the second, where a limit ended them. JSON is never taken for thoughts."""

_HALVES = re.compile(r"[\ud800-\udfff]")
"""Halves of surrogate pairs, which JSON can spell and no UTF-8 holds."""

Messages = list[dict[str, str]]
"""One conversation: ``role`` and ``content`` of each message."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is sampled.

    Attributes:
        max_tokens: the most tokens a reply may have.
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
        standard = {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "seed": self.seed,
            "stop": list(self.stop) or None,
            "response_format": schema if self.schema else None,
            "logprobs": self.log_probs or None,
        }
        return {key: value for key, value in {**standard, **self.extra}.items() if value is not None}


@dataclass(frozen=True)
class Completion:
    """A reply.

    Attributes:
        text: the reply without thoughts in front of it; empty where the server gave none, and ``finish_reason`` says
            why. What a server gives apart as reasoning is no part of it.
        finish_reason: ``stop``, ``length`` or another word of the server's; None where it says nothing.
        tokens: the reply's tokens, as the server counts them; None where it does not.
        log_probs: log p of each token of the reply, thoughts included, nats; None where they were not asked for or not
            given.
        thoughts: whether thoughts in front of the reply were cut off.
        tokens_read: the tokens of the conversation, as the server counts them; None where it does not.
        kept: whether it was answered before, and kept in a cache; replies that differ in that alone are equal.
    """

    text: str
    finish_reason: str | None
    tokens: int | None
    log_probs: tuple[float, ...] | None = None
    thoughts: bool = False
    tokens_read: int | None = None
    kept: bool = field(default=False, compare=False)


class _Message(BaseModel):
    content: str | None = None


class _TokenLogProb(BaseModel):
    logprob: float


class _ReplyLogProbs(BaseModel):
    content: list[_TokenLogProb] | None = None


class Usage(BaseModel):
    """What a reply cost, in tokens, as the server counts them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _ChatChoice(BaseModel):
    message: _Message
    finish_reason: str | None = None
    logprobs: _ReplyLogProbs | None = None


class ChatReply(BaseModel):
    """The body of a reply to ``/chat/completions``."""

    choices: list[_ChatChoice] = Field(min_length=1)
    usage: Usage | None = None
    model: str | None = None

    def completion(self, kept: bool = False) -> Completion:
        """The first choice, which is the only one asked for; ``kept`` says that it comes from a cache."""
        choice = self.choices[0]
        content = choice.logprobs.content if choice.logprobs else None
        said = whole_characters(choice.message.content or "")
        text = _THOUGHTS.sub("", said)
        return Completion(
            text=text,
            finish_reason=None if choice.finish_reason is None else whole_characters(choice.finish_reason),
            tokens=self.usage.completion_tokens if self.usage else None,
            log_probs=None if content is None else tuple(token.logprob for token in content),
            thoughts=text != said,
            tokens_read=self.usage.prompt_tokens if self.usage else None,
            kept=kept,
        )


class _EchoLogProbs(BaseModel):
    token_logprobs: list[float | None] | None = None


class _EchoChoice(BaseModel):
    logprobs: _EchoLogProbs | None = None


class EchoReply(BaseModel):
    """The body of a reply to ``/completions`` that repeats its prompt, with log-probs where the server gives them."""

    choices: list[_EchoChoice] = Field(min_length=1)

    def token_log_probs(self) -> list[float | None]:
        """log p of each token of the prompt and of the reply, nats; empty where the server gives none."""
        log_probs = self.choices[0].logprobs
        return (log_probs.token_logprobs if log_probs else None) or []


Reply = TypeVar("Reply", bound=BaseModel)


def whole_characters(text: str) -> str:
    """A text that can be printed and written: half of a character is U+FFFD, as decoders of tokens write it."""
    return _HALVES.sub("\ufffd", text)


def valid_reply(content: bytes, kind: type[Reply]) -> Reply:
    """The body of a reply.

    Raises:
        UnreadableReply: it is none, such as an error, an error page or half of a reply; the message says what is wrong.
    """
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        raise UnreadableReply("its reply is no JSON") from None
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        if isinstance(body, dict) and body.get("error"):
            raise UnreadableReply("its reply is an error") from None
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UnreadableReply(f"its reply is not understood ({where}: {first['msg']})") from None
