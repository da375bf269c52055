"""Demonstrations: messages of a group that gold evidence tells, paid like the rest and left out of its metrics."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from configs.tree import ConfigError
from data.sample import Document, Question, Sample
from tests.train.small_trainer import inputs, make_trainer
from tests.train.test_reward import GROUP, build, messages_for
from train.config import load_config
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer
from train.reward.message_reward import MessageReward
from train.sampling.rollout import Rollout
from train.warm_start.targets import demonstration

AT_THE_START = SimpleNamespace(state=SimpleNamespace(global_step=2), use_vllm=False)
QUESTION = Question("q", "What was the zinc?", ("41",), "f1")


def paid(reward: MessageReward, samples: list[Sample], told: list[bool] | None) -> tuple[list[float], dict[str, float]]:
    """Rewards and metrics of a group of `messages_for` each question."""
    metrics: dict[str, float] = {}
    texts = [text for sample in samples for text in messages_for(sample)]
    ids = [[*reward.compressor.prompts.format.text_ids(text), reward.compressor.end_token_id] for text in texts]
    prompts = [sample.id for sample in samples for _ in range(GROUP)]
    found = reward(
        prompts,
        ids,
        SimpleNamespace(global_step=3),
        lambda name, value: metrics.update({name: value}),
        demonstrated=told,
    )
    return [value for value in found if value is not None], metrics


def test_it_is_a_clause_that_fits_and_has_the_end_token() -> None:
    reward, _, _ = build()
    compressor = reward.compressor
    sentence = "The nurse has seen that the zinc was 41 in the morning."
    sample = Sample(Document("d", "t", f"Seen today. {sentence} Told to rest.", (QUESTION,)), QUESTION)
    found = [demonstration(compressor, sample, 40, str(seed)) for seed in range(40)]
    assert len({tuple(ids or ()) for ids in found}) > 5
    for ids in found:
        assert ids is not None and ids[-1] == compressor.end_token_id
        text = compressor.text(ids[:-1])
        assert text in sentence and "41" in text
    assert demonstration(compressor, sample, 40, "7") == found[7]
    lengths = sorted(len(ids or ()) for ids in found)
    short = [demonstration(compressor, sample, lengths[10], str(seed)) for seed in range(40)]
    assert 0 < sum(ids is None for ids in short) < 40
    assert demonstration(compressor, Sample(Document("d", "t", "Nothing.", (QUESTION,)), QUESTION), 40, "0") is None


def test_the_last_messages_of_a_group_are_told_where_the_document_tells() -> None:
    reward, samples, _ = build()
    silent = Sample(Document("d", "miniature/notes", "Nothing of the kind.", (QUESTION,)), QUESTION)
    by_id = {sample.id: sample for sample in (samples[0], silent)}
    ids = [name for name in by_id for _ in range(3)]
    plain, told = (Rollout(reward.compressor, by_id, 1.0, 0, count)(ids, AT_THE_START) for count in (0, 2))
    assert plain["demonstrated"] == [False] * 6
    assert told["demonstrated"] == [False, True, True, False, False, False]
    for row, is_told in enumerate(told["demonstrated"]):
        if is_told:
            assert samples[0].question.answers[0] in reward.compressor.text(told["completion_ids"][row][:-1])
            assert len(told["logprobs"][row]) == len(told["completion_ids"][row])
            assert all(math.isnan(value) for value in told["logprobs"][row])
        else:
            assert told["completion_ids"][row] == plain["completion_ids"][row]


def test_they_are_paid_like_the_rest_and_metrics_of_messages_are_those_of_the_sampled_ones() -> None:
    reward, samples, _ = build("train.update=best_of_n", "train.demonstrations=1")
    together, of_all = paid(reward, samples, None)
    apart, of_sampled = paid(reward, samples, [True, False, False, False] * 2)
    assert apart == together
    assert of_sampled["rewards/accuracy/mean"] == of_all["rewards/accuracy/mean"]
    # The first of each group, which answers, is told; silence and what is beside the point stay among the others.
    assert of_sampled["accuracy"] < of_all["accuracy"]
    assert of_sampled["information_bits"] < of_all["information_bits"]
    assert of_sampled["kept/demonstrated_share"] == 1 and of_all["kept/demonstrated_share"] == 0


def test_what_is_held_is_the_length_of_the_sampled_ones() -> None:
    hold = "reward.hold={figure: tokens, at: 5, rate: 1.0}"
    moved = []
    for told in ([False] * 8, [False, True, False, False] * 2):
        reward, samples, _ = build("train.update=best_of_n", "train.demonstrations=1", hold)
        paid(reward, samples, told)
        moved.append(reward.step_weights.at(5).length)
    # Each group's second message is by far its longest.
    assert moved[1] < moved[0]


def test_a_step_learns_them_and_counts_no_gap_to_the_sampler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def the_last(rewards: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.tensor([0.0, 0.0, 0.0, 1.0] * (len(rewards) // 4), dtype=torch.float64)

    monkeypatch.setattr("train.reward.message_reward.best_of_groups", the_last)
    trainer = make_trainer(
        tmp_path,
        SharedPrefixGRPOTrainer,
        "train.steps=2",
        "train.update=best_of_n",
        "train.demonstrations=1",
    )
    batch = inputs(trainer)
    told = batch["sampling_per_token_logps"].isnan().any(dim=1)
    assert told.sum() == 2
    trainer.train()
    steps = [line for line in trainer.state.log_history if "kept/demonstrated_share" in line]
    assert steps and all(math.isfinite(line["loss"]) for line in steps)
    assert all(line["kept/demonstrated_share"] == 1 and line["sampler_gap/missing_tokens"] > 0 for line in steps)
    assert all(torch.isfinite(parameter).all() for parameter in trainer.model.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["train.demonstrations=1"], "choose train.update = best_of_n"),
        (["train.demonstrations=8", "train.update=best_of_n", "train.group_size=8"], "leaves no message of 8"),
    ],
)
def test_what_cannot_be_is_refused(overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("mi_rl.yaml", overrides)
