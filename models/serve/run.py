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
"""How long the headers of a request may take, after the connection or the reply to the request before it: a client that
connects has something to say, and an idle connection takes the place of another. uvicorn itself closes one that is
silent after a reply within 5 seconds."""

MOST_CONNECTIONS = 256
"""Connections at once; further ones are answered 503. Few of them can have a place in the line."""

BACKLOG = 2048
"""Connections that the system holds until the server takes them, as uvicorn has it."""

GRACE_SECONDS = 20
"""How long work under way may take to finish once the server is told to end."""

ABANDON_SECONDS = 10.0
"""How long work that is ended may take to notice: a layer of a large model over a long document."""


class _Protocol(H11Protocol):
    """HTTP in which every request has to begin in time.

    uvicorn itself waits for headers for ever once their first byte is there. Here a clock runs whenever no request is
    under way, and no byte stops it but the last one of the headers.
    """

    _header_clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._set_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop it."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Stop it where the headers are whole."""
        super().data_received(data)
        if self._under_way():
            self._stop_clock()

    def on_response_complete(self) -> None:
        """Start it anew, unless the next request is there already."""
        super().on_response_complete()
        self._set_clock()

    def _under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _set_clock(self) -> None:
        self._stop_clock()
        if not self._under_way():
            self._header_clock = self.loop.call_later(HEADER_SECONDS, self._no_headers)

    def _stop_clock(self) -> None:
        if self._header_clock is not None:
            self._header_clock.cancel()

    def _no_headers(self) -> None:
        # Not closed in order, which waits until the client has read what was sent before.
        if not self._under_way():
            self.transport.abort()


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


def listen(taken: socket.socket, host: str, port: int) -> None:
    """Make a socket listen; two servers may have bound one port, and the first that listens has it.

    Args:
        taken: the socket.
        host: the address, as the error names it.
        port: its port.

    Raises:
        ModelError: another has it.
    """
    try:
        taken.listen(BACKLOG)
    except OSError as error:
        raise ModelError(f"--host {host} --port {port}: cannot be used ({error.strerror or error})") from error


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
        backlog=BACKLOG,
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
