"""The client of OpenAI-compatible servers: against llama.cpp's, and against one that fails in every way servers do."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from models.endpoint import Completion, Endpoint, EndpointError, Messages, Sampling
from tests.llama_server import serving_miniature
from tests.local_server import Answer, Asked, LocalServer, chat, serving

GREEDY = Sampling(max_tokens=8)
HELLO: Messages = [{"role": "user", "content": "Hello"}]
KEY = "sk-very-secret-0123"


def say(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def echo_of_the_question(asked: Asked, number: int) -> Answer:
    return Answer(chat(asked.body["messages"][-1]["content"].upper()))


def refusal(server: LocalServer | str, **options: Any) -> EndpointError:
    """The error of one request; always one line that names the endpoint and the model, and never the key."""
    url = server if isinstance(server, str) else server.url
    endpoint = Endpoint(url, "m", **{"retries": 0, "timeout_seconds": 5, **options})
    with pytest.raises(EndpointError) as caught:
        endpoint.complete(HELLO, GREEDY)
    text = str(caught.value)
    assert text.startswith(f"{url}, model 'm': ")
    assert "\n" not in text
    assert KEY not in text
    return caught.value


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a llama.cpp server that has the embedded Llama model."""
    with serving_miniature(tmp_path_factory.mktemp("llama")) as url:
        yield url


def test_llama_cpp_writes_what_the_same_model_writes_in_this_process(llama: str):
    from models.loading import load_model
    from models.prompts import ChatFormat
    from models.shared_prefix import generate

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


def test_llama_cpp_keeps_the_order_of_a_batch_and_follows_a_schema(llama: str):
    schema = {"type": "object", "properties": {"dog": {"type": "boolean"}}, "required": ["dog"]}
    batch = [say(f"Is {name} a dog?") for name in ("Bob", "Anna", "Bob", "Carl")]
    endpoint = Endpoint(llama, "miniature", concurrency=2)
    together = endpoint.complete_all(batch, GREEDY)
    assert together == [endpoint.complete(messages, GREEDY) for messages in batch]
    constrained = endpoint.complete(batch[0], Sampling(max_tokens=200, schema=schema))
    assert constrained.text.lstrip().startswith("{")


def test_llama_cpp_gives_no_log_probs_of_a_given_answer_and_the_client_says_so(llama: str):
    endpoint = Endpoint(llama, "miniature")
    assert endpoint.echoes is None
    assert endpoint.given_log_probs([5, 6, 7], [8, 9]) is None
    assert endpoint.echoes is False


def test_a_conversation_too_long_for_llama_cpp_is_refused_in_its_own_words(llama: str):
    with pytest.raises(EndpointError, match=r"model 'miniature': 400: .*exceeds the available context size"):
        Endpoint(llama, "miniature").complete(say("dog " * 5000), GREEDY)


def test_a_request_says_what_the_sampling_says():
    sampling = Sampling(9, None, seed=3, stop=("\n",), schema={"type": "object"}, log_probs=True, extra={"top_k": 1})
    with serving([Answer(chat("yes"))]) as server:
        Endpoint(server.url + "/", "m").complete(HELLO, sampling)
    [asked] = server.asked
    schema = {"name": "reply", "strict": True, "schema": {"type": "object"}}
    assert asked.path == "/v1/chat/completions"
    assert asked.body == {
        "model": "m",
        "messages": HELLO,
        "max_tokens": 9,
        "seed": 3,
        "stop": ["\n"],
        "response_format": {"type": "json_schema", "json_schema": schema},
        "logprobs": True,
        "top_k": 1,
    }


def test_a_further_field_may_replace_one_or_take_it_out():
    sampling = Sampling(9, extra={"max_tokens": None, "max_completion_tokens": 9, "temperature": 1})
    assert sampling.fields() == {"temperature": 1, "max_completion_tokens": 9}


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch):
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


def test_a_reply_has_what_the_server_said_of_it():
    log_probs = {"content": [{"token": "no", "logprob": -0.5, "top_logprobs": []}]}
    unusual = chat(None, finish_reason="length") | {"usage": None}
    with serving([Answer(chat("no", logprobs=log_probs)), Answer(unusual)]) as server:
        endpoint = Endpoint(server.url, "m")
        assert endpoint.complete(HELLO, GREEDY) == Completion("no", "stop", 2, (-0.5,))
        assert endpoint.complete(HELLO, GREEDY) == Completion("", "length", None, None)


@pytest.mark.parametrize("status", [500, 503])
def test_a_failing_server_is_named_with_its_words_after_the_tries_it_was_given(status: int):
    with serving([Answer({"error": {"message": "the\nGPU fell off"}}, status)]) as server:
        error = refusal(server, retries=1)
    assert str(error).endswith(f": {status} after 2 tries: the GPU fell off")
    assert error.status == status
    assert len(server.asked) == 2


def test_a_busy_server_is_asked_again_when_it_says():
    busy = Answer({"error": {"message": "slow down"}}, 429, {"Retry-After": "1.5"})
    with serving([busy, Answer(chat("at last"))]) as server:
        endpoint = Endpoint(server.url, "m", retries=1)
        assert endpoint.complete(HELLO, GREEDY).text == "at last"
    first, second = server.asked
    assert second.seconds - first.seconds >= 1.5
    assert endpoint.counts["retries"] == 1


def test_a_server_that_stays_busy_is_given_up():
    with serving([Answer("slow down", 429, {"Retry-After": "0.01"})]) as server:
        error = refusal(server, retries=2)
    assert str(error).endswith(": 429 after 3 tries: slow down")
    assert len(server.asked) == 3


@pytest.mark.parametrize("body", [{"detail": "no such model"}, {"message": "no such model"}, "no such model"])
def test_what_the_server_refuses_is_not_asked_again(body: Any):
    with serving([Answer(body, 404)]) as server:
        error = refusal(server, retries=5)
    assert ": 404: " in str(error) and "no such model" in str(error)
    assert len(server.asked) == 1


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving([Answer({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401)]) as server:
        assert str(refusal(server)).endswith(": 401: Incorrect API key provided: [key]")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("<html>\nWelcome</html>", "its reply is no JSON: <html> Welcome</html>"),
        ("", "its reply is no JSON: nothing"),
        ('{"choices": [{"mess', 'its reply is no JSON: {"choices": [{"mess'),
        ({}, "its reply is not understood (choices: Field required): {}"),
        ({"choices": []}, "its reply is not understood (choices: List should have at least 1 item"),
        ({"choices": [{"text": "hi"}]}, "its reply is not understood (choices.0.message: Field required)"),
        ({"choices": [{"message": {"content": 3}}]}, "(choices.0.message.content: Input should be a valid string)"),
        ([1], "its reply is not understood (the whole: Input should be a valid dictionary"),
    ],
)
def test_garbage_is_refused_and_shown(body: Any, problem: str):
    with serving([Answer(body)]) as server:
        error = refusal(server, retries=3)
    assert problem in str(error)
    assert error.status is None
    assert len(server.asked) == 1


def test_long_garbage_is_shortened():
    with serving([Answer("x" * 10_000)]) as server:
        assert len(str(refusal(server))) < 400


def test_silence_is_an_error_of_its_own():
    with serving([Answer(chat("too late"), delay=2)]) as server:
        error = refusal(server, timeout_seconds=0.2, retries=1)
    assert str(error).endswith(": no answer within 0.2 seconds after 2 tries")


def test_a_closed_port_is_an_error_of_its_own():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
    assert ": cannot be reached: " in str(refusal(url))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://a/v1", "http://", "http://a:port/v1", ""])
def test_what_is_no_url_is_refused(url: str):
    with pytest.raises(EndpointError, match=f"endpoint '{url}': "):
        Endpoint(url, "m")


def test_a_password_in_the_url_is_not_shown():
    assert Endpoint("http://me:secret@localhost:1/v1", "m").name == "http://localhost:1/v1, model 'm'"
    with pytest.raises(EndpointError, match="endpoint 'localhost:1': "):
        Endpoint("me:secret@localhost:1", "m")


@pytest.mark.parametrize("option", ["timeout_seconds", "concurrency"])
def test_limits_of_nothing_are_refused(option: str):
    options: dict[str, Any] = {option: 0}
    with pytest.raises(EndpointError, match=f"{option} is too small"):
        Endpoint("http://localhost/v1", "m", **options)


def test_a_batch_keeps_its_order_asks_equal_conversations_once_and_stays_within_its_bound():
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


def test_threads_that_share_an_endpoint_stay_within_its_bound():
    with serving(lambda asked, number: Answer(chat("yes"), delay=0.05)) as server, ThreadPoolExecutor(6) as pool:
        endpoint = Endpoint(server.url, "m", concurrency=2)
        list(pool.map(lambda number: endpoint.complete(say(str(number)), GREEDY), range(6)))
    assert len(server.asked) == endpoint.counts["requests"] == 6
    assert server.most_at_once <= 2


def test_what_was_answered_is_not_asked_again(tmp_path: Path):
    cache = tmp_path / "made" / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        first = Endpoint(server.url, "m", cache=cache).complete_all([say("a"), say("b")], GREEDY)
        again = Endpoint(server.url, "m", cache=cache)
        assert again.complete_all([say("b"), say("a")], GREEDY) == first[::-1]
        assert again.counts == {"from the cache": 2, "damaged cache lines": 0}
        assert len(server.asked) == 2
        for other in (Sampling(9), Sampling(8, seed=1), Sampling(8, 0.5), Sampling(8, extra={"top_k": 1})):
            again.complete(say("a"), other)
        Endpoint(server.url, "another", cache=cache).complete(say("a"), GREEDY)
    assert len(server.asked) == 7
    assert len(cache.read_text().splitlines()) == 7


def test_a_batch_that_fails_loses_nothing_of_what_was_answered(tmp_path: Path):
    def fails_on_c(asked: Asked, number: int) -> Answer:
        text = asked.body["messages"][0]["content"]
        return Answer("out of memory", 500) if text == "c" else echo_of_the_question(asked, number)

    cache = tmp_path / "cache.jsonl"
    batch = [say(text) for text in "abcde"]
    with serving(fails_on_c) as server, pytest.raises(EndpointError, match="500: out of memory"):
        Endpoint(server.url, "m", cache=cache, concurrency=1, retries=0).complete_all(batch, GREEDY)
    heard = len(cache.read_text().splitlines())
    assert heard >= 2
    # The server is gone by now, so these can only come from the cache.
    endpoint = Endpoint(server.url, "m", cache=cache)
    assert [endpoint.complete(say(text), GREEDY).text for text in "ab"] == ["A", "B"]


def test_a_half_written_line_is_counted_and_what_follows_it_is_kept(tmp_path: Path):
    cache = tmp_path / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        Endpoint(server.url, "m", cache=cache).complete_all([say("a"), say("b")], GREEDY)
        whole = cache.read_bytes()
        cache.write_bytes(whole[:-20])
        second = Endpoint(server.url, "m", cache=cache)
        assert second.counts["damaged cache lines"] == 1
        assert [reply.text for reply in second.complete_all([say("a"), say("b")], GREEDY)] == ["A", "B"]
        third = Endpoint(server.url, "m", cache=cache)
        third.complete_all([say("a"), say("b")], GREEDY)
        assert third.counts == {"from the cache": 2, "damaged cache lines": 1}
    assert len(server.asked) == 3


def test_a_last_line_that_lacks_only_its_end_is_whole(tmp_path: Path):
    cache = tmp_path / "cache.jsonl"
    with serving(echo_of_the_question) as server:
        Endpoint(server.url, "m", cache=cache).complete(say("a"), GREEDY)
        cache.write_bytes(cache.read_bytes().rstrip())
        endpoint = Endpoint(server.url, "m", cache=cache)
        endpoint.complete_all([say("a"), say("b")], GREEDY)
        assert endpoint.counts == {"requests": 1, "retries": 0, "from the cache": 1, "damaged cache lines": 0}
    assert [set(json.loads(line)) for line in cache.read_text().splitlines()] == [{"key", "model", "reply"}] * 2


def test_a_file_that_is_no_cache_is_left_alone(tmp_path: Path):
    notes = tmp_path / "notes.md"
    notes.write_text("# Notes\n")
    with pytest.raises(EndpointError, match=r"cache .*notes.md: holds no cached replies; name another file"):
        Endpoint("http://localhost/v1", "m", cache=notes)
    with pytest.raises(EndpointError, match="cannot be opened"):
        Endpoint("http://localhost/v1", "m", cache=tmp_path)
    assert notes.read_text() == "# Notes\n"


def echoed(ids: list[int]) -> dict[str, Any]:
    """A completion in the published format with the log-probs of its prompt: minus a tenth of each token's id."""
    values = [None, *(-token / 10 for token in ids[1:]), -9.0]
    log_probs = {"tokens": [f"t{token}" for token in [*ids, 0]], "token_logprobs": values, "text_offset": []}
    return {"choices": [{"index": 0, "text": "...", "logprobs": log_probs, "finish_reason": "length"}]}


def test_log_probs_of_a_given_answer_are_those_of_its_own_tokens(tmp_path: Path):
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
def test_a_server_without_log_probs_of_a_given_answer_is_said_to_have_none(answer: Answer):
    with serving([answer]) as server:
        endpoint = Endpoint(server.url, "m")
        assert endpoint.given_log_probs([1, 2], [3]) is None
    assert endpoint.echoes is False


def test_a_failing_server_is_not_taken_for_one_without_log_probs():
    with serving([Answer("out of memory", 500)]) as server, pytest.raises(EndpointError, match="500: out of memory"):
        Endpoint(server.url, "m", retries=0).given_log_probs([1, 2], [3])
