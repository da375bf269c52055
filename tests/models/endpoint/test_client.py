"""The client of OpenAI-compatible servers: against llama.cpp's, and against servers with scripted answers."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.endpoint import Endpoint, EndpointError, Sampling
from models.loading import load_model
from models.prompts import ChatFormat
from models.shared_prefix import generate
from tests.llama_server import serving_miniature
from tests.local_server import Answer, Asked, chat, serving
from tests.models.endpoint.conversations import GREEDY, refusal, say


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a llama.cpp server that has the embedded Llama model."""
    with serving_miniature(tmp_path_factory.mktemp("llama")) as url:
        yield url


@pytest.mark.command
def test_llama_cpp_writes_what_the_same_model_writes_in_this_process(llama: str) -> None:
    question = "Rome is the capital. Bob has a dog.\n\nQuestion: Which animal?"
    completion = Endpoint(llama, "miniature").complete(say(question), Sampling(max_tokens=12, log_probs=True))

    model, tokenizer = load_model("miniature/llama-medium")
    form = ChatFormat(tokenizer)
    before, after = form.parts(say("SLOT"), ["SLOT"], reply_next=True)
    prompt = form.template_ids(before) + form.text_ids(question) + form.template_ids(after)
    [reply] = generate(model, [prompt], 12, form.end_token_id)
    assert completion.text == tokenizer.decode(reply.token_ids, skip_special_tokens=True)
    assert completion.finish_reason in ("length", "stop")
    assert completion.tokens == len(reply.log_probs)
    assert completion.log_probs == pytest.approx(reply.log_probs, abs=1e-3)


@pytest.mark.command
def test_llama_cpp_keeps_the_order_of_a_batch_and_follows_a_schema(llama: str) -> None:
    schema = {"type": "object", "properties": {"dog": {"type": "boolean"}}, "required": ["dog"]}
    batch = [say(f"Is {name} a dog?") for name in ("Bob", "Anna", "Bob", "Carl")]
    endpoint = Endpoint(llama, "miniature", concurrency=2)
    together = endpoint.complete_all(batch, GREEDY)
    assert together == [endpoint.complete(messages, GREEDY) for messages in batch]
    constrained = endpoint.complete(batch[0], Sampling(max_tokens=200, schema=schema))
    assert constrained.text.lstrip().startswith("{")


@pytest.mark.command
def test_llama_cpp_gives_no_log_probs_of_a_given_answer_and_the_client_says_so(llama: str) -> None:
    endpoint = Endpoint(llama, "miniature")
    assert endpoint.echoes is None
    assert endpoint.given_log_probs([5, 6, 7], [8, 9]) is None
    assert endpoint.echoes is False


@pytest.mark.command
def test_a_conversation_too_long_for_llama_cpp_is_refused_in_its_own_words(llama: str) -> None:
    with pytest.raises(EndpointError, match=r"model 'miniature': 400: .*exceeds the available context size"):
        Endpoint(llama, "miniature").complete(say("dog " * 5000), GREEDY)


GARBAGE: list[tuple[Any, str]] = [
    ("<html>\nWelcome</html>", "its reply is no JSON: <html> Welcome</html>"),
    ("", "its reply is no JSON: nothing"),
    ("[" * 100_000, "its reply is no JSON: [[["),
    ('{"choices": [{"mess', 'its reply is no JSON: {"choices": [{"mess'),
    ({}, "its reply is not understood (choices: Field required): {}"),
    ({"choices": []}, "its reply is not understood (choices: List should have at least 1 item"),
    ({"choices": [{"text": "hi"}]}, "its reply is not understood (choices.0.message: Field required)"),
    ({"choices": [{"message": {"content": 3}}]}, "(choices.0.message.content: Input should be a valid string)"),
    ({"error": {"message": "overloaded", "code": 503}}, 'its reply is an error: {"error": {"message": "overloaded"'),
    ([1], "its reply is not understood (the whole: Input should be a valid dictionary"),
]
"""What servers under load send with status 200, and how it is named."""


@pytest.mark.parametrize(("body", "problem"), GARBAGE)
def test_garbage_is_refused_and_shown(body: Any, problem: str) -> None:
    with serving([Answer(body)]) as server:
        error = refusal(server, retries=0)
    assert problem in str(error)
    assert error.status is None


@pytest.mark.parametrize("body", [body for body, _ in GARBAGE])
def test_garbage_that_passes_is_asked_for_again(body: Any) -> None:
    with serving([Answer(body), Answer(chat("yes"))]) as server:
        endpoint = Endpoint(server.url, "m", retries=1)
        assert endpoint.complete(say("a"), GREEDY).text == "yes"
    tokens = {"tokens read": 3, "tokens written": 2}
    assert endpoint.counts == {"requests": 1, "retries": 1, "damaged cache lines": 0, **tokens}


def test_garbage_that_stays_is_named_after_the_tries_it_was_given() -> None:
    with serving([Answer("<html>busy</html>")]) as server:
        error = refusal(server, retries=1)
    assert str(error).endswith(": its reply is no JSON after 2 tries: <html>busy</html>")
    assert len(server.asked) == 2


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:port/v1", ""])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(EndpointError, match=f"endpoint '{url}': "):
        Endpoint(url, "m")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("http://me:hunter2@localhost:1/v1", "a user or a password"),
        ("http://hunter2@localhost:1/v1", "a user or a password"),
        ("http://localhost:1/v1?api_key=hunter2", "a query"),
        ("http://localhost:1/v1#hunter2", "a fragment"),
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_the_secret_not_shown(url: str, what: str) -> None:
    with pytest.raises(
        EndpointError, match=rf"endpoint '.*localhost:1/v1': had {what} in it.*api_key_variable"
    ) as caught:
        Endpoint(url, "m")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["me:hunter2@localhost:1", "http://me:hun@hunter2:x@localhost/v1", "http://a:hunter2/v1"]
)
def test_the_password_of_what_is_no_url_is_not_shown_either(url: str) -> None:
    with pytest.raises(EndpointError, match="endpoint '") as caught:
        Endpoint(url, "m")
    assert "hunter2@" not in str(caught.value) and "hunter2:x" not in str(caught.value)


@pytest.mark.parametrize("option", ["timeout_seconds", "answer_seconds", "concurrency"])
def test_limits_of_nothing_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: 0}
    with pytest.raises(EndpointError, match=f"{option} is too small"):
        Endpoint("http://localhost/v1", "m", **options)


def test_a_batch_keeps_its_order_asks_equal_conversations_once_and_stays_within_its_bound() -> None:
    batch = [say(f"question {number % 7}") for number in range(21)]

    def slowest_first(asked: Asked, number: int) -> Answer:
        text = asked.body["messages"][0]["content"]
        return Answer(chat(text.upper()), delay=0.05 * (7 - int(text[-1])))

    with serving(slowest_first) as server:
        endpoint = Endpoint(server.url, "m", concurrency=3)
        replies = endpoint.complete_all(batch, GREEDY)
    assert [reply.text for reply in replies] == [messages[0]["content"].upper() for messages in batch]
    assert len(server.asked) == 7
    assert server.most_at_once <= 3


def test_threads_that_share_an_endpoint_stay_within_its_bound() -> None:
    with serving(lambda asked, number: Answer(chat("yes"), delay=0.05)) as server, ThreadPoolExecutor(6) as pool:
        endpoint = Endpoint(server.url, "m", concurrency=2)
        list(pool.map(lambda number: endpoint.complete(say(str(number)), GREEDY), range(6)))
    assert len(server.asked) == endpoint.counts["requests"] == 6
    assert server.most_at_once <= 2


def echoed(ids: list[int]) -> dict[str, Any]:
    """A completion in the published format with the log-probs of its prompt: minus a tenth of each token's id."""
    values = [None, *(-token / 10 for token in ids[1:]), -9.0]
    log_probs = {"tokens": [f"t{token}" for token in [*ids, 0]], "token_logprobs": values, "text_offset": []}
    return {"choices": [{"index": 0, "text": "...", "logprobs": log_probs, "finish_reason": "length"}]}


def test_log_probs_of_a_given_answer_are_those_of_its_own_tokens(tmp_path: Path) -> None:
    with serving(lambda asked, number: Answer(echoed(asked.body["prompt"]))) as server:
        endpoint = Endpoint(server.url, "m", cache=tmp_path / "cache.jsonl")
        assert endpoint.given_log_probs([1, 2, 3], [4, 5]) == (-0.4, -0.5)
        assert endpoint.given_log_probs([1, 2, 3], [4, 5]) == (-0.4, -0.5)
    assert endpoint.echoes is True
    [asked] = server.asked
    assert asked.path == "/v1/completions"
    assert asked.body["prompt"] == [1, 2, 3, 4, 5]
    assert asked.body["echo"] is True
    with pytest.raises(ValueError, match="at least one token"):
        endpoint.given_log_probs([], [1])


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"error": "not found"}, 404),
        Answer({"choices": [{"text": "x", "logprobs": None}]}),
        Answer({"choices": [{"text": "x", "logprobs": {"token_logprobs": [-0.1]}}]}),
        Answer({"choices": [{"text": "x", "logprobs": {"token_logprobs": [None, -0.1, None, None]}}]}),
    ],
)
def test_a_server_without_log_probs_of_a_given_answer_is_said_to_have_none(answer: Answer) -> None:
    with serving([answer]) as server:
        endpoint = Endpoint(server.url, "m")
        assert endpoint.given_log_probs([1, 2], [3]) is None
    assert endpoint.echoes is False


def test_a_failing_server_is_not_taken_for_one_without_log_probs() -> None:
    with serving([Answer("out of memory", 500)]) as server, pytest.raises(EndpointError, match="500: out of memory"):
        Endpoint(server.url, "m", retries=0).given_log_probs([1, 2], [3])


def test_the_http_client_waits_for_the_first_endpoint() -> None:
    script = "import sys, models.endpoint; print(sorted({'httpx2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
