"""What is asked says what the sampling says, and a reply holds what the server said of it."""

from models.endpoint import Completion, Endpoint, Sampling
from tests.local_server import Answer, chat, serving
from tests.models.endpoint.conversations import GREEDY, HELLO


def test_a_request_says_what_the_sampling_says() -> None:
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


def test_a_further_field_may_replace_one_or_take_it_out() -> None:
    sampling = Sampling(9, extra={"max_tokens": None, "max_completion_tokens": 9, "temperature": 1})
    assert sampling.fields() == {"temperature": 1, "max_completion_tokens": 9}


def test_a_reply_has_what_the_server_said_of_it() -> None:
    log_probs = {"content": [{"token": "no", "logprob": -0.5, "top_logprobs": []}]}
    unusual = chat(None, finish_reason="length") | {"usage": None}
    with serving([Answer(chat("no", logprobs=log_probs)), Answer(unusual)]) as server:
        endpoint = Endpoint(server.url, "m")
        assert endpoint.complete(HELLO, GREEDY) == Completion("no", "stop", 2, (-0.5,), tokens_read=3)
        assert endpoint.complete(HELLO, GREEDY) == Completion("", "length", None, None)


def test_half_of_a_character_in_an_answer_can_be_printed_and_a_whole_one_stays() -> None:
    with serving([Answer(chat("52 \ud800 \ud83d\ude00", finish_reason="stop\udfff"))]) as server:
        completion = Endpoint(server.url, "m").complete(HELLO, GREEDY)
    assert completion.text == "52 \ufffd \U0001f600" and completion.finish_reason == "stop\ufffd"
