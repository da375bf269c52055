"""Weights that change: on a schedule, and as the multiplier of what is held, which a checkpoint remembers."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from configs.errors import ConfigError
from objectives.constraint import DAMPING, Multiplier
from tests.train.small_trainer import make_trainer
from tests.train.test_reward import GROUP, build, call, messages_for
from train.config import load_config
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer
from train.reward.message_reward import MessageReward
from train.reward.weights import StepWeights, scheduled
from train.sections.reward import HoldConfig, RewardConfig, ScheduleConfig

HOLD = ("reward.hold={figure: accuracy, at: 0.75, rate: 2}", "reward.length_gate=none")


def test_a_scheduled_weight_is_constant_then_a_line_then_constant() -> None:
    schedule = ScheduleConfig(to=2.0, from_step=10, to_step=20)
    assert [scheduled(1.0, schedule, step) for step in (1, 10, 15, 20, 99)] == [1.0, 1.0, 1.5, 2.0, 2.0]
    weights = StepWeights(RewardConfig(length=1.0, schedules={"length": schedule}))
    assert (weights.at(15).length, weights.at(15).accuracy) == (1.5, 1.0)


def test_the_multiplier_takes_the_place_of_a_weight() -> None:
    floor = StepWeights(RewardConfig(accuracy=2.0, hold=HoldConfig(figure="accuracy", at=0.9, rate=1.0)))
    floor.take(accuracy=0.7, tokens=50.0)
    assert floor.at(2).accuracy == pytest.approx(2.0 * math.exp((1 + DAMPING) * 0.2)) and floor.at(2).length == 1.0
    ceiling = StepWeights(RewardConfig(length=0.5, hold=HoldConfig(figure="tokens", at=10.0, rate=1.0)))
    ceiling.take(accuracy=0.7, tokens=5.0)
    assert ceiling.at(2).length == pytest.approx(0.5 * math.exp(-0.5 * (1 + DAMPING))) and ceiling.at(2).accuracy == 1.0
    constant = StepWeights(RewardConfig())
    constant.take(accuracy=0.0, tokens=64.0)
    assert constant.at(2) == constant.at(1)


def test_the_reward_moves_the_multiplier_and_logs_what_it_was() -> None:
    reward, samples, _ = build(*HOLD, "reward.schedules.information={to: 0, from_step: 2, to_step: 6}")
    texts = [text for sample in samples for text in messages_for(sample)]
    _, metrics = call(reward, samples, texts)
    # Two of four messages hold the fact. The call is that of the fourth step.
    assert metrics["accuracy"] == 0.5 and metrics["weights/accuracy"] == 1.0
    assert reward.step_weights.multiplier.level == pytest.approx(math.exp(2 * 0.25))
    assert metrics["weights/information"] == pytest.approx(0.25)
    _, metrics = call(reward, samples, texts)
    assert metrics["weights/accuracy"] == pytest.approx(math.exp(0.5 + 0.25 * DAMPING))


def test_a_multiplier_stays_while_the_compressor_pauses() -> None:
    joint = (
        "predictor.lora={rank: 2, alpha: 4, target_modules: all-linear}",
        "train.predictor_update={schedule: predictor_first, period: 50}",
    )
    reward, samples, _ = build(*HOLD, *joint)
    call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    assert reward.pauses(4) and reward.step_weights.multiplier.level == 1.0


def test_every_process_moves_it_by_the_messages_of_all() -> None:
    reward, samples, _ = build(*HOLD)
    texts = messages_for(samples[0])[:1] * GROUP
    reward.gather = lambda own: [*own, [0.0, GROUP, 9, GROUP]] if isinstance(own[0], list) else own
    call(reward, samples[:1], texts)
    assert reward.step_weights.multiplier.level == pytest.approx(math.exp(2 * 0.25))


def test_failures_are_paid_for_shortness_where_the_gate_is_none() -> None:
    reward, samples, config = build("reward.length_gate=none", "reward.information=0", "reward.accuracy=0")
    rewards, _ = call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    assert rewards[3] == pytest.approx(config.reward.length * (1 - 1 / 40)) and rewards[3] > rewards[2] > rewards[1]


@pytest.mark.command
def test_a_checkpoint_holds_the_multiplier_and_a_resumed_run_goes_on_with_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *HOLD, "train.steps=2", "train.save_every=1")
    trainer.train()
    first = multiplier(trainer.reward_funcs[0])
    assert first.level != 1.0
    state = json.loads((tmp_path / "checkpoints" / "checkpoint-2" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["StepWeights"]["attributes"] == asdict(first)
    resumed = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *HOLD, "train.steps=2", "train.save_every=1")
    assert multiplier(resumed.reward_funcs[0]) == Multiplier(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-1"))
    assert multiplier(resumed.reward_funcs[0]) == first


def multiplier(reward: object) -> Multiplier:
    assert isinstance(reward, MessageReward)
    return reward.step_weights.multiplier


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["reward.hold={figure: accuracy, at: 1.5}"], r"reward\.hold\.at = 1\.5: an accuracy is a share"),
        (["reward.hold={figure: tokens, at: 900}"], r"reward\.hold\.at = 900\.0: no message is longer than"),
        (["reward.hold={figure: tokens, at: 8}", "reward.length_gate=group"], r"set reward\.length_gate = none"),
        (
            ["reward.hold={figure: tokens, at: 8}", "reward.length=0", "reward.length_gate=none"],
            r"reward\.length = 0: ",
        ),
        (
            [
                "reward.hold={figure: tokens, at: 8}",
                "reward.length_gate=none",
                "reward.schedules.length={to: 1, to_step: 9}",
            ],
            r"reward\.schedules\.length: the multiplier",
        ),
        (["reward.schedules.length={to: 1, to_step: 81}"], r"at most the train\.steps = 80"),
        (["reward.schedules.length={to: 1, from_step: 9, to_step: 9}"], r"from_step should be below to_step"),
    ],
)
def test_constraints_and_schedules_that_cannot_be_kept_are_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        load_config("mi_rl.yaml", overrides)
