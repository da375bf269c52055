"""The messages of a training run: some of every step, with what they were paid, and none twice after a resumption."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import wandb
from transformers import TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from models.channel import Channel, Readings
from tests.train.small_trainer import make_trainer
from tests.train.test_reward import GROUP, build, call, messages_for
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer
from train.tracking.sample_messages import MESSAGES_A_STEP, TABLE_COLUMNS, SampleMessages, shown

LINE: dict[str, Any] = {
    "question": "What was\nthe zinc?",
    "message": "The zinc was 71.\x1b[2J",
    "prediction": "71",
    "accuracy": 1.0,
    "reward": 1.93,
    "information_bits": 2.8,
    "message_tokens": 7,
}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "messages.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[GRPOTrainer, Path]:
    folder = tmp_path_factory.mktemp("run")
    trainer = make_trainer(folder, SharedPrefixGRPOTrainer, "train.steps=3", "compressor.budget_tokens=24")
    trainer.train()
    return trainer, folder


def test_every_step_leaves_messages_of_different_questions_with_their_pay(
    trained: tuple[GRPOTrainer, Path],
) -> None:
    _, folder = trained
    written = lines(folder)
    assert [line["step"] for line in written] == [step for step in (1, 2, 3) for _ in range(MESSAGES_A_STEP)]
    assert all(first["id"] != second["id"] for first, second in zip(written[::2], written[1::2], strict=True))
    for line in written:
        assert line["question"] and line["answers"] and 1 <= line["message_tokens"] <= 24
        assert line["accuracy"] in (0.0, 1.0) and line["reward"] is not None and line["information_bits"] <= 3


def test_the_bits_and_the_pay_of_a_message_are_those_of_the_reward(tmp_path: Path) -> None:
    reward, samples, config = build("reward.accuracy=0", "reward.length=0", "reward.information=1")
    callback = SampleMessages(tmp_path, 0)
    callback.writes = True
    reward.watch = callback.take
    rewards, _ = call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    first, second = lines(tmp_path)
    # The reward of information is its share of the ceiling, the logarithm of the number of contexts.
    ceiling = math.log2(1 + config.information.negatives.counterfactual + 1)
    for line, paid, sample in zip((first, second), (rewards[0], rewards[GROUP]), samples, strict=True):
        assert line["reward"] == pytest.approx(paid) and line["information_bits"] == pytest.approx(paid * ceiling)
        assert line["id"] == sample.id and line["message"] == messages_for(sample)[0]


def test_an_answer_that_a_server_failed_to_give_is_not_a_wrong_one(tmp_path: Path) -> None:
    reward, samples, _ = build()
    callback = SampleMessages(tmp_path, 0)
    callback.writes = True
    reward.watch = callback.take
    answer = reward.channel.answer

    def without_the_first(*arguments: Any, **named: Any) -> Readings:
        return dataclasses.replace(answer(*arguments, **named), missing=frozenset({0}))

    reward.channel = cast(
        Channel, SimpleNamespace(**vars(reward.channel), answer=without_the_first, score=reward.channel.score)
    )
    reward._too_many_missing = lambda readings: ""
    call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    first, second = lines(tmp_path)
    assert first["prediction"] is None and first["accuracy"] is None
    assert second["prediction"] and second["accuracy"] is not None
    assert "(no answer from the server)" in shown(1, first) and "wrong" not in shown(1, first)


def test_a_resumed_run_drops_the_messages_after_its_checkpoint(trained: tuple[GRPOTrainer, Path]) -> None:
    _, folder = trained
    callback = SampleMessages(folder, 0)
    before = (folder / "messages.jsonl").read_bytes()
    state = TrainerState(global_step=1, is_world_process_zero=True)
    callback.on_train_begin(TrainingArguments(output_dir=str(folder)), state)
    assert {line["step"] for line in lines(folder)} == {1}
    (folder / "messages.jsonl").write_bytes(before)


def test_another_process_than_the_first_writes_nothing(tmp_path: Path) -> None:
    callback = SampleMessages(tmp_path, 1)
    state = TrainerState(global_step=0, is_world_process_zero=False)
    callback.on_train_begin(TrainingArguments(output_dir=str(tmp_path)), state)
    nothing: Any = SimpleNamespace()
    callback.take(1, [], [], nothing, nothing, nothing, nothing)
    assert not (tmp_path / "messages.jsonl").exists()


@pytest.mark.parametrize(("every", "steps"), [(0, []), (3, [1, 3, 6]), (1, [1, 2, 3, 4, 5, 6])])
def test_messages_are_shown_at_the_first_step_and_every_so_many(
    every: int, steps: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback = SampleMessages(tmp_path, every)
    callback.last = [LINE]
    arguments = TrainingArguments(output_dir=str(tmp_path))
    for step in range(1, 7):
        callback.on_step_end(arguments, TrainerState(global_step=step), TrainerControl())
    said = capsys.readouterr().out.splitlines()
    assert [int(line.split()[1].rstrip(":")) for line in said] == steps


@pytest.mark.command
def test_messages_that_are_shown_are_a_table_in_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    callback = SampleMessages(tmp_path, 1)
    callback.last = [LINE | {"answers": ["71", "seventy-one"]}]
    with wandb.init(mode="offline", dir=str(tmp_path), project="test"):
        callback.on_step_end(TrainingArguments(output_dir=str(tmp_path)), TrainerState(global_step=1), TrainerControl())
    [file] = tmp_path.glob("wandb/offline-run-*/files/media/table/messages*.json")
    table = json.loads(file.read_text())
    assert table["columns"] == list(TABLE_COLUMNS)
    assert table["data"] == [[1, LINE["question"], "71 · seventy-one", LINE["message"], "71", 1.0, 1.93, 2.8, 7]]


def test_a_message_on_the_console_is_one_line_of_what_prints() -> None:
    text = shown(10, LINE)
    assert text == (
        "step 10: What was the zinc? | The zinc was 71. [2J -> 71 (right) | reward 1.93, 2.80 bits, 7 tokens"
    )
    unscored = shown(1, LINE | {"accuracy": None, "reward": None, "information_bits": None, "message": "x" * 900})
    assert "(" not in unscored and "reward" not in unscored and len(unscored) < 400
    assert "(scores 0.50)" in shown(1, LINE | {"accuracy": 0.5})
