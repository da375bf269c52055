"""A server that fails in any way that servers do is one line that names it, after the tries it was given."""

import socket
from typing import Any

import pytest

from models.endpoint import Endpoint, EndpointError
from tests.local_server import Answer, chat, serving
from tests.models.endpoint.conversations import GREEDY, HELLO, KEY, refusal


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OTHER_KEY", "another")
    with serving([Answer(chat("yes"))]) as server:
        Endpoint(server.url, "m").complete(HELLO, GREEDY)
        Endpoint(server.url, "m", key_variable="OTHER_KEY").complete(HELLO, GREEDY)
        monkeypatch.delenv("OPENAI_API_KEY")
        Endpoint(server.url, "m").complete(HELLO, GREEDY)
        with pytest.raises(EndpointError, match="the environment variable 'NO_KEY', for its key, is not set"):
            Endpoint(server.url, "m", key_variable="NO_KEY")
    sent = [{name.lower(): value for name, value in asked.headers.items()}["authorization"] for asked in server.asked]
    assert sent == [f"Bearer {KEY}", "Bearer another", "Bearer none"]


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_server_is_named_with_its_words_after_the_tries_it_was_given(status: int) -> None:
    with serving([Answer({"error": {"message": "the\nGPU fell off"}}, status)]) as server:
        error = refusal(server, retries=1)
    assert str(error).endswith(f": {status} after 2 tries: the GPU fell off")
    assert error.status == status
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again_when_it_says() -> None:
    busy = Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "1.5"})
    with serving([busy, Answer(chat("at last"))]) as server:
        endpoint = Endpoint(server.url, "m", retries=1)
        assert endpoint.complete(HELLO, GREEDY).text == "at last"
    first, second = server.asked
    assert second.seconds - first.seconds >= 1.5
    assert endpoint.counts["retries"] == 1


def test_a_server_that_stays_busy_is_given_up() -> None:
    with serving([Answer("slow down", 429, {"Retry-After": "0.01"})]) as server:
        error = refusal(server, retries=2)
    assert str(error).endswith(": 429 after 3 tries: slow down")
    assert len(server.asked) == 3


@pytest.mark.parametrize("body", [{"detail": "no such model"}, {"message": "no such model"}, "no such model"])
def test_what_the_server_refuses_is_not_asked_again(body: Any) -> None:
    with serving([Answer(body, 404)]) as server:
        error = refusal(server, retries=5)
    assert ": 404: " in str(error) and "no such model" in str(error)
    assert len(server.asked) == 1


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving([Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)]) as server:
        assert str(refusal(server)).endswith(": 401: Incorrect API key provided: [key]")


def test_silence_is_an_error_of_its_own() -> None:
    with serving([Answer(chat("too late"), delay=2)]) as server:
        error = refusal(server, timeout_seconds=0.2, retries=1)
    assert str(error).endswith(": no answer within 0.2 seconds after 2 tries")


def test_a_closed_port_is_an_error_of_its_own() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    assert ": cannot be reached: " in str(refusal(url))


def test_long_garbage_is_shortened() -> None:
    with serving([Answer("x" * 10_000)]) as server:
        assert len(str(refusal(server))) < 400
