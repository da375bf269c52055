"""A chat request as OpenAI's API has it, read as a document, a question and how to write the message.

A request says what to compress in one of two ways: in the fields ``document`` and ``question`` beside ``messages``, or
as a plain chat history, the way agents ask for a compaction: the last user message is the question, and all others are
the document.
"""

import secrets
from dataclasses import dataclass
from typing import Any

from data.reading import shown
from models.serve.backend import Task
from models.serve.fields import Fields, check_known, number, text, truth, whole_number, wrong
from models.serve.history import split, turns
from models.serve.refusal import Refusal

MOST_CHOICES = 8
"""The most messages of one request: they are written together, from one reading of the document."""

LEAST_TEMPERATURE = 1e-6
"""Below it sampling is greedy in all but ties: logits that differ by 1e-4 have odds of e^100. Logits that are divided
by far less are infinite."""

DEFAULT_QUESTION = "What should be remembered?"
"""What a history without a question of its own is compressed for."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "stop": ([], ""),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "top_p": (1,),
    "web_search_options": (),
}
"""What a compressor cannot do, and the values that ask for nothing; null is always one. All others are refused."""

IGNORED = (
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "user",
    "verbosity",
)
"""Fields that change nothing of a message, and are not looked at."""

READ = (
    "model",
    "messages",
    "document",
    "question",
    "bits",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
    "n",
    "stream",
    "stream_options",
)
"""Fields that are understood."""


@dataclass(frozen=True)
class Limits:
    """What a compressor and its server allow.

    Attributes:
        model: the name it is served by.
        budget_tokens: the budget where a request names none.
        most_budget_tokens: the largest budget.
        hidden: whether the compressor is told no question.
        bits: whether replies tell what messages carry, where a request does not say.
        default_question: what a history without a question of its own is compressed for.
    """

    model: str
    budget_tokens: int
    most_budget_tokens: int
    hidden: bool = False
    bits: bool = True
    default_question: str = DEFAULT_QUESTION


@dataclass(frozen=True)
class ChatRequest:
    """A request that can be worked on.

    Attributes:
        task: the work.
        stream: whether the reply comes in pieces.
        stream_usage: whether a stream ends with its usage.
        unread_messages: messages that stand beside a document and were not read.
    """

    task: Task
    stream: bool = False
    stream_usage: bool = False
    unread_messages: int = 0

    @property
    def sampled(self) -> bool:
        """Whether the seed mattered."""
        return self.task.temperature > 0


def read_chat(fields: Fields, limits: Limits) -> ChatRequest:
    """The request that a body means.

    Raises:
        Refusal: naming the first field that is wrong, unknown, or asks for what cannot be done.
    """
    check_known(fields, (*READ, *NEUTRAL, *IGNORED))
    _check_neutral(fields)
    check_model(fields, limits)
    document, question, unread = _content(fields, limits)
    stream = truth(fields, "stream", False)
    return ChatRequest(
        task_of(fields, limits, document, question, whole_number(fields, "n", 1, MOST_CHOICES) or 1),
        stream,
        _stream_usage(fields, stream),
        unread,
    )


def task_of(fields: Fields, limits: Limits, document: str, question: str, n: int = 1) -> Task:
    """The work on a document: how long the message may be, and how it is sampled; next to temperature 0 it is greedy.

    Raises:
        Refusal: the budget, the temperature or the seed is wrong.
    """
    temperature = number(fields, "temperature", 0, 2) or 0.0
    if temperature < LEAST_TEMPERATURE:
        temperature = 0.0
    seed = whole_number(fields, "seed", -(2**63), 2**63 - 1)
    return Task(
        document,
        "" if limits.hidden else question,
        budget(fields, limits),
        n,
        temperature,
        secrets.randbits(48) if seed is None and temperature > 0 else seed or 0,
        truth(fields, "bits", limits.bits),
    )


def budget(fields: Fields, limits: Limits) -> int:
    """The most tokens of a message.

    Raises:
        Refusal: it is no number of tokens, or leaves the model no room to read.
    """
    names = ("max_completion_tokens", "max_tokens")
    asked = {name: fields[name] for name in names if fields.get(name) is not None}
    if len(set(map(str, asked.values()))) > 1:
        raise Refusal(
            "'max_tokens' and 'max_completion_tokens' differ; send one", param="max_tokens", code="invalid_value"
        )
    for name in asked:
        return whole_number(fields, name, 1, limits.most_budget_tokens) or 0
    return limits.budget_tokens


def check_model(fields: Fields, limits: Limits) -> None:
    """Refuse another model than the one that is served; a request may leave it out.

    Raises:
        Refusal: it is another.
    """
    name = text(fields, "model")
    if name is not None and name != limits.model:
        raise Refusal(
            f"model {shown(name)} is not served here, {limits.model!r} is",
            status=404,
            param="model",
            code="model_not_found",
        )


def _check_neutral(fields: Fields) -> None:
    for name, neutral in NEUTRAL.items():
        value = fields.get(name)
        # Python takes True for 1.
        same = [allowed for allowed in neutral if value == allowed and isinstance(value, bool) == (allowed is False)]
        if value is not None and not same:
            raise Refusal(
                f"{name!r}: a compressor cannot do that; leave it out", param=name, code="unsupported_parameter"
            )


def _content(fields: Fields, limits: Limits) -> tuple[str, str, int]:
    """The document, the question, and how many messages were not read."""
    document, question = text(fields, "document"), text(fields, "question")
    history = turns(fields.get("messages"))
    if document is None:
        found, asked = split(history, question, limits.default_question)
        return found, asked, 0
    if question is not None:
        return document, question, len(history)
    if asked := next((turn for turn in reversed(history) if turn.role == "user" and turn.text.strip()), None):
        return document, asked.text, len(history) - 1
    if not limits.hidden:
        raise Refusal(
            "a 'document' needs a 'question', or a user message that is one", param="question", code="missing_parameter"
        )
    return document, "", len(history)


def _stream_usage(fields: Fields, stream: bool) -> bool:
    options = fields.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise wrong("stream_options", "an object", options)
    if not stream:
        raise Refusal("'stream_options' is for streams alone", param="stream_options", code="invalid_value")
    check_known(options, ("include_usage", "include_obfuscation"))
    return truth(options, "include_usage", False)
