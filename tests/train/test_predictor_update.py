"""The predictor's update: what it learns from, what it leaves alone, and that it goes on where it was."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from configs.tree import ConfigError
from data.sample import Sample
from models.adapter_switch import adapter_at_work
from models.compressor import Message
from models.fingerprint import is_base, parameter_hash
from models.predictor import Query
from tests.train.test_joint_run import SHARED, checkpoint_hashes
from tests.train.test_survival import arguments, results
from tests.train.test_warm_start import TINY, prepared
from train.config import load_config
from train.models import Models, fingerprints
from train.predictor_update import PredictorUpdate
from train.questions.asked import own_questions
from train.run import main
from train.sections.joint import PredictorUpdateConfig
from train.warm_start.fine_tuning import leave_gradients

UPDATE = "train.predictor_update={learning_rate: 1.0e-3, batch_size: 4}"


def updating(folder: Path, *more: str) -> tuple[Models, PredictorUpdate, list[Sample]]:
    """A predictor that learns, and questions, two of each after the other."""
    config, models, samples = prepared(folder, *(more or (UPDATE,)))
    adapted = models.adapted_predictor
    assert adapted is not None
    update = PredictorUpdate(config.train, adapted.predictor, adapted.adapter, 0, list)
    return models, update, [sample for sample in samples[:3] for _ in range(2)]


def messages_of(models: Models, samples: list[Sample]) -> list[Message]:
    """For every question one message that holds the answer, and one that says nothing."""
    texts = [f"It was {sample.question.answers[0]}." if place % 2 else "" for place, sample in enumerate(samples)]
    return [Message(text, models.compressor.prompts.format.text_ids(text), True, []) for text in texts]


def weights(update: PredictorUpdate) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in update.parameters]


@pytest.mark.parametrize(
    ("schedule", "compressor", "predictor"),
    [
        ("simultaneous", "111111", "111111"),
        ("alternating", "110011", "001100"),
        ("predictor_first", "001111", "110000"),
    ],
)
def test_a_schedule_says_who_learns_in_which_step(schedule: Any, compressor: str, predictor: str) -> None:
    settings = PredictorUpdateConfig(schedule=schedule, period=2)
    assert "".join(str(int(settings.compressor_learns(step))) for step in range(1, 7)) == compressor
    assert "".join(str(int(settings.predictor_learns(step))) for step in range(1, 7)) == predictor


@pytest.mark.parametrize("shared", [(), SHARED])
def test_gold_answers_become_likelier_and_nothing_else_moves(tmp_path: Path, shared: tuple[str, ...]) -> None:
    models, update, samples = updating(tmp_path, UPDATE, *shared)
    messages = messages_of(models, samples)
    queries = [Query(message.text, sample.question.text) for message, sample in zip(messages, samples, strict=True)]
    gold = [min(sample.question.answers, key=len) for sample in samples]

    def likelihood(judge: Any) -> float:
        scores = judge.answer_log_probs(queries, gold)
        return sum(score.log_prob for score in scores if score is not None)

    before, start = fingerprints(models), likelihood(update.predictor)
    required = [parameter.requires_grad for parameter in models.adapted.parameters()]
    for step in range(1, 9):
        metrics = update.take(step, own_questions(samples), messages, torch.zeros(len(samples)))
        assert metrics["predictor/update_skipped"] == 0 and math.isfinite(metrics["predictor/loss"])
    assert likelihood(update.predictor) > start + 5
    assert likelihood(update) == start
    after = fingerprints(models)
    assert {name for name in before if before[name] != after[name]} == {"predictor_adapter"}
    assert [parameter.requires_grad for parameter in models.adapted.parameters()] == required
    assert not any(parameter.grad is not None for parameter in models.adapted.parameters())


def test_a_shared_base_is_in_memory_once_and_answers_as_a_model_of_its_own(tmp_path: Path) -> None:
    shared, shared_update, samples = updating(tmp_path / "shared", UPDATE, *SHARED)
    own, own_update, _ = updating(tmp_path / "own", UPDATE, SHARED[0])
    assert own.adapted_predictor is not None and shared.adapted_predictor is not None
    assert shared.adapted_predictor.predictor.model is shared.adapted.get_base_model()
    base = sum(p.numel() for name, p in shared.adapted.named_parameters() if is_base(name, p))
    assert base == sum(p.numel() for name, p in own.adapted.named_parameters() if is_base(name, p))
    torch.manual_seed(0)
    for ours, theirs in zip(shared_update.parameters, own_update.parameters, strict=True):
        torch.nn.init.normal_(ours.data, std=0.05)
        theirs.data.copy_(ours.data)
    queries = [Query(sample.document.text[:200], sample.question.text) for sample in samples]
    # Whatever the compressor's adapter does, and whether it is switched off.
    for name, parameter in shared.adapted.named_parameters():
        if ".lora_B.default" in name:
            torch.nn.init.normal_(parameter.data, std=0.05)
    expected = own.channel.predictor.answer(queries)
    assert shared.channel.predictor.answer(queries) == expected
    shared.adapted.train()
    with shared.adapted.disable_adapter():
        assert shared.channel.predictor.answer(queries) == expected
    assert shared.adapted.training
    assert parameter_hash(shared.adapted, is_base) == parameter_hash(own.adapted, is_base)


def test_an_adapter_that_is_not_there_is_refused_and_everything_is_put_back(tmp_path: Path) -> None:
    models, _, _ = updating(tmp_path, UPDATE, *SHARED)
    with pytest.raises(ValueError, match="no adapter 'other'"), adapter_at_work(models.adapted, "other"):
        pass

    def trained() -> set[str]:
        return {name.split(".")[-2] for name, parameter in models.adapted.named_parameters() if parameter.requires_grad}

    def fail() -> None:
        with adapter_at_work(models.adapted, "predictor", trains=True):
            assert trained() == {"predictor"}
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert trained() == {"default"}


def test_the_best_message_of_every_group_is_learned_from_where_that_is_asked_for(tmp_path: Path) -> None:
    more = "train.predictor_update={messages: best, batch_size: 6}"
    models, update, samples = updating(tmp_path, more)
    messages = messages_of(models, samples)
    rewards = torch.tensor([0.0, 1.0, 2.0, 1.0, math.nan, -1.0])
    update.take(1, own_questions(samples), messages, rewards)
    learned = [update.predictor.tokenizer.decode(example.prompt_ids) for example in update.replay]
    assert len(learned) == 3
    for place, text in zip((1, 2, 5), learned, strict=True):
        assert messages[place].text in text and samples[place].question.text in text
        assert ("It was" in text) == bool(messages[place].text)


def test_earlier_messages_are_replayed_in_their_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, update, samples = updating(tmp_path, "train.predictor_update={batch_size: 4, replayed: 0.5, replay: 8}")
    batches: list[list[Any]] = []
    monkeypatch.setattr(
        "train.predictor_update.leave_gradients",
        lambda model, parameters, batch, kinds: batches.append(batch) or torch.zeros(len(batch)),
    )
    for step in (1, 2, 3):
        update.take(step, own_questions(samples), messages_of(models, samples), torch.zeros(len(samples)))
    assert [len(batch) for batch in batches] == [4, 4, 4] and len(update.replay) == 8


def test_weights_of_examples_weigh_their_gradients(tmp_path: Path) -> None:
    models, update, samples = updating(tmp_path, UPDATE)
    update.take(1, own_questions(samples), messages_of(models, samples), torch.zeros(len(samples)))
    batch, model = list(update.replay)[:3], update.predictor.model

    def gradient(*counts: float) -> tuple[Tensor, list[Tensor]]:
        with torch.enable_grad(), adapter_at_work(model, update.adapter, trains=True):
            nats = leave_gradients(model, update.parameters, batch, counts)
        taken = [p.grad.clone() for p in update.parameters if p.grad is not None]
        for parameter in update.parameters:
            parameter.grad = None
        return nats, taken

    nats, parts = zip(*(gradient(*row) for row in torch.eye(3).tolist()), strict=True)
    assert all(torch.allclose(row, nats[0], rtol=1e-4) for row in nats)
    _, whole = gradient(1.0, 0.0, 2.0)
    for first, third, total in zip(parts[0], parts[2], whole, strict=True):
        torch.testing.assert_close(total, first + 2 * third, rtol=1e-3, atol=1e-6)


def test_the_divergence_from_the_start_begins_at_zero_grows_and_is_held_back_by_its_weight(tmp_path: Path) -> None:
    reached: dict[float, list[float]] = {}
    for weight in (1e-6, 5.0):
        more = f"train.predictor_update={{learning_rate: 3.0e-3, batch_size: 6, kl: {weight}}}"
        models, update, samples = updating(tmp_path / str(weight), more)
        messages = messages_of(models, samples)
        asked, unpaid = own_questions(samples), torch.zeros(len(samples))
        taken = [update.take(step, asked, messages, unpaid) for step in range(1, 13)]
        reached[weight] = [metrics["predictor/kl"] for metrics in taken]
        assert reached[weight][0] == pytest.approx(0, abs=1e-4)
    assert sum(reached[1e-6][-4:]) > 2 * sum(reached[5.0][-4:])


def test_it_goes_on_from_a_state_bit_for_bit(tmp_path: Path) -> None:
    models, whole, samples = updating(tmp_path / "whole")
    messages = messages_of(models, samples)
    for step in range(1, 5):
        whole.take(step, own_questions(samples), messages, torch.zeros(len(samples)))
        if step == 2:
            whole.save(tmp_path / "state")
    _, resumed, _ = updating(tmp_path / "resumed")
    resumed.load(tmp_path / "state")
    for step in (3, 4):
        resumed.take(step, own_questions(samples), messages, torch.zeros(len(samples)))
    assert all(torch.equal(*pair) for pair in zip(weights(whole), weights(resumed), strict=True))
    assert list(whole.replay) == list(resumed.replay) and whole.updates == resumed.updates == 4


def test_small_steps_are_not_lost_where_parameters_have_few_digits(tmp_path: Path) -> None:
    models, exact, samples = updating(tmp_path / "exact")
    messages, unpaid = messages_of(models, samples), torch.zeros(len(samples))
    _, coarse, _ = updating(tmp_path / "coarse")
    for update in (exact, coarse):
        update.optimizer.param_groups[0]["lr"] = update.settings.learning_rate
        for parameter in update.parameters:
            torch.nn.init.constant_(parameter.data, 0.5)
    for parameter in coarse.parameters:
        parameter.data = parameter.data.bfloat16()
    for update in (exact, coarse):
        for master in update.masters:
            torch.nn.init.constant_(master.data, 0.5)
        before = [master.detach().clone() for master in update.masters]
        update.take(1, own_questions(samples), messages, unpaid)
        # Some parameters have no gradient here. A step of 0.001 is half of what bfloat16 can tell from 0.5.
        moved = sum(int((m != b).sum()) for m, b in zip(update.masters, before, strict=True))
        assert moved > 0.7 * sum(m.numel() for m in update.masters)
    assert all(parameter.dtype == torch.bfloat16 for parameter in coarse.parameters)


def test_updates_that_are_not_finite_are_left_out_and_end_the_run_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, update, samples = updating(tmp_path, UPDATE, "train.max_skipped_updates=2")
    before = weights(update)
    broken = "train.predictor_update.leave_gradients"
    monkeypatch.setattr(broken, lambda model, parameters, batch, kinds: torch.full((len(batch),), math.nan))
    arguments = (own_questions(samples), messages_of(models, samples), torch.zeros(len(samples)))
    assert update.take(1, *arguments)["predictor/update_skipped"] == 1
    with pytest.raises(Exception, match="the predictor's training has diverged: 2 updates in a row"):
        update.take(2, *arguments)
    assert all(torch.equal(*pair) for pair in zip(weights(update), before, strict=True))


@pytest.mark.command
@pytest.mark.parametrize("shared", [(), SHARED])
def test_a_joint_run_goes_on_bit_for_bit_and_leaves_both_adapters(tmp_path: Path, shared: tuple[str, ...]) -> None:
    joint = (
        *shared,
        "train.keep_checkpoints=4",
        "train.predictor_update={learning_rate: 1.0e-3, batch_size: 4, kl: 0.1}",
    )
    trained = tmp_path / "trained_predictor" / "adapter_model.safetensors"
    assert main(arguments(tmp_path, *joint)) == 0
    whole, weights_of_whole, last = results(tmp_path), trained.read_bytes(), checkpoint_hashes(tmp_path, 4)
    # As after a kill at the second step, with everything later gone.
    for name in ("compressor", "trained_predictor", "checkpoints/checkpoint-3", "checkpoints/checkpoint-4"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    (tmp_path / "results.json").unlink()
    state = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(state | {"finished": False}))
    for records in (tmp_path / "records").glob("*.jsonl"):
        lines = records.read_text().splitlines(keepends=True)
        records.write_text("".join(line for line in lines if '"after"' not in line))
    assert main(arguments(tmp_path, *joint)) == 0
    assert results(tmp_path) == whole and trained.read_bytes() == weights_of_whole
    assert checkpoint_hashes(tmp_path, 4) == last
    assert json.loads((tmp_path / "results.json").read_text())["meta"]["moved"] == ["adapter", "predictor_adapter"]
    assert any(tensor.abs().sum() > 0 for name, tensor in load_file(trained).items() if "lora_B" in name)


@pytest.mark.command
def test_a_compressor_that_waits_for_its_turn_stays_as_it_is(tmp_path: Path) -> None:
    more = "train.predictor_update={schedule: predictor_first, period: 100, learning_rate: 1.0e-3}"
    assert main(arguments(tmp_path, more)) == 0
    compressor = load_file(tmp_path / "compressor" / "adapter_model.safetensors")
    assert not any(tensor.any() for name, tensor in compressor.items() if "lora_B" in name)
    assert json.loads((tmp_path / "results.json").read_text())["meta"]["moved"] == ["predictor_adapter"]
    predictor = load_file(tmp_path / "trained_predictor" / "adapter_model.safetensors")
    assert any(tensor.any() for name, tensor in predictor.items() if "lora_B" in name)
    from_run = ["predictor.model=miniature/llama-medium", f"predictor.adapter={tmp_path}/trained_predictor"]
    assert load_config("mi_rl.yaml", [*TINY, *from_run]).predictor.adapter is not None


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (("predictor.endpoint=http://127.0.0.1:1/v1", UPDATE), "train.predictor_update: the predictor of"),
        (("predictor.shared_base=true", UPDATE), "predictor.model = 'miniature/llama-medium' and compressor.model"),
        ((*SHARED, "predictor.dtype=bfloat16", UPDATE), "predictor.dtype = 'bfloat16' and compressor.dtype"),
        (SHARED, "there is no adapter to put on it"),
        ((UPDATE, "train.steps=0", "train.warm_start={examples: 8}"), "learns in train.steps, of which there are 0"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(overrides: tuple[str, ...], refusal: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("mi_rl.yaml", [*TINY, *overrides])
    assert refusal in str(error.value)


def test_a_shared_base_without_an_update_answers_with_the_adapter_that_is_named(tmp_path: Path) -> None:
    models, update, samples = updating(tmp_path / "first", UPDATE, SHARED[0])
    for step in range(1, 5):
        update.take(step, own_questions(samples), messages_of(models, samples), torch.zeros(len(samples)))
    assert models.adapted_predictor is not None and isinstance(models.adapted_predictor.model, PeftModel)
    models.adapted_predictor.model.save_pretrained(str(tmp_path / "adapter"))
    _, shared, _ = prepared(tmp_path / "second", *SHARED, f"predictor.adapter={tmp_path / 'adapter'}")
    _, merged, _ = prepared(tmp_path / "third", SHARED[0], f"predictor.adapter={tmp_path / 'adapter'}")
    assert shared.adapted_predictor is not None and merged.adapted_predictor is None
    queries = [Query(sample.document.text[:200], sample.question.text) for sample in samples]
    assert shared.channel.predictor.answer(queries) == merged.channel.predictor.answer(queries)
