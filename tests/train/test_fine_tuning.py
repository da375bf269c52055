"""Fine-tuning goes on where a kill ended it, reads a context once for its questions, and teaches the predictor."""

import json
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from configs.build import build_predictor
from configs.tree import ConfigError
from data.sample import Document, Question, Sample
from models.adapter_settings import read_settings
from models.fingerprint import is_trainable, parameter_hash
from models.loading import load_model
from models.predictor import LocalPredictor, Query
from models.shared_prefix import MAX_TOKENS_PER_PASS
from tests.train.test_warm_start import TINY, prepared
from train.config import load_config
from train.run import main
from train.run_folder import PREDICTOR
from train.sections.starting import FineTuningConfig, PredictorWarmStartConfig
from train.warm_start import fine_tuning
from train.warm_start.fine_tuning import Example, Kept, fine_tune
from train.warm_start.job import UNANSWERABLE, draw_answers, draw_examples
from train.warm_start.targets import target_of

PREDICTOR_WARM = "train.predictor_warm_start={examples: 8, batch_size: 4, epochs: 2, empty: 0.0}"


class Killed(Exception):
    """Ends a fine-tuning between two steps."""


def test_a_killed_fine_tuning_goes_on_and_ends_as_the_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fine_tuning, "SAVE_SECONDS", 0.0)
    settings = FineTuningConfig(examples=8, batch_size=2, epochs=2)
    _, whole, samples = prepared(tmp_path / "whole", "compressor.lora.dropout=0.1")
    examples = draw_examples(samples, whole.compressor, 8, 0).chosen
    losses = fine_tune(whole.adapted, examples, settings, 1.0, 0, "test")
    _, killed, _ = prepared(tmp_path / "killed", "compressor.lora.dropout=0.1")
    kept = Kept(tmp_path / "killed", "test.state", "one key")
    steps = 0

    def dying(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps > 5:
            raise Killed
        return gradients(*arguments)

    gradients = fine_tuning.leave_gradients
    monkeypatch.setattr(fine_tuning, "leave_gradients", dying)
    with pytest.raises(Killed):
        fine_tune(killed.adapted, examples, settings, 1.0, 0, "test", kept)
    monkeypatch.setattr(fine_tuning, "leave_gradients", gradients)
    _, resumed, _ = prepared(tmp_path / "resumed", "compressor.lora.dropout=0.1")
    assert fine_tune(resumed.adapted, examples, settings, 1.0, 0, "test", kept) == losses
    assert "test goes on after step 5" in capsys.readouterr().out
    assert parameter_hash(resumed.adapted, is_trainable) == parameter_hash(whole.adapted, is_trainable)
    for change, said in (("key", "of other examples or settings"), ("damage", "is not what was written")):
        other = kept._replace(key="another") if change == "key" else kept
        if change == "damage":
            (kept.place / fine_tuning.TENSORS).write_bytes(b"damaged")
        _, anew, _ = prepared(tmp_path / "anew", "compressor.lora.dropout=0.1")
        assert fine_tune(anew.adapted, examples, settings, 1.0, 0, "test", other) == losses
        assert f"{said}; test begins anew" in capsys.readouterr().err


def test_questions_of_one_context_lie_together_and_each_is_learned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [Example([1, 2, number], [3], f"d{number % 3}") for number in range(12)]
    examples += [Example([9, number], [3]) for number in range(4)]
    settings = FineTuningConfig(examples=16, batch_size=4, questions_per_context=4)
    batches = list(fine_tuning._batches(examples, settings, 0))
    assert sorted(example.prompt_ids for batch in batches for example in batch) == sorted(
        e.prompt_ids for e in examples
    )
    order = [example.context for batch in batches for example in batch if example.context]
    assert [len(set(order[at : at + 4])) for at in range(0, 12, 4)] == [1, 1, 1]
    # A pass holds a context once for the examples of it: four of them are less than two apart.
    long = [Example([*range(MAX_TOKENS_PER_PASS - 100), number], [3], "d") for number in range(4)]
    assert [len(part) for part in fine_tuning._passes(long)] == [4]
    assert [len(part) for part in fine_tuning._passes([example._replace(context="") for example in long])] == [1] * 4


def test_the_predictor_learns_the_shortest_answer_from_evidence_whole_contexts_and_nothing() -> None:
    model, tokenizer = load_model("miniature/llama-medium")
    predictor = LocalPredictor(model, tokenizer, 12, instruction="Be brief.")
    question = Question("q", "What was the zinc?", ("the value 41", "41"), "f1")
    text = "Seen today. The zinc was 41. Told to rest."
    samples = [Sample(Document(f"d{number}", "t", text, (question,)), question) for number in range(400)]
    settings = PredictorWarmStartConfig(examples=400, whole_contexts=0.25, empty=0.25)
    examples = draw_answers(samples, predictor, settings, 0).chosen
    prompts = {
        name: predictor.lesson(Query(message, question.text), answer)
        for name, message, answer in (
            ("whole", text, "41"),
            ("empty", "", UNANSWERABLE),
            ("evidence", target_of(samples[0]) or "", "41"),
        )
    }
    counts = {name: sum(list(e[:2]) == list(lesson) for e in examples) for name, lesson in prompts.items()}
    assert sum(counts.values()) == 400 and 70 < counts["whole"] < 130 and 70 < counts["empty"] < 130
    assert all(bool(e.context) == (list(e[:2]) == list(prompts["whole"])) for e in examples)
    reply = prompts["evidence"][1]
    assert reply[-1] == predictor.end_token_id and str(tokenizer.decode(reply[:-1])).strip() == "41"


@pytest.mark.command
def test_a_warm_started_predictor_answers_in_its_run_and_wherever_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["--config", "mi_rl.yaml", f"run_folder={run}", *TINY, PREDICTOR_WARM]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["meta"]["predictor_warm_start"]["examples"] == 8 and not list(run.glob("*.state"))
    settings = read_settings(run / PREDICTOR)
    assert settings is not None and settings.role == "predictor" and settings.base.model == "miniature/llama-medium"
    given = ["mi_rl.yaml", [f"run_folder={tmp_path / 'other'}", *TINY]]
    plain, plain_model = build_predictor(load_config(*given).predictor, settings.answer_instruction)
    named = load_config(given[0], [*given[1], f"predictor.adapter={run / PREDICTOR}"])
    adapted, model = build_predictor(named.predictor, settings.answer_instruction)
    assert model is not None and plain_model is not None
    assert results["meta"]["hashes"]["predictor"] == parameter_hash(model) != parameter_hash(plain_model)
    query = [Query("The zinc is 41.", "What was the zinc?")]
    assert adapted.answer_log_probs(query, ["41"]) != plain.answer_log_probs(query, ["41"])
    # The adapter of one role is refused in the other's place, before a model is loaded.
    capsys.readouterr()
    for wrong, said in (
        (f"predictor.adapter={run / 'compressor'}", "makes a compressor of its model"),
        (f"compressor={{model: miniature/llama-medium, adapter: {run / PREDICTOR}}}", "makes a predictor of its model"),
    ):
        assert main(["--config", "mi_rl.yaml", f"run_folder={tmp_path / 'refused'}", *TINY, wrong]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and said in error


@pytest.mark.command
def test_a_run_without_steps_is_its_warm_start(tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = [*TINY, "train.steps=0", "train.warm_start={examples: 8, batch_size: 4}", PREDICTOR_WARM]
    assert main(["--config", "mi_rl.yaml", f"run_folder={run}", *given]) == 0
    results = json.loads((run / "results.json").read_text())
    assert results["meta"]["hashes"]["adapter"] and not (run / "checkpoints").exists()
    assert (run / "compressor" / "adapter_model.safetensors").read_bytes() == (
        run / "warm_start" / "adapter_model.safetensors"
    ).read_bytes()
    # What is measured before is the model itself, so that it is no baseline besides.
    assert results.get("baselines") is None and results["overall"]["before"]["n"] == 2
    assert (run / "report.html").is_file()


def test_a_predictor_that_cannot_be_trained_is_refused(tmp_path: Path) -> None:
    remote = "predictor={endpoint: 'http://127.0.0.1:9/v1', model: m}"
    for given, said in (
        ([remote, PREDICTOR_WARM], "train.predictor_warm_start: the predictor of predictor.endpoint"),
        ([f"predictor={{endpoint: 'http://127.0.0.1:9/v1', model: m, adapter: {tmp_path}}}"], "drop one"),
        (["train.steps=0"], "train.steps = 0: nothing is trained"),
        (["train.predictor_warm_start={whole_contexts: 0.7, empty: 0.7}"], "together at most 1"),
    ):
        with pytest.raises(ConfigError) as refusal:
            load_config("mi_rl.yaml", given)
        assert said in str(refusal.value)


def test_replies_take_turns_over_the_passes() -> None:
    example = Example([1, 2], [3], "d", ([4], [5]))
    settings = FineTuningConfig(examples=2, batch_size=2, epochs=4)
    batches = list(fine_tuning._batches([example, Example([9], [8])], settings, 0))
    assert [sorted(e.reply_ids for e in batch) for batch in batches] == [[[3], [8]], [[4], [8]], [[5], [8]], [[3], [8]]]
