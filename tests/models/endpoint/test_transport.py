"""A server that fails in any way that servers do is one line that names it, after the tries it was given."""

import socket
from pathlib import Path
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


def test_a_server_that_sends_a_byte_now_and_then_is_given_up_as_a_silent_one() -> None:
    with serving([Answer(chat("too late"), byte_delay=0.1)]) as server:
        error = refusal(server, timeout_seconds=0.5, retries=0)
    assert str(error).endswith(": no answer within 0.5 seconds")


def test_one_answer_has_a_limit_of_its_own_whatever_the_tries_left() -> None:
    with serving([Answer("busy", 503)]) as server:
        error = refusal(server, retries=50, answer_seconds=1.5)
    assert str(error).endswith(" tries (one answer may take 1.5 seconds in all): busy")
    with serving([Answer(chat("too late"), delay=3)]) as server:
        error = refusal(server, timeout_seconds=60, retries=50, answer_seconds=0.5)
    assert ": no answer within 0.5 seconds" in str(error)


@pytest.mark.parametrize("seconds", ["3600", "Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_server_that_wants_to_be_left_alone_for_long_is_given_up_at_once(seconds: str) -> None:
    with serving([Answer("quota", 429, {"Retry-After": seconds})]) as server:
        error = refusal(server, retries=5)
    assert "seconds are asked for" in str(error) and str(error).endswith(": quota")
    assert len(server.asked) == 1


def closed_port() -> str:
    """The address of a server that is not there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


def test_a_closed_port_is_an_error_of_its_own() -> None:
    assert ": cannot be reached: " in str(refusal(closed_port()))


def test_a_probe_finds_a_closed_port_and_a_wrong_key_and_takes_any_other_answer() -> None:
    with pytest.raises(EndpointError, match=r"model 'm': cannot be reached after 3 tries: "):
        Endpoint(closed_port(), "m").probe()
    with serving([Answer(chat("yes"))]) as server:
        Endpoint(server.url, "m").probe()
        assert server.asked == []
    with serving([Answer(chat("yes"))]) as server:
        server.listing = Answer({"error": {"message": "Incorrect API key"}}, 401)
        with pytest.raises(EndpointError, match=r"model 'm': 401: Incorrect API key"):
            Endpoint(server.url, "m").probe()


def test_a_probe_leaves_a_run_alone_whose_answers_may_all_be_in_the_cache(tmp_path: Path) -> None:
    said: list[str] = []
    with serving([Answer(chat("yes"))]) as server:
        Endpoint(server.url, "m", cache=tmp_path / "cache.jsonl").complete(HELLO, GREEDY)
    again = Endpoint(server.url, "m", cache=tmp_path / "cache.jsonl", say=said.append)
    again.probe()
    assert again.complete(HELLO, GREEDY).text == "yes"
    [line] = said
    assert "cannot be reached" in line and "going on as far as the answers in" in line


@pytest.mark.parametrize("key", ["secret-schlüssel", "secret-a\nsecret-b", "secret-a\r", "secret\ta", "secret\x7f"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", f"{key}-end")
    with pytest.raises(EndpointError, match="its key has characters that no key has") as caught:
        Endpoint("http://localhost/v1", "m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("charset", ["undefined", "hex", "base64", "rot13", "idna", "punycode", "utf-8", "none"])
def test_garbage_in_any_encoding_is_asked_again_and_then_one_line(
    charset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.endpoint.transport.FIRST_WAIT_SECONDS", 0.0)
    with serving([Answer("<h1>busy</h1>", headers={"Content-Type": f"text/html; charset={charset}"})]) as server:
        error = refusal(server, retries=1)
    assert str(error).endswith(": its reply is no JSON after 2 tries: <h1>busy</h1>")


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_drops_the_question_is_not_followed_but_named(status: int) -> None:
    with serving([Answer("moved", status, {"Location": "https://elsewhere.example/v1/chat/completions"})]) as server:
        error = refusal(server, retries=5)
    assert f": {status}: redirects to https://elsewhere.example/v1/chat/completions, " in str(error)
    assert error.status == status and len(server.asked) == 1


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_that_keeps_the_question_is_followed(status: int) -> None:
    with serving([Answer(chat("yes"))]) as there, serving([Answer("", status, {"Location": f"{there.url}/x"})]) as here:
        assert Endpoint(here.url, "m").complete(HELLO, GREEDY).text == "yes"
    [asked] = there.asked
    assert asked.path == "/v1/x" and asked.body["messages"] == HELLO


def test_long_garbage_is_shortened() -> None:
    with serving([Answer("x" * 10_000)]) as server:
        assert len(str(refusal(server))) < 400
