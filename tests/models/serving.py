"""Servers of compressors on loopback, for tests: real sockets, an embedded model or a backend that a test scripts."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest

from models.compressor import Compressor
from models.loading import load_model
from models.serve.backend import Backend, Choice, Task, Watch, Written
from models.serve.chat_request import Limits
from models.serve.line import Line
from models.serve.service import Service

MODEL = "miniature/qwen2-small"
DOCUMENT = "Patient record of Ms Korbex, ward 41.\n\nThe zinc was 52. Her gout needs Marlodd."
QUESTION = "What was the zinc?"
CHAT = "/v1/chat/completions"


@dataclass
class Scripted:
    """A backend that does what a test says, and remembers what it was asked.

    Attributes:
        script: writes the message of a task; the watch is its to check.
        asked: every task so far.
    """

    script: Callable[[Task, Watch], str] = lambda task, watch: "The zinc was 52."
    budget_tokens: int = 16
    most_budget_tokens: int = 100
    hidden: bool = False
    asked: list[Task] = field(default_factory=list)

    def write(self, task: Task, watch: Watch) -> Written:
        watch.check()
        self.asked.append(task)
        text = self.script(task, watch)
        watch.say(0, text)
        return Written(tuple(Choice(text, 5, True) for _ in range(task.n)), 20, 0)

    def describe(self) -> dict[str, Any]:
        return {"backend": "scripted", "window": 128}


@dataclass
class Running:
    """A server at work."""

    url: str
    service: Service
    client: httpx2.Client

    def post(self, path: str = CHAT, **fields: Any) -> httpx2.Response:
        return self.client.post(path, json=fields)

    def chat(self, **fields: Any) -> dict[str, Any]:
        """The body of a reply that has to be one."""
        reply = self.post(**fields)
        assert reply.status_code == 200, reply.text
        return reply.json()

    def asked(self, **fields: Any) -> dict[str, Any]:
        """The reply to the question of this module, with further fields."""
        return self.chat(document=DOCUMENT, messages=[{"role": "user", "content": QUESTION}], **fields)

    def refusal(self, status: int = 400, path: str = CHAT, **fields: Any) -> dict[str, Any]:
        """The error of a reply that has to be a refusal in OpenAI's shape."""
        return error_of(self.post(path, **fields), status)

    def metric(self, name: str, key: str = "") -> float:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        lines = self.client.get("/metrics", headers=headers).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"shorthand_{name}"))


def error_of(reply: httpx2.Response, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and "\n" not in error["message"] and error["code"]
    return error


def events(reply: httpx2.Response) -> list[Any]:
    """The bodies of a stream's events; the last has to be the mark of its end."""
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/event-stream")
    blocks = reply.text.strip().split("\n\n")
    assert all(block.startswith("data: ") for block in blocks) and blocks[-1] == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks[:-1]]


def streamed(pieces: list[Any], number: int = 0) -> str:
    """The text of a choice, put together."""
    choices = [choice for piece in pieces for choice in piece["choices"] if choice["index"] == number]
    return "".join(choice["delta"].get("content", "") for choice in choices)


def service_of(
    backend: Backend, queue: int = 8, seconds: float = 60.0, predictor: Any = None, **limits: Any
) -> Service:
    known = Limits("compressor", backend.budget_tokens, backend.most_budget_tokens, backend.hidden, **limits)
    return Service(backend, known, Line(queue, seconds), predictor)


def embedded_compressor(budget: int = 24) -> Compressor:
    return Compressor(*load_model(MODEL), budget_tokens=budget)


@contextmanager
def running(service: Service, **gate: Any) -> Iterator[Running]:
    """A server of a service, in a thread of its own; the test is skipped where the web server is not installed."""
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from models.serve.gate import Gate
    from models.serve.run import address, bound, server_of
    from models.serve.web import application

    taken = bound("127.0.0.1", 0)
    server = server_of(application(service, Gate(**gate)), service.line)
    thread = threading.Thread(target=server.run, args=([taken],), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    url = address(taken)
    try:
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield Running(url, service, client)
    finally:
        server.should_exit = True
        service.line.stop(5.0)
        thread.join(10)
        assert not thread.is_alive()


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.01)
