"""Conversations with a scripted server, and the error that one request ends in."""

from typing import Any

import pytest

from models.endpoint import Endpoint, EndpointError, Messages, Sampling
from tests.local_server import Answer, Asked, LocalServer, chat

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
