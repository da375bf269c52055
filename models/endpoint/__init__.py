"""A thin client of any OpenAI-compatible server: chat completions, and log-probs of a given answer where it has them.

Whatever a server does wrong is an `EndpointError` of one line. With a cache, whatever it did right is kept, so that an
interrupted run asks again only what was not answered before. The HTTP client takes most of a second to import, so it
waits for the first `Endpoint`.
"""

from models.endpoint.chat import Completion, Messages, Sampling
from models.endpoint.client import (
    ANSWER_SECONDS,
    CONCURRENCY,
    KEY_VARIABLE,
    REFUSALS,
    RETRIES,
    TIMEOUT_SECONDS,
    TOKENS_READ,
    TOKENS_WRITTEN,
    Endpoint,
)
from models.endpoint.errors import EndpointError

__all__ = [
    "ANSWER_SECONDS",
    "CONCURRENCY",
    "KEY_VARIABLE",
    "REFUSALS",
    "RETRIES",
    "TIMEOUT_SECONDS",
    "TOKENS_READ",
    "TOKENS_WRITTEN",
    "Completion",
    "Endpoint",
    "EndpointError",
    "Messages",
    "Sampling",
]
