"""A predictor behind a server beside the same model in this process: llama.cpp's server, and one that echoes."""

from collections.abc import Iterator

import pytest

from models.endpoint import Endpoint, EndpointError
from models.loading import load_model, load_tokenizer
from models.predictor import LocalPredictor, Query, RemotePredictor
from tests.llama_server import serving_miniature
from tests.local_server import Answer, Asked, Script, chat, serving
from tests.models.plain_pass import full_sequence_log_probs
from tests.models.queries import ANSWERS, QUERIES

MODEL = "miniature/llama-medium"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving_miniature(tmp_path_factory.mktemp("llama")) as url:
        yield url


@pytest.fixture(scope="module")
def local() -> LocalPredictor:
    return LocalPredictor(*load_model(MODEL), max_answer_tokens=8)


def echoing(local: LocalPredictor) -> Script:
    """A server that tells the log-probs of what it is given, as vLLM does, with the local model's."""

    def answer(asked: Asked, number: int) -> Answer:
        ids = asked.body["prompt"]
        log_probs = full_sequence_log_probs(local.model, ids, len(ids) - 1).tolist()
        return Answer({"choices": [{"logprobs": {"token_logprobs": [None, *log_probs, -1.0]}}]})

    return answer


@pytest.mark.command
def test_llama_cpp_answers_as_the_same_model_here_which_opens_its_own_reply(llama: str, local: LocalPredictor) -> None:
    # The server's reply begins with the opening that the local one is given, so it has as many tokens more.
    remote = RemotePredictor(Endpoint(llama, "m"), local.max_answer_tokens + len(local.opening))
    assert remote.answer(QUERIES) == local.answer(QUERIES)


@pytest.mark.command
def test_llama_cpp_cannot_tell_log_probs_and_is_asked_for_them_once(llama: str) -> None:
    endpoint = Endpoint(llama, "m")
    remote = RemotePredictor(endpoint, 8, tokenizer=load_tokenizer(MODEL))
    assert remote.answer_log_probs(QUERIES, ANSWERS) == [None] * len(QUERIES)
    assert endpoint.counts["requests"] == 1 and endpoint.echoes is False


def test_without_a_tokenizer_log_probs_are_none_and_nothing_is_asked() -> None:
    with serving([Answer(chat("5"))]) as server:
        remote = RemotePredictor(Endpoint(server.url, "m"), 8)
        assert remote.answer_log_probs(QUERIES, ANSWERS) == [None] * len(QUERIES)
        assert server.asked == []


def test_a_server_that_echoes_gives_the_log_probs_of_the_same_model_here(local: LocalPredictor) -> None:
    with serving(echoing(local)) as server:
        remote = RemotePredictor(Endpoint(server.url, "m"), 8, tokenizer=local.tokenizer)
        scores = remote.answer_log_probs([*QUERIES, QUERIES[0]], [*ANSWERS, ANSWERS[0]])
        assert len(server.asked) == len(QUERIES)
    expected = local.answer_log_probs(QUERIES, ANSWERS)
    for score, here in zip(scores, [*expected, expected[0]], strict=True):
        assert score is not None and here is not None and score.tokens == here.tokens
        assert score.log_prob == pytest.approx(here.log_prob, abs=1e-3)


def test_an_instruction_stands_where_it_does_here(local: LocalPredictor) -> None:
    instructed = LocalPredictor(local.model, local.tokenizer, 8, instruction="Answer briefly.")
    with serving(echoing(local)) as server:
        remote = RemotePredictor(Endpoint(server.url, "m"), 8, "Answer briefly.", local.tokenizer)
        [score] = remote.answer_log_probs(QUERIES[:1], ANSWERS[:1])
        server.script = lambda asked, number: Answer(chat("Answer: 41"))
        assert remote.answer(QUERIES[:1]) == ["41"]
        content = server.asked[-1].body["messages"][0]["content"]
    [here] = instructed.answer_log_probs(QUERIES[:1], ANSWERS[:1])
    assert score is not None and here is not None and score.log_prob == pytest.approx(here.log_prob, abs=1e-3)
    prompt = instructed.prompts(QUERIES[0].message, QUERIES[0].question)
    assert content in str(local.tokenizer.decode(prompt.ids))


def test_a_long_message_is_scored_whole_as_it_is_read_whole(local: LocalPredictor) -> None:
    query = Query("The zinc was 41. " * 400, "What was the zinc?")
    with serving([Answer({"choices": [{"logprobs": None}]})]) as server:
        RemotePredictor(Endpoint(server.url, "m"), 8, tokenizer=local.tokenizer).answer_log_probs([query], ["41"])
        assert len(server.asked[0].body["prompt"]) > len(local.prompts.format.text_ids(query.message))


def test_a_server_that_fails_at_log_probs_is_named(local: LocalPredictor) -> None:
    with serving([Answer("busy", 503)]) as server:
        remote = RemotePredictor(Endpoint(server.url, "m", retries=0), 8, tokenizer=local.tokenizer)
        with pytest.raises(EndpointError, match=r"model 'm': 503: busy"):
            remote.answer_log_probs(QUERIES, ANSWERS)


def test_a_server_writes_free_text_as_it_came() -> None:
    with serving([Answer(chat(" Which dose? "))]) as server:
        remote = RemotePredictor(Endpoint(server.url, "m"), max_answer_tokens=4)
        assert remote.write(["What is missing?"], max_tokens=32) == ["Which dose?"]
        body = server.asked[0].body
    assert body["messages"] == [{"role": "user", "content": "What is missing?"}] and body["max_tokens"] == 32
