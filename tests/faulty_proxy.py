"""A real HTTP proxy on loopback that spoils some of what goes through it, and remembers what became of each request."""

import http.client
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["error", "busy", "stall", "cut off", "half"]
"""A 500 and a 429 with ``Retry-After``, for which nobody is asked; silence; a body that ends before its stated length,
with the connection; half a body, correctly framed. For the last three the server behind has done its work."""

RETRY_AFTER = 1
"""Seconds that a 429 asks for."""


@dataclass
class Exchange:
    """A request and what became of it; seconds of a monotonic clock.

    Attributes:
        body: what was asked.
        seconds: when it came.
        fault: what was done to it; None is nothing.
        reply: what the server behind replied; empty where it was not asked.
        delivered: whether the reply was sent to its end.
        ended: when the proxy was done with it; 0 while it is not.
    """

    body: bytes
    seconds: float
    fault: Fault | None
    reply: bytes = b""
    delivered: bool = False
    ended: float = 0.0


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on to a server, and spoils them in turn.

    Attributes:
        exchanges: all requests so far, in the order in which they came.
    """

    daemon_threads = True

    def __init__(self, upstream: str, faults: Sequence[Fault | None]) -> None:
        """Nothing is passed on yet.

        Args:
            upstream: where the API of the server behind begins.
            faults: what happens to the first request, to the second, and so on; after the last, the first again.
        """
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.faults = urlsplit(upstream), faults
        self.exchanges: list[Exchange] = []
        self.closing = threading.Event()
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where the API begins."""
        return f"http://127.0.0.1:{self.server_port}{self.upstream.path}"

    def begin(self, body: bytes) -> Exchange:
        """Remember a request, and decide what becomes of it."""
        with self._lock:
            fault = self.faults[len(self.exchanges) % len(self.faults)]
            self.exchanges.append(exchange := Exchange(body, time.monotonic(), fault))
        return exchange

    def pass_on(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """The status and body of what the server behind replies."""
        connection = http.client.HTTPConnection(str(self.upstream.hostname), self.upstream.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that stopped waiting is no error here."""


class _Handler(BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(*self.server.pass_on("GET", self.path, None))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        exchange = self.server.begin(body)
        try:
            if exchange.fault == "error":
                self._send(500, b'{"error": {"message": "out of memory"}}')
            elif exchange.fault == "busy":
                self._send(429, b'{"error": {"message": "slow down"}}', {"Retry-After": str(RETRY_AFTER)})
            else:
                self._answer(exchange)
        finally:
            exchange.ended = time.monotonic()

    def _answer(self, exchange: Exchange) -> None:
        status, exchange.reply = self.server.pass_on("POST", self.path, exchange.body)
        half = exchange.reply[: len(exchange.reply) // 2]
        if exchange.fault == "stall":
            self.server.closing.wait()
            self.close_connection = True
        elif exchange.fault == "cut off":
            self._send(status, half, {"Content-Length": str(len(exchange.reply))})
            self.close_connection = True
        elif exchange.fault == "half":
            self._send(status, half)
        else:
            self._send(status, exchange.reply)
            exchange.delivered = status == 200

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def faulty(upstream: str, faults: Sequence[Fault | None]) -> Iterator[FaultyProxy]:
    """A proxy in front of a server, on a port of its own."""
    proxy = FaultyProxy(upstream, faults)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        proxy.shutdown()
        proxy.server_close()
