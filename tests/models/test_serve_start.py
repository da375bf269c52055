"""From the command line to a backend: an adapter's own budget and prompt, by torch, llama.cpp and another server."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from models.adapters import add_adapter, save_adapter
from models.compressor import Compressor, compress
from models.loading import load_model
from models.naming import ModelError
from models.serve.__main__ import parse
from models.serve.backend import Task, Watch, Written
from models.serve.service import Service
from models.serve.start import load
from tests.local_server import Answer, chat, serving
from tests.models.serving import DOCUMENT, QUESTION

pytestmark = pytest.mark.command

BASE = "miniature/llama-medium"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of an adapter that changes its base and remembers a budget of 20 and an instruction."""
    model, tokenizer = load_model(BASE)
    adapted = add_adapter(model, 4, 8, 0.0, "all-linear", seed=0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02)
    folder = tmp_path_factory.mktemp("run") / "compressor"
    settings = Compressor(adapted, tokenizer, 20, 500, "Be brief.").settings(BASE, None, "Say it.")
    save_adapter(adapted, tokenizer, folder, BASE, settings=settings)
    return str(folder)


def written(service: Service, budget: int | None = None, question: str = QUESTION) -> Written:
    """One message of the document of these tests."""
    task = Task(DOCUMENT, question, budget or service.limits.budget_tokens)
    return asyncio.run(service.write(task, Watch()))


def test_an_adapter_is_served_as_it_was_trained(adapter: str) -> None:
    service = load(parse(["--adapter", adapter]))
    message = compress(DOCUMENT, QUESTION, adapter)
    choice = written(service).choices[0]
    assert (choice.text, choice.tokens, choice.ended) == (message.text, message.tokens, message.ended)
    assert service.limits.model == "compressor" and service.limits.budget_tokens == 20 and service.predictor is None
    assert written(service, 5).choices[0].text == compress(DOCUMENT, QUESTION, adapter, 5).text
    service.line.stop(1.0)


def test_options_change_what_is_served(adapter: str) -> None:
    service = load(
        parse(["--adapter", adapter, "--budget", "9", "--name", "x/y", "--no-bits", "--question", "Sum up."])
    )
    limits = service.limits
    assert (limits.model, limits.budget_tokens, limits.bits, limits.default_question) == ("x/y", 9, False, "Sum up.")
    assert load(parse(["--adapter", adapter, "--most-budget", "30"])).limits.most_budget_tokens == 30
    for arguments, reason in ((["--budget", "1900"], "no room"), (["--most-budget", "19"], "--most-budget 19")):
        with pytest.raises(ModelError, match=reason):
            load(parse(["--adapter", adapter, *arguments]))


def test_llama_cpp_is_sent_the_adapters_prompt(adapter: str, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="llama.cpp (xllamacpp) is not installed")
    pytest.importorskip("gguf", reason="the gguf package is not installed")
    from tests.miniature_gguf import write_miniature_gguf

    file = write_miniature_gguf(tmp_path / "base.gguf")
    arguments = ["--adapter", adapter, "--backend", "llama.cpp", "--gguf", str(file), "--threads", "1"]
    service = load(parse(arguments))
    model, tokenizer = load_model(BASE)
    (message,) = Compressor(model, tokenizer, 20, 500, "Be brief.").write([DOCUMENT], [QUESTION])
    found = written(service)
    assert found.choices[0].text == message.text and service.limits.budget_tokens == 20
    assert service.describe()["window"] == 2048
    smaller = load(parse([*arguments, "--window", "300"]))
    assert smaller.describe()["window"] == 300 and smaller.limits.most_budget_tokens == 224
    long = asyncio.run(smaller.write(Task(DOCUMENT * 20, QUESTION, 20), Watch()))
    assert long.truncated_tokens and long.read_tokens + 20 <= 300


def test_another_server_is_sent_the_adapters_prompt(adapter: str) -> None:
    with serving([Answer(chat("The zinc was 52."))]) as upstream:
        arguments = ["--adapter", adapter, "--backend", "upstream", "--upstream", upstream.url, "--model", "m"]
        service = load(parse(arguments))
        assert written(service).choices[0].text == "The zinc was 52."
        assert (service.limits.model, service.limits.budget_tokens) == ("m", 20)
    body: Any = upstream.asked[0].body
    assert body["messages"] == [
        {"role": "user", "content": f"{DOCUMENT}\n\nQuestion: {QUESTION}\n\nBe brief."},
    ]
    assert body["max_tokens"] == 20 and body["model"] == "m"


def test_a_predictor_answers_beside_any_backend(adapter: str) -> None:
    with serving([Answer(chat("The zinc was 52."))]) as upstream, serving([Answer(chat("Answer: 52"))]) as reader:
        arguments = ["--backend", "upstream", "--upstream", upstream.url, "--model", "m"]
        service = load(parse([*arguments, "--predictor", "reader", "--endpoint", reader.url]))
        task = Task(DOCUMENT, QUESTION, 16)
        _, answers = asyncio.run(service.write_and_answer(task, QUESTION, Watch()))
    assert answers is not None and answers.with_message == answers.without_message == "52"
    asked = [request.body["messages"][0]["content"] for request in reader.asked]
    assert sorted(text.startswith("The zinc was 52.") for text in asked) == [False, True]
