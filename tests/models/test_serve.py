"""The server of a compressor: its messages are the compressor's own, whole and in pieces, within every budget."""

from collections.abc import Iterator

import pytest
import torch

from models.compress_job import bits
from models.compressor import Compressor
from models.loading import load_model
from models.predictor import LocalPredictor, Query
from models.prompts import ChatFormat
from models.serve.backend import Overdue, Task, Watch
from models.serve.reading import Pieces, Reader
from models.serve.torch_backend import TorchBackend
from tests.models.serving import (
    DOCUMENT,
    MODEL,
    QUESTION,
    Running,
    embedded_compressor,
    events,
    running,
    service_of,
    streamed,
)

pytestmark = pytest.mark.command

ASK = {"document": DOCUMENT, "messages": [{"role": "user", "content": QUESTION}]}


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    return embedded_compressor()


@pytest.fixture(scope="module")
def server(compressor: Compressor) -> Iterator[Running]:
    predictor = LocalPredictor(*load_model("miniature/llama-medium"), max_answer_tokens=16)
    with running(service_of(TorchBackend(compressor), predictor=predictor)) as server:
        yield server


def test_a_reply_is_what_the_compressor_writes(server: Running, compressor: Compressor) -> None:
    (message,) = compressor.write([DOCUMENT], [QUESTION])
    reply = server.asked()
    choice = reply["choices"][0]
    assert choice["message"]["content"] == message.text and choice["finish_reason"] == "stop"
    prompt = compressor.prompt(DOCUMENT, QUESTION)
    assert reply["usage"] == {
        "prompt_tokens": len(prompt.ids),
        "completion_tokens": message.tokens,
        "total_tokens": len(prompt.ids) + message.tokens,
    }
    (carried,) = bits(compressor, [DOCUMENT], [QUESTION], [message])
    assert reply["shorthand"]["bits"] == pytest.approx(carried, abs=1e-3)
    assert reply["shorthand"] | {"bits": 0} == {
        "bits": 0,
        "ended": True,
        "tokens": message.tokens,
        "truncated_tokens": 0,
        "budget_tokens": 24,
        "unread_messages": 0,
        "neutralised": 0,
        "seed": None,
    }


def test_sampled_choices_are_those_of_the_seed_and_a_seed_is_told(server: Running, compressor: Compressor) -> None:
    messages = compressor.write([DOCUMENT], [QUESTION], 3, temperature=1.5, seeds=[7])
    reply = server.asked(n=3, temperature=1.5, seed=7)
    assert [choice["message"]["content"] for choice in reply["choices"]] == [message.text for message in messages]
    assert reply["usage"]["completion_tokens"] == sum(message.tokens for message in messages)
    drawn = server.asked(temperature=1.5)
    again = server.asked(temperature=1.5, seed=drawn["shorthand"]["seed"])
    assert again["choices"][0]["message"] == drawn["choices"][0]["message"]


@pytest.mark.parametrize("seed", range(6))
def test_pieces_join_to_the_message(server: Running, compressor: Compressor, seed: int) -> None:
    fields = {"temperature": 2.0, "seed": seed, "n": 2, "max_tokens": 20}
    whole = server.asked(**fields)
    pieces = events(server.post(**ASK, **fields, stream=True, stream_options={"include_usage": True}))
    assert pieces[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    for choice in whole["choices"]:
        assert streamed(pieces, choice["index"]) == choice["message"]["content"]
    endings = {choice["index"]: choice for piece in pieces for choice in piece["choices"] if choice["finish_reason"]}
    assert [endings[number]["finish_reason"] for number in (0, 1)] == [c["finish_reason"] for c in whole["choices"]]
    assert pieces[-1]["choices"] == [] and pieces[-1]["usage"] == whole["usage"]
    assert pieces[-3]["shorthand"] == whole["shorthand"]
    assert pieces[-2]["shorthand"] == whole["shorthand"] | whole["choices"][1]["shorthand"]
    assert len({piece["id"] for piece in pieces}) == 1 and all(piece.get("usage") is None for piece in pieces[:-1])


@pytest.mark.parametrize("cleaned", [False, True])
def test_pieces_of_any_tokens_join_to_their_text_and_hold_no_half_letters(cleaned: bool) -> None:
    _, tokenizer = load_model(MODEL)
    tokenizer.clean_up_tokenization_spaces = cleaned
    reader, generator = Reader(tokenizer, 2048), torch.Generator().manual_seed(1)
    texts = ["  Größe: 52 µg/l 😀 and 5 % , isn ' t it ?\n\n", "", " ", "日本語の文書"]
    drawn = [torch.randint(0, len(tokenizer), (40,), generator=generator).tolist() for _ in range(20)]
    written = [ChatFormat(tokenizer).text_ids(text) for text in texts]
    for ids in [*written, *drawn]:
        pieces = Pieces(reader)
        said = [pieces.add(index) for index in ids]
        assert "".join(said) + pieces.rest(reader.text(ids)) == reader.text(ids)
        assert not any(piece != piece.rstrip() for piece in said)
        # Random tokens have halves of letters in them that never become whole.
        assert ids in drawn or not any("\ufffd" in piece for piece in said)
        if len(ids) > 10 and not cleaned:
            assert sum(map(bool, said)) > 3


@pytest.mark.parametrize("budget", [1, 2, 3, 7, 30, 300])
def test_no_reply_exceeds_its_budget(server: Running, compressor: Compressor, budget: int) -> None:
    for temperature in (0, 1.7):
        for name in ("max_tokens", "max_completion_tokens"):
            reply = server.asked(**{name: budget}, temperature=temperature, seed=budget, bits=False)
            tokens = reply["usage"]["completion_tokens"]
            assert tokens <= budget and reply["shorthand"]["budget_tokens"] == budget
            cut = reply["choices"][0]["finish_reason"] == "length"
            assert cut == (not reply["shorthand"]["ended"]) and (not cut or tokens == budget)
            assert reply["shorthand"]["bits"] is None
    (message,) = Compressor(compressor.model, compressor.tokenizer, budget).write([DOCUMENT], [QUESTION])
    assert server.asked(max_tokens=budget)["choices"][0]["message"]["content"] == message.text


def test_a_long_document_says_what_it_lost(server: Running, compressor: Compressor) -> None:
    long = "The zinc was 85 mg on that day. " * 400
    reply = server.chat(document=long, question=QUESTION, messages=[])
    (message,) = compressor.write([long], [QUESTION])
    assert reply["shorthand"]["truncated_tokens"] == message.truncated_tokens > 0
    assert reply["choices"][0]["message"]["content"] == message.text
    assert reply["usage"]["total_tokens"] <= compressor.window
    # A long question takes its room from the document.
    asked = "What was the zinc? " + "Think of the ward. " * 200
    longer = server.chat(document=long, question=asked, messages=[])
    assert longer["shorthand"]["truncated_tokens"] > message.truncated_tokens
    assert longer["usage"]["prompt_tokens"] + 24 <= compressor.window


def test_the_page_is_told_the_bits_of_each_token_and_the_answers(server: Running, compressor: Compressor) -> None:
    reply = server.post("/v1/compress", document=DOCUMENT, question=QUESTION, max_tokens=12).json()
    (message,) = Compressor(compressor.model, compressor.tokenizer, 12).write([DOCUMENT], [QUESTION])
    assert reply["message"] == message.text and reply["message_tokens"] == len(reply["tokens"]) == message.tokens
    assert "".join(part["text"] for part in reply["tokens"][:-1]).strip() == message.text
    assert sum(part["bits"] for part in reply["tokens"]) == pytest.approx(reply["bits"], abs=1e-6)
    predictor = LocalPredictor(*load_model("miniature/llama-medium"), max_answer_tokens=16)
    answers = predictor.answer([Query(message.text, QUESTION), Query("", QUESTION)])
    assert list(reply["answers"].values()) == answers
    assert server.post("/v1/compress", document=DOCUMENT, question=QUESTION, answer=False).json()["answers"] is None


def test_models_health_and_counts_are_there(server: Running) -> None:
    listed = server.client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["compressor"] and listed[0]["shorthand"]["budget_tokens"] == 24
    assert server.client.get("/v1/models/compressor").json() == listed[0]
    assert server.client.get("/v1/models/other").status_code == 404
    assert server.client.get("/health").json() == {"status": "ok"}
    before = server.metric("written_tokens_total"), server.metric("seconds_count")
    wrote = server.asked()["usage"]["completion_tokens"]
    after = server.metric("written_tokens_total"), server.metric("seconds_count")
    assert (after[0] - before[0], after[1] - before[1]) == (wrote, 1)
    lines = server.client.get("/metrics").text.splitlines()
    assert all(line.startswith("#") or len(line.rsplit(" ", 1)) == 2 for line in lines)


def test_a_compressor_that_was_told_its_budget_is_told_that_of_the_request() -> None:
    model, tokenizer = load_model(MODEL)
    backend = TorchBackend(Compressor(model, tokenizer, 24, None, "Be brief.", (8, 16, 24)))
    for budget in (8, 24, 40):
        asked = Compressor(model, tokenizer, budget, None, "Be brief.", (8, 16, 24))
        assert backend.reader.read(DOCUMENT, QUESTION, budget) == asked.prompt(DOCUMENT, QUESTION)
    assert len(backend.reader._prompts) <= 32


def test_the_model_is_as_it_was_after_work_that_was_given_up(compressor: Compressor) -> None:
    backend, watch = TorchBackend(compressor), Watch()
    hooks = sum(len(module._forward_pre_hooks) for module in compressor.model.modules())
    watch.begin(0.0)
    with pytest.raises(Overdue):
        backend.write(Task(DOCUMENT, QUESTION, 24), watch)
    assert sum(len(module._forward_pre_hooks) for module in compressor.model.modules()) == hooks
    assert backend.write(Task(DOCUMENT, QUESTION, 24), Watch()).choices
