"""A real HTTP server on loopback that answers what a test has written down, and remembers what it was asked."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; seconds of a monotonic clock."""

    path: str
    headers: Mapping[str, str]
    body: Any
    seconds: float


@dataclass(frozen=True)
class Answer:
    """What is sent back, after ``delay`` seconds and with ``byte_delay`` before each byte, headers included.

    A body that is no text goes as JSON.
    """

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    byte_delay: float = 0.0


Script = Callable[[Asked, int], Answer]
"""The answer to a request and its number, which starts at 0."""


class LocalServer(ThreadingHTTPServer):
    """Answers by a script.

    Attributes:
        asked: every request so far.
        most_at_once: requests that were under way at the same time.
        listing: the answer to a look at the list of models; such a look is no request.
    """

    daemon_threads = True

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.asked: list[Asked] = []
        self.listing = Answer("no such path", 404)
        self.most_at_once = self._at_once = 0
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where an OpenAI-compatible API would begin."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def answer(self, asked: Asked) -> Answer:
        """The script's answer, once it is time."""
        with self._lock:
            number = len(self.asked)
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        answer = self.script(asked, number)
        time.sleep(answer.delay)
        with self._lock:
            self._at_once -= 1
        return answer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that stopped waiting is no error here."""


class _Dripping(BufferedIOBase):
    """A stream that takes its time for every byte."""

    def __init__(self, stream: BufferedIOBase, byte_delay: float) -> None:
        self.stream, self.byte_delay = stream, byte_delay

    def write(self, content: Any) -> int:
        for byte in content:
            time.sleep(self.byte_delay)
            self.stream.write(bytes([byte]))
        return len(content)


class _Handler(BaseHTTPRequestHandler):
    server: LocalServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(self.path, dict(self.headers.items()), json.loads(content), time.monotonic())
        self._send(self.server.answer(asked))

    def do_GET(self) -> None:
        self._send(self.server.listing)

    def _send(self, answer: Answer) -> None:
        body = (answer.body if isinstance(answer.body, str) else json.dumps(answer.body)).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if answer.byte_delay:
            self.wfile = _Dripping(self.wfile, answer.byte_delay)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(script: Script | list[Answer]) -> Iterator[LocalServer]:
    """A server that follows a script, or gives the answers of a list and then the last of them for ever."""
    answers = script if callable(script) else _listed(script)
    server = LocalServer(answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def chat(text: str | None, **choice: Any) -> dict[str, Any]:
    """A chat completion in the published format."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None} | choice],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


def _listed(answers: list[Answer]) -> Script:
    return lambda asked, number: answers[min(number, len(answers) - 1)]
