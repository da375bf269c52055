"""What is peculiar about servers: thoughts, empty answers, other models, and fields that they do not take."""

from typing import Any

import pytest

from models.endpoint import Completion, Endpoint, Sampling
from models.endpoint.habits import same_model
from tests.local_server import Answer, Asked, chat, serving
from tests.models.endpoint.conversations import GREEDY, HELLO, say


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<think>The zinc is 4.</think>\n4", "4"),
        ("\n<think>\n\n</think>\n\nAnswer: 4", "Answer: 4"),
        ("The zinc is 4.\n</think>\n4", "4"),
        ("<think>The zinc", ""),
        ("4 <think>surely</think>", "4 <think>surely</think>"),
        ('{"said": "</think>"}', '{"said": "</think>"}'),
    ],
)
def test_thoughts_in_front_of_an_answer_are_no_part_of_it(content: str, text: str) -> None:
    with serving([Answer(chat(content))]) as server:
        completion = Endpoint(server.url, "m").complete(HELLO, GREEDY)
    if text == content:
        assert completion == Completion(text, "stop", 2, tokens_read=3)
    else:
        assert completion.text.strip() == text and completion.thoughts


def test_reasoning_apart_from_the_content_is_no_answer_and_empty_answers_are_told() -> None:
    said: list[str] = []
    thinking = chat("")
    thinking["choices"][0]["finish_reason"] = "length"
    thinking["choices"][0]["message"]["reasoning_content"] = "The notes give a zinc of"
    silent = chat(None, finish_reason="content_filter")
    with serving([Answer(thinking), Answer(thinking), Answer(silent), Answer(chat("<think>a</think>5"))]) as server:
        endpoint = Endpoint(server.url, "m", say=said.append)
        texts = [endpoint.complete(say(text), GREEDY).text for text in "abcd"]
    assert texts == ["", "", "", "5"]
    assert said == [
        f"{endpoint.name}: its token limit ended an answer before any text; the end says how many",
        f"{endpoint.name}: an answer has no text (content_filter); the end says how many",
    ]
    assert endpoint.notes("predictor.max_answer_tokens") == [
        f"{endpoint.name}: 2 of 4 answers empty: the server's token limit ended them before any text; "
        "raise predictor.max_answer_tokens",
        f"{endpoint.name}: 1 of 4 answers empty, though no limit ended them",
        f"{endpoint.name}: 1 of 4 answers with thoughts in front of them, which were cut off",
    ]
    assert endpoint.totals() == {
        "requests": 4,
        "tokens read": 12,
        "tokens written": 8,
        "replies": 4,
        "empty": 3,
        "empty at the token limit": 2,
        "thoughts cut off": 1,
    }


@pytest.mark.parametrize(
    ("asked", "answered", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("Qwen/Qwen2.5-7B", "qwen2.5-7b", True),
        ("m", "/models/m", True),
        ("m", None, True),
        ("claude-latest", "claude-20250101", True),
        ("gpt-4", "gpt-4o-mini", False),
        ("gpt-4", "gpt-3.5-turbo", False),
        ("m", "m-quantised", False),
    ],
)
def test_a_model_is_known_by_its_name(asked: str, answered: str | None, same: bool) -> None:
    assert same_model(asked, answered) is same


def test_another_model_than_was_asked_for_is_said_once_and_counted() -> None:
    said: list[str] = []
    with serving([Answer(chat("yes"))]) as server:
        endpoint = Endpoint(server.url, "another", say=said.append)
        endpoint.complete_all([say("a"), say("b")], GREEDY)
    assert said == [f"{endpoint.name}: answers as another model, 'm': results are that model's"]
    assert endpoint.notes("") == [f"{endpoint.name}: 2 of 2 answers of another model than was asked for"]


def reasoning_model(asked: Asked, number: int) -> Answer:
    """As hosted reasoning models refuse what they do not take: one field is named, whichever it is."""
    if "max_tokens" not in asked.body and asked.body.get("temperature", 1) == 1:
        return Answer(chat("yes"))
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    error = {"message": words, "type": "invalid_request_error", "param": "max_tokens", "code": "unsupported_parameter"}
    return Answer({"error": error}, 400)


def test_a_server_that_wants_its_requests_written_otherwise_is_obeyed_and_that_is_said() -> None:
    said: list[str] = []
    with serving(reasoning_model) as server:
        endpoint = Endpoint(server.url, "m", concurrency=1, say=said.append)
        endpoint.complete_all([say("a"), say("b")], GREEDY)
        bodies: list[dict[str, Any]] = [asked.body for asked in server.asked]
    assert len(bodies) == 4
    assert bodies[-1] == {"model": "m", "messages": say("b"), "max_completion_tokens": 8}
    assert said == [
        f"{endpoint.name}: refuses max_tokens: max_completion_tokens is sent in its place",
        f"{endpoint.name}: refuses the temperature: none is sent, and its answers are its own samples",
    ]


def test_a_request_can_name_the_fields_that_such_a_server_takes() -> None:
    fields = {"max_tokens": None, "max_completion_tokens": 9, "temperature": None, "reasoning_effort": "low"}
    with serving(reasoning_model) as server:
        Endpoint(server.url, "m").complete(HELLO, Sampling(9, extra=fields))
        [asked] = server.asked
    assert asked.body == {"model": "m", "messages": HELLO, "max_completion_tokens": 9, "reasoning_effort": "low"}


def test_a_limit_that_is_too_large_is_not_taken_for_one_of_another_name() -> None:
    words = "'max_tokens' or 'max_completion_tokens' is too large: 9. The maximum context length is 8 tokens."
    said: list[str] = []
    with serving([Answer({"error": {"message": words}}, 400)]) as server:
        endpoint = Endpoint(server.url, "m", say=said.append)
        with pytest.raises(ValueError, match="400: 'max_tokens' or"):
            endpoint.complete(HELLO, GREEDY)
        assert len(server.asked) == 1 and said == []
