"""Requests to one server, with retries; whatever goes wrong is one line that names the server and hides the key."""

import json
from typing import Any, NamedTuple

import httpx2  # the HTTP client that the openai package itself installs
from openai import APIConnectionError, APIStatusError, APITimeoutError, OpenAI, OpenAIError

from data.errors import one_line
from models.endpoint.errors import EndpointError

SHOWN_CHARACTERS = 240
"""Characters of a server's own words in an error: two lines of a terminal, and long enough for most of them."""

_RETRIED = (408, 409, 429)
"""Statuses below 500 after which the openai client tries again: timeout, conflict, too many requests."""


class Received(NamedTuple):
    """A server's answer.

    Attributes:
        content: the body as it came.
        text: the body as text, for messages.
        retries: how often the request was sent again before it was answered.
    """

    content: bytes
    text: str
    retries: int


class Transport:
    """The HTTP client of one server; threads may share it."""

    def __init__(self, name: str, base_url: str, key: str, timeout_seconds: float, retries: int) -> None:
        """Nothing is asked of the server yet.

        Args:
            name: how errors name the server.
            base_url: where the API begins.
            key: the server's key; empty where it needs none.
            timeout_seconds: how long the server may be silent.
            retries: how often a request is sent again.
        """
        self.name = name
        self._key = key
        self._timeout_seconds = timeout_seconds
        # The client refuses to be without a key; a server that needs none takes any.
        self._client = OpenAI(base_url=base_url, api_key=key or "none", timeout=timeout_seconds, max_retries=retries)

    def post(self, path: str, body: dict[str, Any]) -> Received:
        """The server's answer to a request, after as many tries as it takes and may take.

        Raises:
            EndpointError: the server cannot be reached, is silent, or answers with an error.
        """
        try:
            response = self._client.post(path, body=body, cast_to=httpx2.Response)
        except APIStatusError as error:
            tries = _tries(error.request) if error.status_code in _RETRIED or error.status_code >= 500 else ""
            words = self.quoted(_error_message(error.response))
            raise EndpointError(f"{self.name}: {error.status_code}{tries}: {words}", error.status_code) from error
        except APITimeoutError as error:
            silence = f"no answer within {self._timeout_seconds:g} seconds"
            raise EndpointError(f"{self.name}: {silence}{_tries(error.request)}") from error
        except APIConnectionError as error:
            reason = self.quoted(str(error.__cause__ or error))
            raise EndpointError(f"{self.name}: cannot be reached{_tries(error.request)}: {reason}") from error
        except (OpenAIError, httpx2.InvalidURL) as error:
            raise EndpointError(f"{self.name}: {self.quoted(str(error))}") from error
        return Received(response.content, response.text, _retries(response.request))

    def quoted(self, text: str) -> str:
        """What a server said, on one short line and without the key, which some repeat."""
        hidden = text.replace(self._key, "[key]") if self._key else text
        return one_line(hidden.strip() or "nothing", SHOWN_CHARACTERS)


def _error_message(response: httpx2.Response) -> str:
    """The message of a server's error, or else all it sent."""
    try:
        content = response.json()
    except ValueError:
        return response.text
    error = content.get("error", content) if isinstance(content, dict) else content
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message)


def _retries(request: httpx2.Request) -> int:
    # The client writes into each request how often it was sent before.
    return int(request.headers.get("x-stainless-retry-count", 0))


def _tries(request: httpx2.Request) -> str:
    retries = _retries(request)
    return f" after {retries + 1} tries" if retries else ""
