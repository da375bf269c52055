"""What every request passes first: names of this machine, keys, and a body of limited size that comes in time.

A page of another site that is open in the user's browser can send requests to loopback. Such requests are simple ones,
or come under a name that the site made point here: a body has to be declared as JSON, and on loopback the host has to
be a name of loopback.
"""

import asyncio
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from models.serve.refusal import Refusal

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Names of this machine for itself."""

OPEN_PATHS = ("/", "/health")
"""Paths that need no key: the page, which asks for one itself, and whether the server is there."""


@dataclass(frozen=True)
class Gate:
    """Who may ask, and how much.

    Attributes:
        keys: any of them opens; none are needed where there are none.
        hosts: the names that a request may be addressed to; empty allows all.
        body_bytes: the most bytes of a body.
        body_seconds: how long a body may take to arrive.
    """

    keys: Sequence[str] = ()
    hosts: Sequence[str] = LOOPBACK
    body_bytes: int = 2 << 20
    body_seconds: float = 30.0

    def check(self, request: Request) -> None:
        """Look at the headers.

        Raises:
            Refusal: another host, or no valid key.
        """
        host = request.headers.get("host", "").rpartition(":")[0] or request.headers.get("host", "")
        if self.hosts and host.strip("[]").lower() not in self.hosts:
            raise Refusal("this server answers to names of its own machine alone", status=403, code="wrong_host")
        if not self.keys or request.url.path in OPEN_PATHS:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        # All keys are compared, and each in constant time.
        right = [hmac.compare_digest(key.encode(), given.strip().encode("utf-8", "replace")) for key in self.keys]
        if kind.lower() != "bearer" or not any(right):
            raise Refusal("a valid key is needed: Authorization: Bearer KEY", status=401, code="invalid_api_key")

    async def body(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            Refusal: it is no JSON, compressed, too large, or does not arrive in time.
            ClientDisconnect: the client has gone before its end.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise Refusal("Content-Type should be application/json", status=415, code="wrong_content_type")
        if request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal("the body should not be compressed", status=415, code="wrong_content_encoding")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self.body_bytes:
            raise self._too_large()
        try:
            return await asyncio.wait_for(self._read(request), self.body_seconds)
        except TimeoutError:
            raise Refusal(
                f"the body did not arrive within {self.body_seconds:g} seconds", status=408, code="body_timeout"
            ) from None

    async def _read(self, request: Request) -> bytes:
        content = bytearray()
        async for piece in request.stream():
            content += piece
            if len(content) > self.body_bytes:
                raise self._too_large()
        return bytes(content)

    def _too_large(self) -> Refusal:
        return Refusal(f"the body has more than {self.body_bytes:,} bytes", status=413, code="body_too_large")
