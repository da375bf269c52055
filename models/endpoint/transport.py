"""Requests to one server, with retries; whatever goes wrong is one line that names the server and hides the key.

Every limit is in seconds of a clock on the wall: a server that sends a byte a second is given up as a silent one is.
Requests therefore run on an event loop of their own thread, where a request can be ended at any moment.
"""

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2

from data.errors import one_line
from models.endpoint.chat import whole_characters
from models.endpoint.errors import EndpointError, UnreadableReply
from models.endpoint.http_client import CONNECT_SECONDS, http_client

SHOWN_CHARACTERS = 240
"""Characters of a server's own words in an error: two lines of a terminal, and long enough for most of them."""

PROBE_SECONDS = 5.0
"""How long the first look at a server may take; a busy one that says nothing meanwhile is there."""

PROBE_WAITS = (0.5, 1.0)
"""Seconds between the first looks: a connection may fail once by chance, and a mistaken address is told at once."""

FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.5, 8.0
"""Waits between tries double from the first to the longest, where the server names no other."""

LONGEST_NAMED_WAIT_SECONDS = 120.0
"""The longest wait that a server may ask for; a quota that comes back later is worth a word to its user."""

_RETRIED = (408, 409, 429)
"""Statuses below 500 that pass: timeout, conflict, too many requests."""

_EMPTYING_REDIRECTS = (301, 302, 303)
"""Redirects after which a client asks without what it had to say, unlike 307 and 308."""

Read = TypeVar("Read")


@dataclass(frozen=True)
class Limits:
    """How long a server is waited for.

    Attributes:
        request_seconds: the most seconds of one request, from the connection to the last byte.
        retries: how often a request is sent again.
        answer_seconds: the most seconds of one answer: all its requests and the waits between them.
    """

    request_seconds: float
    retries: int
    answer_seconds: float


class _Failed(Exception):
    """A try that brought no answer."""

    def __init__(
        self,
        what: str,
        words: str = "",
        *,
        status: int | None = None,
        again: bool = True,
        wait: float | None = None,
        reached: bool = True,
    ) -> None:
        """Say what happened.

        Args:
            what: in a few words.
            words: the server's own.
            status: what it answered with.
            again: whether another try may go better.
            wait: the seconds that the server asks to be left alone.
            reached: whether there was a connection.
        """
        super().__init__(what)
        self.what, self.words, self.status, self.again, self.wait = what, words, status, again, wait
        self.reached = reached


class Transport:
    """The HTTP client of one server; threads may share it."""

    def __init__(self, name: str, base_url: str, key: str, limits: Limits) -> None:
        """Nothing is asked of the server yet.

        Args:
            name: how errors name the server.
            base_url: where the API begins.
            key: the server's key; empty where it needs none.
            limits: how long it is waited for.

        Raises:
            EndpointError: the key is none that can be sent, or the environment names a proxy or certificates that
                cannot be used.
        """
        self.name = name
        self._base_url = base_url
        self._key = key
        self._limits = limits
        self._client = http_client(name, key, self._refuse_redirect)

    def post(self, path: str, body: dict[str, Any], read: Callable[[bytes], Read]) -> tuple[Read, int]:
        """A server's answer to a request, after as many tries as it takes and may take.

        Args:
            path: from where the API begins.
            body: sent as JSON.
            read: reads the body of a reply, and raises `UnreadableReply` where it is no answer; that is tried again, as
                servers under load send error pages with status 200.

        Returns:
            What was read, and how often the request was sent again.

        Raises:
            EndpointError: the server cannot be reached, is silent, or answers with an error or with what is no answer.
        """
        deadline = time.monotonic() + self._limits.answer_seconds
        for number in itertools.count():
            try:
                return self._read(self._send("POST", path, body, deadline - time.monotonic()), read), number
            except _Failed as failure:
                wait = self._wait(failure, number, deadline)
                if wait is None:
                    raise self._error(failure, number + 1, deadline) from failure
            time.sleep(wait)
        raise AssertionError("counting does not end")

    def probe(self) -> None:
        """Find out in seconds whether the server is there, by asking for its list of models.

        Whatever it answers will do, for not every server has the list; so will silence after a connection.

        Raises:
            EndpointError: no connection in a few quick tries, or it refuses the key.
        """
        for number, wait in enumerate((*PROBE_WAITS, None), start=1):
            try:
                self._send("GET", "/models", None, PROBE_SECONDS)
                return
            except _Failed as failure:
                if failure.reached and failure.status != 401:
                    return
                if wait is None or failure.reached:
                    raise self._error(failure, number) from failure
                time.sleep(wait)

    def quoted(self, text: str) -> str:
        """What a server said, on one short line and without the key, which some repeat."""
        hidden = text.replace(self._key, "[key]") if self._key else text
        return one_line(whole_characters(hidden).strip() or "nothing", SHOWN_CHARACTERS)

    def _send(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> httpx2.Response:
        """A reply with a status of success.

        Raises:
            _Failed: there is none.
        """
        # Escaped to ASCII, also half of a surrogate pair has a form in which it can be sent.
        content = None if body is None else json.dumps(body).encode()
        limit = max(min(self._limits.request_seconds, seconds), 0.001)
        try:
            response = _finished(
                asyncio.wait_for(self._client.request(method, self._base_url + path, content=content), limit)
            )
        except TimeoutError:
            raise _Failed(f"no answer within {limit:.3g} seconds") from None
        except httpx2.ConnectTimeout:
            raise _Failed("cannot be reached", f"no connection within {CONNECT_SECONDS:g} s", reached=False) from None
        except (httpx2.RequestError, httpx2.InvalidURL, OSError) as error:
            reached = not isinstance(error, httpx2.ConnectError | httpx2.ProxyError | httpx2.InvalidURL)
            raise _Failed("cannot be reached", self.quoted(one_line(error)), reached=reached) from error
        if response.is_success:
            return response
        raise _Failed(
            str(response.status_code),
            self.quoted(error_message(response.content)),
            status=response.status_code,
            again=response.status_code in _RETRIED or response.status_code >= 500,
            wait=_named_wait(response),
        )

    async def _refuse_redirect(self, response: httpx2.Response) -> None:
        """Refuse a redirect that drops the body of a request: what is answered then answers nothing.

        Raises:
            _Failed: it is one; where it leads is told.
        """
        status, target = response.status_code, response.headers.get("location", "")
        if response.request.method == "POST" and status in _EMPTYING_REDIRECTS and target:
            words = (
                f"redirects to {self.quoted(target)}, on the way to which a request loses its text; name that server"
            )
            raise _Failed(str(status), words, status=status, again=False)

    def _read(self, response: httpx2.Response, read: Callable[[bytes], Read]) -> Read:
        try:
            return read(response.content)
        except UnreadableReply as error:
            # Not in the encoding that the reply names: Python knows some that are none of text, and fails in them.
            raise _Failed(str(error), self.quoted(response.content.decode("utf-8", "replace"))) from error

    def _wait(self, failure: _Failed, number: int, deadline: float) -> float | None:
        """The seconds until a try that follows try ``number``, the first of which is 0; None where there is none."""
        if not failure.again or number >= self._limits.retries:
            return None
        doubled = min(FIRST_WAIT_SECONDS * 2**number, LONGEST_WAIT_SECONDS)
        # Scattered, so that requests which failed together do not come back together.
        wait = doubled * random.uniform(0.75, 1) if failure.wait is None else failure.wait
        if wait > LONGEST_NAMED_WAIT_SECONDS or time.monotonic() + wait >= deadline:
            return None
        return wait

    def _error(self, failure: _Failed, tries: int, deadline: float | None = None) -> EndpointError:
        after = f" after {tries} tries" if tries > 1 else ""
        if failure.again and deadline is not None and tries <= self._limits.retries:
            longer = f"{failure.wait:g} seconds are asked for; " if failure.wait else ""
            after += f" ({longer}one answer may take {self._limits.answer_seconds:g} seconds in all)"
        words = f": {failure.words}" if failure.words else ""
        return EndpointError(f"{self.name}: {failure.what}{after}{words}", failure.status)


def error_message(content: bytes) -> str:
    """The message of a server's error, or else all it sent."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return message if isinstance(message, str) else json.dumps(message)


def _named_wait(response: httpx2.Response) -> float | None:
    """The seconds of ``Retry-After``, or until its date; None where it is missing or neither."""
    named = response.headers.get("retry-after", "")
    try:
        seconds = float(named)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(named).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None


class _Requests:
    """The loop that all requests of this process run on, in a thread that ends with the process."""

    _starting = threading.Lock()
    _loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def loop(cls) -> asyncio.AbstractEventLoop:
        """The loop, started by the first request."""
        with cls._starting:
            if cls._loop is None:
                cls._loop = asyncio.new_event_loop()
                threading.Thread(target=cls._loop.run_forever, name="requests", daemon=True).start()
            return cls._loop


Result = TypeVar("Result")


def _finished(work: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine gives; it is cancelled where the waiting thread is interrupted."""
    future = asyncio.run_coroutine_threadsafe(work, _Requests.loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
