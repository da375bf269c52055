"""Eight clients for a while: no error, no message over its budget, and memory that stays flat.

`SHORTHAND_SOAK_SECONDS` says for how long: a minute by default, half an hour before a release.
"""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from typing import Any

import httpx2
import psutil
import pytest

from tests.models.serving import CHAT, DOCUMENT, QUESTION
from tests.models.test_serve_line import command, started

pytestmark = [pytest.mark.command, pytest.mark.slow]

SECONDS = float(os.environ.get("SHORTHAND_SOAK_SECONDS", "60"))
CLIENTS = 8
WARM_SHARE = 1 / 3
"""The part of the time after which memory is measured first: buffers have found their size by then."""
ALLOWED_GROWTH = 48 << 20
"""Bytes that an allocator may hold on to by chance, and far less than half an hour of leaks of a document each."""


class Client:
    """One client that asks for everything in turn, and goes away in the middle of some."""

    def __init__(self, url: str, number: int) -> None:
        self.url, self.random = url, random.Random(number)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []

    def run(self, end: float) -> None:
        with httpx2.Client(base_url=self.url, timeout=60) as client:
            while time.monotonic() < end and len(self.wrong) < 5:
                kind = self.random.choice(["whole", "whole", "stream", "history", "page", "bad", "gone"])
                try:
                    self.ask(client, kind)
                except Exception as error:
                    self.wrong.append(f"{kind}: {error!r}")
                self.done[kind] += 1

    def ask(self, client: httpx2.Client, kind: str) -> None:
        budget = self.random.choice([1, 3, 12, 40])
        facts = " ".join(f"The zinc of day {day} was {self.random.randrange(90)}." for day in range(40))
        fields: dict[str, Any] = {"document": facts + DOCUMENT, "question": QUESTION, "max_tokens": budget}
        if kind == "gone":
            # Cut off on purpose, somewhere between the request and the reply.
            with contextlib.suppress(httpx2.TimeoutException):
                httpx2.post(self.url + CHAT, json=fields, timeout=self.random.uniform(0.001, 0.2))
        elif kind == "bad":
            self.expect(client.post(CHAT, json=fields | {"max_tokens": "many"}), 400)
        elif kind == "page":
            reply = self.expect(client.post("/v1/compress", json=fields), 200).json()
            self.hold(reply["message_tokens"], budget)
        elif kind == "stream":
            text = self.expect(client.post(CHAT, json=fields | {"stream": True, "temperature": 1.0}), 200).text
            assert text.endswith("data: [DONE]\n\n")
        else:
            if kind == "history":
                turns = [{"role": "assistant", "content": facts}, {"role": "user", "content": QUESTION}]
                fields = {"messages": turns, "max_tokens": budget}
            reply = self.expect(client.post(CHAT, json=fields), 200).json()
            self.hold(reply["usage"]["completion_tokens"], budget)

    def expect(self, reply: httpx2.Response, status: int) -> httpx2.Response:
        assert reply.status_code == status, reply.text[:300]
        return reply

    def hold(self, tokens: int, budget: int) -> None:
        assert 1 <= tokens <= budget, (tokens, budget)


@pytest.mark.timeout(SECONDS + 240)
def test_eight_clients_for_a_while() -> None:
    process = command("--port", "0", "--queue", "16")
    url = started(process)
    memory = psutil.Process(process.pid)
    end = time.monotonic() + SECONDS
    clients = [Client(url, number) for number in range(CLIENTS)]
    threads = [threading.Thread(target=client.run, args=(end,)) for client in clients]
    for thread in threads:
        thread.start()
    time.sleep(SECONDS * WARM_SHARE)
    warm, later = memory.memory_info().rss, []
    while any(thread.is_alive() for thread in threads):
        later.append(memory.memory_info().rss)
        time.sleep(1)
    assert [line for client in clients for line in client.wrong] == []
    done = sum((client.done for client in clients), Counter())
    growth = sum(later[-5:]) / len(later[-5:]) - warm
    print(f"{dict(done)}; memory {warm >> 20} MiB, then {growth / (1 << 20):+.1f} MiB")
    assert growth < ALLOWED_GROWTH
    assert set(done) == {"whole", "stream", "history", "page", "bad", "gone"}
    process.terminate()
    assert process.wait(60) == 0
