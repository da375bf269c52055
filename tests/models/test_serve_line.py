"""One task at a time: who waits, who is told to come back, and work that nobody waits for any more."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from configs.tree import PROJECT
from models.serve.__main__ import EXAMPLES, main, parse
from models.serve.backend import Abandoned, Task, Watch
from models.serve.run import bound, listen
from models.serve.torch_backend import TorchBackend
from tests.models.serving import (
    CHAT,
    DOCUMENT,
    MODEL,
    QUESTION,
    Running,
    Scripted,
    embedded_compressor,
    error_of,
    events,
    running,
    service_of,
    wait_until,
)

pytestmark = pytest.mark.command

ASK: dict[str, Any] = {"document": DOCUMENT, "messages": [{"role": "user", "content": QUESTION}]}


class Held:
    """A script that works until it is let go or given up."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.given_up = 0
        self.at_once = self.most_at_once = 0

    def __call__(self, task: Task, watch: Watch) -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while not self.go.wait(0.01):
                watch.check()
        except Abandoned:
            self.given_up += 1
            raise
        finally:
            self.at_once -= 1
        return "done"


@contextmanager
def held_server(queue: int = 2, seconds: float = 60.0) -> Iterator[tuple[Held, Scripted, Running]]:
    held = Held()
    backend = Scripted(held)
    with running(service_of(backend, queue, seconds)) as server:
        yield held, backend, server


def later(work: Callable[[], Any]) -> Any:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


def test_beyond_the_line_clients_are_told_to_come_back() -> None:
    with held_server(queue=2) as (held, backend, server):
        inside = [later(lambda: server.post(**ASK)) for _ in range(3)]
        wait_until(lambda: server.metric("waiting") == 2)
        for stream in (False, True):
            reply = server.post(**ASK, stream=stream)
            error = error_of(reply, 429)
            assert error["type"] == "rate_limit_error" and 1 <= int(reply.headers["retry-after"]) <= 60
        assert server.client.get("/health").status_code == 200 and server.metric("working") == 1
        held.go.set()
        assert [future.result().status_code for future in inside] == [200] * 3
        assert held.most_at_once == 1 and len(backend.asked) == 3
        assert server.post(**ASK).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_work_of_a_client_that_has_gone_is_given_up(stream: bool) -> None:
    with held_server() as (held, _, server):
        for _attempt in range(2):
            with pytest.raises(httpx2.ReadTimeout):
                httpx2.post(server.url + CHAT, json=ASK | {"stream": stream}, timeout=0.5)
        wait_until(lambda: held.given_up == 2)
        held.go.set()
        assert server.post(**ASK).status_code == 200 and server.metric("abandoned_total") == 2


def test_who_leaves_the_line_is_never_worked_for() -> None:
    with held_server() as (held, backend, server):
        first = later(lambda: server.post(**ASK))
        wait_until(lambda: len(backend.asked) == 1)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(server.url + CHAT, json=ASK, timeout=0.3)
        wait_until(lambda: server.metric("waiting") == 0)
        held.go.set()
        assert first.result().status_code == 200
        server.post(**ASK)
        assert len(backend.asked) == 2


def test_work_that_takes_too_long_is_ended() -> None:
    with held_server(seconds=0.2) as (held, _, server):
        assert error_of(server.post(**ASK), 504)["code"] == "generation_timeout"
        assert error_of(server.post(**ASK, stream=True), 504)["type"] == "server_error"
        assert server.metric("overdue_total") == 2
        held.go.set()
        assert server.post(**ASK).status_code == 200


def test_a_stream_that_fails_halfway_says_so_in_its_last_event() -> None:
    def script(task: Task, watch: Watch) -> str:
        watch.say(0, "The zinc")
        while True:
            watch.check()
            time.sleep(0.01)

    with running(service_of(Scripted(script), seconds=0.3)) as server:
        blocks = server.post(**ASK, stream=True).text.strip().split("\n\n")
    assert '"The zinc"' in blocks[1] and "generation_timeout" in blocks[-1] and "[DONE]" not in blocks[-1]


def test_a_mistake_of_the_program_is_told_without_its_details() -> None:
    def script(task: Task, watch: Watch) -> str:
        if task.budget_tokens == 2:
            watch.say(0, "The zinc")
        raise KeyError("secret")

    with running(service_of(Scripted(script))) as server:
        assert error_of(server.post(**ASK), 500)["code"] == "internal_error"
        error_of(server.post(**ASK, stream=True), 500)
        halfway = server.post(**ASK, stream=True, max_tokens=2).text
        assert "internal_error" in halfway and "[DONE]" not in halfway and "secret" not in halfway
        assert server.client.get("/health").status_code == 200


def test_a_client_that_does_not_read_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.serve.stream.SEND_SECONDS", 0.5)

    def script(task: Task, watch: Watch) -> str:
        for _ in range(200 if task.budget_tokens == 50 else 0):
            watch.say(0, "word " * 20_000)
        return "end"

    with running(service_of(Scripted(script))) as server:
        parts = urlsplit(server.url)
        with socket.create_connection((parts.hostname, parts.port or 0)) as silent:
            body = b'{"document": "a", "question": "b", "stream": true, "max_tokens": 50}'
            head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            silent.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            assert events(server.post(**ASK, stream=True))
            wait_until(lambda: server.metric("abandoned_total") == 1)


def test_reading_a_long_document_ends_as_soon_as_the_client_has_gone() -> None:
    backend = TorchBackend(embedded_compressor())
    layers, watch = 0, Watch()
    check = watch.check

    def counted() -> None:
        nonlocal layers
        layers += 1
        if layers == 3:
            watch.abandon()
        check()

    watch.check = counted
    with pytest.raises(Abandoned):
        backend.write(Task("The zinc was 52. " * 300, QUESTION, 24), watch)
    assert layers == 3


def test_a_server_that_ends_refuses_who_waits_and_finishes_what_it_began() -> None:
    with held_server() as (held, _, server):
        first = later(lambda: server.post(**ASK))
        wait_until(lambda: server.metric("working") == 1)
        second = later(lambda: server.post(**ASK))
        wait_until(lambda: server.metric("waiting") == 1)
        server.service.line.close()
        assert error_of(second.result(), 503)["code"] == "shutting_down"
        refused = server.post(**ASK)
        assert error_of(refused, 503) and refused.headers["retry-after"]
        held.go.set()
        assert first.result().status_code == 200


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "models.serve", "--adapter", MODEL, "--threads", "1", *arguments],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def started(process: subprocess.Popen[str]) -> str:
    """The address that a command says it serves."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("serving "):
            return line.partition(" at ")[2].partition("/v1")[0]
    raise AssertionError(f"the server ended with {process.wait()}")


def test_the_command_serves_ends_on_sigterm_and_starts_again_after_a_kill(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of the team\nlong-enough\n")
    process = command("--port", "0", "--budget", "9", "--key-file", str(keys), "--no-bits")
    url = started(process)
    port = url.rpartition(":")[2]
    with httpx2.Client(base_url=url, headers={"Authorization": "Bearer long-enough"}, timeout=60) as client:
        reply = client.post(CHAT, json=ASK).json()
        assert reply["usage"]["completion_tokens"] <= 9 and reply["shorthand"]["bits"] is None
        assert httpx2.get(f"{url}/v1/models").status_code == 401
        process.kill()
        process.wait()
    again = command("--port", port)
    assert started(again) == url
    with httpx2.stream("POST", url + CHAT, json=ASK | {"stream": True}, timeout=60) as stream:
        assert stream.status_code == 200
        again.send_signal(signal.SIGTERM)
        assert "[DONE]" in "".join(stream.iter_text())
    assert again.wait(30) == 0
    assert again.stderr is not None and again.stderr.read().strip() == "stopped"


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--adapter", "no/such/folder"], "model 'no/such/folder': no such folder"),
        (["--adapter", MODEL, "--predictor", "miniature/none"], "no such embedded model"),
        (["--adapter", MODEL, "--key", "short"], "a key should have at least 8"),
        (["--adapter", MODEL, "--key", "with a space"], "a key should have at least 8"),
        (["--adapter", MODEL, "--key-file", "no-such-file"], "--key-file 'no-such-file': "),
        (["--adapter", MODEL, "--key-file", os.devnull], "has no key"),
        (["--adapter", MODEL, "--backend", "llama.cpp", "--gguf", "none.gguf"], "no such file"),
        (["--adapter", MODEL, "--budget", "5000"], "leaves no room"),
        (["--adapter", MODEL, "--host", "203.0.113.7"], "--host 203.0.113.7 --port 8181: cannot be used"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and reason in said


def test_of_two_servers_on_one_port_the_later_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bound("127.0.0.1", 0)
    port = first.getsockname()[1]

    def load(options: Any) -> Any:
        listen(first, "127.0.0.1", port)
        return service_of(Scripted())

    monkeypatch.setattr("models.serve.start.load", load)
    assert main(["--adapter", MODEL, "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said == f"error: --host 127.0.0.1 --port {port}: cannot be used (Address already in use)\n"
    first.close()


def test_tools_on_a_closed_standard_stream_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.serve.start.load", lambda options: pytest.fail("a model would be loaded"))
    for stream, name in (("sys.stdin", "input"), ("sys.stdout", "output")):
        with monkeypatch.context() as patch:
            patch.setattr(stream, None)
            assert main(["--adapter", MODEL, "--mcp"]) == 2
        assert capsys.readouterr().err.startswith(f"error: --mcp: standard {name} is closed; ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "--adapter: is needed with --backend torch"),
        (["--backend", "llama.cpp", "--adapter", "a"], "--gguf: is needed"),
        (["--backend", "upstream", "--upstream", "http://x/v1"], "--model: is needed"),
        (["--adapter", "a", "--gguf", "b.gguf"], "--gguf: is for --backend llama.cpp"),
        (["--adapter", "a", "--endpoint", "http://x/v1"], "--endpoint: needs --predictor"),
        (["--adapter", "a", "--window", "9"], "--window: is for"),
        (["--adapter", "a", "--queue", "-1"], "--queue -1"),
        (["--adapter", "a", "--seconds", "nan"], "--seconds nan"),
        (["--adapter", "a", "--body-mib", "0"], "--body-mib 0"),
        (["--adapter", "a", "--port", "70000"], "--port 70000"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and reason in capsys.readouterr().err


def test_the_examples_of_the_help_are_command_lines() -> None:
    for example in EXAMPLES:
        parse(example.partition("models.serve ")[2].split())


def test_missing_packages_are_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["--adapter", MODEL]) == 2
    assert capsys.readouterr().err == "error: starlette is not installed; pip install 'shorthand[serve]'\n"
