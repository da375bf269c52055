"""A model behind an OpenAI-compatible server: what a recipe says of it, the same for predictors, judges and writers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from configs.tree import ConfigError, Section
from models.endpoint import ANSWER_SECONDS, CONCURRENCY, RETRIES, TIMEOUT_SECONDS, Endpoint, EndpointError
from models.endpoint.address import checked_address

Seconds = Annotated[PositiveFloat, Field(le=86_400)]
"""Seconds that a server is waited for, a day at most."""

RESERVED = ("model", "messages", "prompt", "n", "stream", "echo", "logprobs")
"""Fields of a request that decide what is asked and how the reply is read."""

_SECRET = re.compile(r"api.?key|auth|password|passwd|secret|access.?token|bearer", re.IGNORECASE)
"""What the name of a field holds that is none of a request's: recipes are written down and shown."""

ANSWERS = "predictor.jsonl"
"""The file of a run folder that keeps the answers of predictors' servers: none is paid for twice."""

PATIENCE = frozenset(
    {
        "api_key_variable",
        "timeout_seconds",
        "retries",
        "answer_seconds",
        "concurrency",
        "dollars_per_million_tokens",
    }
)
"""Keys that no answer depends on: a run that is started again may have others."""


class Price(Section):
    """What a model costs, in dollars a million tokens."""

    read: NonNegativeFloat
    """Price of tokens that it reads."""

    written: NonNegativeFloat
    """Price of tokens that it writes."""

    def dollars(self, read: float, written: float) -> float:
        """What so many tokens cost, in dollars.

        Args:
            read: tokens that the model reads.
            written: tokens that it writes.
        """
        return (self.read * read + self.written * written) / 1_000_000


class ServerConfig(Section):
    """How a server is reached and waited for, and what its requests hold beside what is asked."""

    endpoint: str
    """Address of an OpenAI-compatible server, such as ``http://127.0.0.1:8000/v1``."""

    api_key_variable: str | None = None
    """Environment variable that holds the server's key; null sends the key of OPENAI_API_KEY, where there is one."""

    timeout_seconds: Seconds = TIMEOUT_SECONDS
    """Maximum seconds of one request to the server, from the connection to the last byte."""

    retries: Annotated[NonNegativeInt, Field(le=1000)] = RETRIES
    """Number of times that a request is sent again after no connection, silence, an error that may pass, or garbage."""

    answer_seconds: Seconds = ANSWER_SECONDS
    """Maximum seconds of one answer of the server: all its requests and the waits between them."""

    concurrency: Annotated[PositiveInt, Field(le=10_000)] = CONCURRENCY
    """Number of requests under way at once, of each process."""

    dollars_per_million_tokens: Price | None = None
    """Price of the server's model, by which a training counts what it has cost (``server/dollars``), and an evaluation
    what a question costs; null counts tokens alone."""

    request: dict[str, Any] = Field(default_factory=dict)
    """Further fields of each request, as the server knows them: ``{reasoning_effort: low}``. They replace those sent
    anyway, and null leaves one out: ``{max_tokens: null, max_completion_tokens: 64, temperature: null}``."""

    @field_validator("endpoint")
    @classmethod
    def _nothing_secret(cls, endpoint: str | None) -> str | None:
        if endpoint is not None:
            try:
                checked_address(endpoint)
            except EndpointError as error:
                # An error of pydantic's would show the value.
                raise ConfigError(str(error)) from None
        return endpoint

    @field_validator("api_key_variable")
    @classmethod
    def _a_name(cls, variable: str | None) -> str | None:
        if variable is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            raise ConfigError("api_key_variable: should name an environment variable, and never be the key itself")
        return variable

    @field_validator("request")
    @classmethod
    def _further_fields(cls, request: dict[str, Any]) -> dict[str, Any]:
        for name in request:
            if name in RESERVED:
                raise ConfigError(f"request.{name}: is not for a recipe to set; leave it out")
            if _SECRET.search(name):
                raise ConfigError(f"request.{name}: would be written into files; name a key as api_key_variable")
        try:
            json.dumps(request, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("should hold texts, numbers, true, false, null, lists and sections of them") from None
        return request


def open_server(
    server: ServerConfig,
    model: str,
    cache: Path | str | None,
    say: Callable[[str], None],
    concurrency: int | None = None,
) -> Endpoint:
    """A model of a server as configured; nothing is asked of it yet.

    Args:
        server: how it is reached and waited for.
        model: the model's name on that server.
        cache: a file that keeps its replies; None keeps none.
        say: takes what has to be said of its replies.
        concurrency: requests under way at once; None is as configured.

    Raises:
        EndpointError: its key is missing, or the file is not a cache.
    """
    return Endpoint(
        server.endpoint,
        model,
        key_variable=server.api_key_variable,
        timeout_seconds=server.timeout_seconds,
        retries=server.retries,
        answer_seconds=server.answer_seconds,
        concurrency=server.concurrency if concurrency is None else concurrency,
        cache=cache,
        say=say,
    )
