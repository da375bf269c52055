"""Running the web server: its socket, its end, and connections that never say anything."""

import asyncio
import signal
import socket
import sys
from types import FrameType

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from models.naming import ModelError
from models.serve.line import Line

HEADER_SECONDS = 15.0
"""How long the headers of a first request may take after a connection: a client that connects has something to say."""

MOST_CONNECTIONS = 256
"""Connections at once; further ones are answered 503. Few of them can have a place in the line."""

GRACE_SECONDS = 20
"""How long work under way may take to finish once the server is told to end."""

ABANDON_SECONDS = 10.0
"""How long work that is ended may take to notice: a layer of a large model over a long document."""


class _Protocol(H11Protocol):
    """HTTP of which the first request has to begin in time; uvicorn itself waits for headers for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._header_clock = self.loop.call_later(HEADER_SECONDS, self._no_headers)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._header_clock.cancel()
        super().connection_lost(exc)

    def _no_headers(self) -> None:
        if self.cycle is None:
            self.transport.close()


class _Server(uvicorn.Server):
    """A server that takes nothing new into its line once it is told to end."""

    def __init__(self, config: uvicorn.Config, line: Line) -> None:
        super().__init__(config)
        self._line = line

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Told to end by a signal: who waits is refused, what is worked on may finish."""
        super().handle_exit(sig, frame)
        # Not here: the signal may have come while the line's lock was held.
        asyncio.get_running_loop().call_soon_threadsafe(self._line.close)


def bound(host: str, port: int) -> socket.socket:
    """A socket at an address, which does not listen yet.

    Raises:
        ModelError: the address cannot be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(f"--host {host} --port {port}: cannot be used ({reason})") from error
    return taken


def address(taken: socket.socket) -> str:
    """The URL of a socket."""
    host, port = taken.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_of(app: Starlette, line: Line) -> uvicorn.Server:
    """The server of an application, which runs on a bound socket."""
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        server_header=False,
    )
    return _Server(config, line)


def serve(app: Starlette, line: Line, taken: socket.socket) -> None:
    """Serve until SIGTERM, which is an ordinary end, or SIGINT, which is raised as `KeyboardInterrupt` after it."""
    # uvicorn raises a signal again once it has ended.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server_of(app, line).run([taken])
    finally:
        line.stop(ABANDON_SECONDS)
        print("stopped", file=sys.stderr)
