"""The warm start and the starting adapter: what a run starts from, and that it starts from nothing else."""

import json
import math
import random
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.build import load_samples
from configs.tree import PROJECT, describe
from data.sample import Document, Question, Sample
from models.compressor import Compressor
from models.fingerprint import is_trainable, parameter_hash
from models.loading import load_model
from tests.train.test_run import ENVIRONMENT, deepspeed
from train.config import Config, load_config
from train.grpo.guard import DivergenceError
from train.models import Models, load_models
from train.questions.source import training_request
from train.run import main
from train.run_folder import WARM_START, identity, stand
from train.sampling.rollout import Rollout
from train.warm_start import fine_tuning
from train.warm_start import job as module
from train.warm_start.fine_tuning import Example, fine_tune
from train.warm_start.job import draw_examples, warm_start
from train.warm_start.targets import target_of

TINY = (
    "tasks=[{name: miniature/notes, facts: 6}]",
    "train.steps=1",
    "train.contexts_per_step=2",
    "train.group_size=2",
    "information.negatives={counterfactual: 1, batch: 1}",
    "compressor.budget_tokens=48",
    "eval.documents=2",
    "eval.questions_per_document=1",
    "eval.greedy=false",
    "tracking.wandb=disabled",
)
WARM = "train.warm_start={examples: 8, batch_size: 4, epochs: 2}"


def prepared(folder: Path, *more: str) -> tuple[Config, Models, list[Sample]]:
    config = load_config("mi_rl.yaml", [f"run_folder={folder}", *TINY, WARM, *more])
    folder.mkdir(parents=True, exist_ok=True)
    models = load_models(config)
    return config, models, load_samples(config, models.compressor, "train", training_request, print)


class AtTheStart:
    """What the rollout asks of a trainer."""

    class state:
        global_step = 0

    use_vllm = False


def test_examples_have_the_prompts_of_the_rollout_and_end_as_its_messages(tmp_path: Path) -> None:
    config, models, samples = prepared(tmp_path)
    rollout = Rollout(models.compressor, {sample.id: sample for sample in samples}, 1.0, 0)
    prompts = rollout([sample.id for sample in samples], AtTheStart)["prompt_ids"]
    examples = draw_examples(samples, models.compressor, 8, config.seed).chosen
    assert len(examples) == 8 and sorted(e.prompt_ids for e in examples) == sorted(prompts)
    for example in examples:
        sample = samples[prompts.index(example.prompt_ids)]
        assert example.reply_ids[-1] == models.compressor.end_token_id
        assert models.compressor.text(example.reply_ids[:-1]) == target_of(sample)


def test_a_target_beyond_the_budget_is_left_out_and_a_blind_question_learns_what_others_rest_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, models, _ = prepared(tmp_path, "compressor.budget_tokens=5")
    question = Question("q", "What was the zinc?", ("41",), "f1")
    blind = Question("b", "What was the zinc?", ("41",), "f1", blind=True)
    document = Document("d", "miniature/notes", "Seen today. The zinc 41. " + "Told to rest. " * 3, (question, blind))
    models.compressor.budget_tokens = 16
    long = Document("e", "miniature/notes", "The zinc" + " and the iron" * 20 + " was 41.", (question,))
    drawn = [Sample(document, question), Sample(document, blind), Sample(long, question)]
    examples = draw_examples(drawn, models.compressor, 9, 0)
    assert [models.compressor.text(example.reply_ids) for example in examples.chosen] == ["The zinc 41."] * 2
    assert examples.left_out == {"longer than the budget of 16 tokens": 1}
    answers = draw_examples(drawn[:2], models.compressor, 9, 0, "answer")
    assert len(answers.chosen) == 1 and answers.left_out == {"without evidence": 1}


def test_the_loss_falls_and_the_base_stays(tmp_path: Path) -> None:
    config, models, samples = prepared(
        tmp_path, "train.warm_start={examples: 8, batch_size: 4, epochs: 6, learning_rate: 2.0e-3}"
    )
    assert config.train.warm_start is not None
    examples = draw_examples(samples, models.compressor, 8, 0).chosen
    before = parameter_hash(models.adapted, lambda name, parameter: not is_trainable(name, parameter))
    random_state = torch.get_rng_state()
    losses = fine_tune(models.adapted, examples, config.train.warm_start, 1.0, 0, "warm start")
    assert len(losses) == 12 and sum(losses[-2:]) < 0.7 * sum(losses[:2])
    assert parameter_hash(models.adapted, lambda name, parameter: not is_trainable(name, parameter)) == before
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(parameter.grad is None for parameter in models.adapted.parameters())


def test_the_loss_of_a_batch_is_that_of_plain_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, models, samples = prepared(tmp_path)
    batch = draw_examples(samples, models.compressor, 3, 0).chosen
    parameters = [parameter for parameter in models.adapted.parameters() if parameter.requires_grad]
    torch.manual_seed(1)
    for parameter in parameters:
        torch.nn.init.normal_(parameter.data, std=0.05)
    total = torch.zeros(())
    for prompt, message, *_ in batch:
        logits = models.adapted(torch.tensor([[*prompt, *message]])).logits[0, len(prompt) - 1 : -1]
        total = total + torch.nn.functional.cross_entropy(logits, torch.tensor(message), reduction="sum")
    tokens = sum(len(message) for _, message, *_ in batch)
    loss = total / tokens
    loss.backward()
    plain = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    for limit in (4096, 1):
        monkeypatch.setattr(fine_tuning, "MAX_TOKENS_PER_PASS", limit)
        for parameter in parameters:
            parameter.grad = None
        nats = fine_tuning.leave_gradients(models.adapted, parameters, batch)
        assert nats.sum().item() / tokens == pytest.approx(loss.item(), rel=1e-4)
        for parameter, gradient in zip(parameters, plain, strict=True):
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, gradient, rtol=1e-3, atol=1e-5)


def test_a_loss_that_is_not_finite_ends_the_warm_start_in_one_line(tmp_path: Path) -> None:
    config, models, _ = prepared(tmp_path, "train.warm_start.learning_rate=1.0e+30")
    assert config.train.warm_start is not None
    examples = [Example([1, 2, 3], [4, 5])] * 24
    with pytest.raises(Exception) as refusal:
        fine_tune(models.adapted, examples, config.train.warm_start, 1.0, 0, "warm start")
    assert isinstance(refusal.value, DivergenceError), refusal.value
    assert "is not finite" in str(refusal.value) and "\n" not in str(refusal.value)


def test_what_an_earlier_start_left_is_taken_and_damage_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, models, samples = prepared(tmp_path, "compressor.lora.dropout=0.1")
    first = warm_start(config, models, samples)
    trained = parameter_hash(models.adapted)
    assert stand(tmp_path) == str(tmp_path / WARM_START) and not (tmp_path / "unfinished").exists()
    resumed = load_models(config)
    assert parameter_hash(resumed.adapted) != trained
    # As a kill between the two leaves it: the outcome is safe, and its state still there.
    (tmp_path / module.WARM_START_STATE).mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(module, "fine_tune", None)
        assert warm_start(config, resumed, samples) == first
    assert parameter_hash(resumed.adapted) == trained and not (tmp_path / module.WARM_START_STATE).exists()
    (tmp_path / WARM_START / "adapter_model.safetensors").write_bytes(b"damaged")
    again = load_models(config)
    capsys.readouterr()
    warm_start(config, again, samples)
    assert "is not what was written; the warm start is done again" in capsys.readouterr().err
    assert parameter_hash(again.adapted) == trained


@pytest.mark.command
def test_a_run_with_a_warm_start_measures_what_reinforcement_adds_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def arguments(name: str, *more: str) -> list[str]:
        return ["--config", "mi_rl.yaml", f"run_folder={tmp_path / name}", *TINY, WARM, *more]

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert main(arguments("whole")) == 0
    results = json.loads((whole / "results.json").read_text())
    assert [entry["name"] for entry in results["baselines"]] == ["base model"]
    assert results["baselines"][0]["n"] == results["overall"]["before"]["n"] == 2
    assert results["meta"]["warm_start"]["examples"] == 8 and results["meta"]["seconds"]["warm_start"] > 0
    assert "| warm start | none |" in (whole / "tables.md").read_text()
    assert "|  | warm start | with it |" in (whole / "compressor" / "README.md").read_text()
    # As a kill right after the warm start leaves it.
    shutil.copytree(whole, resumed)
    for name in ("results.json", "metrics.jsonl", "messages.jsonl", "report.html", "samples.jsonl"):
        (resumed / name).unlink()
    for name in ("checkpoints", "compressor", "records"):
        shutil.rmtree(resumed / name)
    shutil.move(whole, tmp_path / "kept")
    shutil.move(resumed, whole)
    marker = whole / "run.json"
    marker.write_text(marker.read_text().replace("true", "false"))
    capsys.readouterr()
    assert main(arguments("whole")) == 0
    assert f"the warm start is taken from {whole / WARM_START}" in capsys.readouterr().out
    again = json.loads((whole / "results.json").read_text())
    assert again["overall"] == results["overall"] and again["baselines"] == results["baselines"]
    adapter = Path("compressor") / "adapter_model.safetensors"
    assert (whole / adapter).read_bytes() == (tmp_path / "kept" / adapter).read_bytes()


@pytest.mark.command
def test_training_starts_from_the_weights_of_an_adapter_that_fits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, models, samples = prepared(
        tmp_path / "first", "compressor.lora={rank: 4, alpha: 12, target_modules: [q_proj]}"
    )
    warm_start(config, models, samples)
    adapter = tmp_path / "first" / WARM_START
    started, others, _ = prepared(
        tmp_path / "second", f"compressor.adapter={adapter}", "compressor.lora={}", "compressor.budget_tokens=32"
    )
    assert (started.compressor.lora.rank, started.compressor.lora.alpha) == (4, 12)
    assert started.compressor.lora.target_modules == ("q_proj",) and not started.starts_from_base
    assert parameter_hash(others.adapted, is_trainable) == parameter_hash(models.adapted, is_trainable)
    assert any(parameter.requires_grad for parameter in others.adapted.parameters())
    assert "not as it was trained: budget_tokens = 32 instead of 48" in capsys.readouterr().out
    for wrong, said in (
        ("compressor.lora.rank=8", "compressor.lora.rank = 8: compressor.adapter = "),
        ("compressor.lora={alpha: 8}", "compressor.lora.alpha = 8: compressor.adapter = "),
        (
            "compressor.lora={target_modules: all-linear}",
            "does not fit model 'miniature/qwen2-leading' with",
        ),
        ("compressor={model: miniature/llama-medium}", "whose parameters have other values"),
    ):
        given = [wrong, f"compressor.adapter={adapter}"]
        assert main(["--config", "mi_rl.yaml", f"run_folder={tmp_path / 'run'}", *TINY, *given]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and said in error


@pytest.mark.command
def test_reinforcement_goes_on_from_the_starting_adapter(tmp_path: Path) -> None:
    config, models, samples = prepared(tmp_path / "first")
    warm_start(config, models, samples)
    given = [f"compressor.adapter={tmp_path / 'first' / WARM_START}", "train.learning_rate=1.0e-12"]
    assert main(["--config", "mi_rl.yaml", f"run_folder={tmp_path / 'run'}", *TINY, *given]) == 0
    start, end = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path / "first" / WARM_START, tmp_path / "run" / "compressor")
    )
    assert start.keys() == end.keys() and all(torch.allclose(start[name], end[name], atol=1e-6) for name in start)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert [entry["name"] for entry in results["baselines"]] == ["base model"]
    assert results["meta"]["start"] == "starting adapter" and "warm_start" not in results["meta"]
    assert math.isfinite(results["overall"]["before"]["message_tokens"]["value"])


def test_a_section_that_may_be_absent_is_described_with_its_keys_and_without_a_number() -> None:
    page = describe(Config, first=("train",), width=120)
    assert "\ntrain.warm_start: section | null = null\n" in page and "\ntrain.warm_start.examples: int = 640\n" in page
    assert "\ntasks.N.name: " in page and "warm_start.N" not in page


def test_a_run_folder_knows_the_weights_that_its_run_started_from(tmp_path: Path) -> None:
    config, models, samples = prepared(tmp_path)
    warm_start(config, models, samples)
    started = load_config("mi_rl.yaml", [*TINY, f"compressor.adapter={tmp_path / WARM_START}"])
    known = identity(started)
    weights = tmp_path / WARM_START / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"####")
    assert identity(started) != known


@pytest.mark.slow
@pytest.mark.command
def test_two_processes_warm_start_as_one(tmp_path: Path) -> None:
    adapters = []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = [*deepspeed(processes), "train/run.py", "--config", "mi_rl.yaml", f"run_folder={folder}", *TINY, WARM]
        finished = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
        assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
        adapters.append(load_file(folder / WARM_START / "adapter_model.safetensors"))
    for name, tensor in adapters[0].items():
        # AdamW takes a gradient of almost nothing for a full step, whichever way its rounding points.
        apart = (adapters[1][name] - tensor).abs() > 2e-5
        assert apart.double().mean() < 1e-3, name


def test_a_clause_is_the_answer_with_words_of_its_own_sentence_around_it() -> None:
    question = Question("q", "How high was the zinc?", ("41 (mg)", "zinc of 41 (mg)"), "f1")
    sentence = "In May the nurse saw a zinc of 41 (mg), which was far too high for him."
    document = Document("d", "t", f"Seen today. {sentence} Told to rest.", (question,))
    sample = Sample(document, question)
    found = {target_of(sample, "clause", random.Random(number)) for number in range(300)}
    clauses = [clause for clause in found if clause is not None]
    assert len(clauses) == len(found) > 40 and all(clause in sentence and "41 (mg)" in clause for clause in clauses)
    lengths = sorted(len(clause.split()) for clause in clauses)
    assert lengths[0] <= 3 and lengths[-1] >= len(sentence.split()) - 1
    assert target_of(sample, "answer") == "41 (mg)" and target_of(sample) == sentence
    unknown = Sample(document, replace(question, answers=("nothing of the kind",), evidence=("Told to rest.",)))
    assert target_of(unknown, "clause", random.Random(0)) == target_of(unknown) == "Told to rest."
    assert target_of(Sample(document, replace(question, blind=True)), "answer") is None


def test_clauses_are_drawn_anew_for_every_pass_and_sentences_stay() -> None:
    model, tokenizer = load_model("miniature/llama-medium")
    compressor = Compressor(model, tokenizer, 40)
    sentence = "On the first day of the week the zinc was 41 in the morning and nobody saw anything else."
    question = Question("q", "What was the zinc?", ("41",), "f1", evidence=(sentence,))
    samples = [Sample(Document(f"d{number}", "t", sentence, (question,)), question) for number in range(5)]
    first = draw_examples(samples, compressor, 5, 0, "clause").chosen
    passes = draw_examples(samples, compressor, 5, 0, "clause", epochs=4).chosen
    assert [e.reply_ids for e in passes] == [e.reply_ids for e in first] and not any(e.later_replies for e in first)
    replies = {tuple(ids) for e in passes for ids in (e.reply_ids, *e.later_replies)}
    assert all(len(e.later_replies) == 3 for e in passes) and len(replies) > 10
    assert not any(e.later_replies for e in draw_examples(samples, compressor, 5, 0, "evidence", epochs=4).chosen)
