"""How rewards become advantages, and advantages a gradient, by the keys of `train`: TRL's numbers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from configs.tree import ConfigError
from objectives.length import length_reward
from tests.train.small_trainer import disturb, inputs, make_trainer, policy
from train.config import load_config
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer

pytestmark = pytest.mark.command

BUDGET = 64


def advantages(folder: Path, monkeypatch: pytest.MonkeyPatch, scale: str) -> list[list[float]]:
    """Advantages, sorted, of a group that succeeds with one message a token shorter, and of one that half fails."""
    accuracy = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    tokens = torch.tensor([19, 20, 20, 20, 20, 20, 20, 20])
    rewards = accuracy + 0.5 * length_reward(tokens, accuracy, BUDGET, "message", 4)
    trainer = make_trainer(folder, SharedPrefixGRPOTrainer, "train.steps=1", f"train.scale_rewards={scale}")
    monkeypatch.setattr(trainer, "_calculate_rewards", lambda *_: rewards.float()[:, None])
    batch = inputs(trainer)
    # Rows come shuffled, and grouped again: the group that half fails is the one of larger differences.
    groups = [sorted(group.tolist()) for group in batch["advantages"].split(4)]
    return sorted(groups, key=lambda group: group[-1] - group[0] if scale != "group" else -group[-1])


def test_scaling_by_the_group_blows_a_token_up_to_a_full_advantage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved, mixed = advantages(tmp_path, monkeypatch, "group")
    assert solved[-1] > 1.4 and mixed[-1] == pytest.approx(0.866, abs=1e-3)


def test_unscaled_rewards_leave_a_token_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved, mixed = advantages(tmp_path, monkeypatch, "none")
    assert solved[-1] == pytest.approx(0.75 * 0.5 / BUDGET)
    assert mixed[-1] == pytest.approx(0.5 * (1 + 0.5 * (1 - 20 / BUDGET)))


def test_scaling_by_the_step_keeps_the_proportion_of_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    solved, mixed = advantages(tmp_path / "batch", monkeypatch, "batch")
    unscaled = advantages(tmp_path / "none", monkeypatch, "none")
    assert solved[-1] / mixed[-1] == pytest.approx(unscaled[0][-1] / unscaled[1][-1], rel=1e-4)
    assert mixed[-1] > 1


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> SharedPrefixGRPOTrainer:
    trainer = make_trainer(tmp_path_factory.mktemp("run"), SharedPrefixGRPOTrainer, "train.steps=1")
    assert isinstance(trainer, SharedPrefixGRPOTrainer)
    disturb(trainer)
    inputs(trainer)
    trainer.current_gradient_accumulation_steps = 1
    return trainer


def gradient(trainer: SharedPrefixGRPOTrainer, loss_type: str, level: str) -> Tensor:
    """The gradient of TRL's loss on messages that were just written."""
    trainer.loss_type, trainer.importance_sampling_level = loss_type, level
    trainer.epsilon_high = 1.0 if loss_type == "cispo" else trainer.epsilon_low
    assert trainer._buffered_inputs is not None
    loss = trainer._compute_loss(policy(trainer), trainer._buffered_inputs[0])
    trained = [parameter for parameter in policy(trainer).parameters() if parameter.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, trained)])


@pytest.mark.parametrize(
    ("ours", "theirs", "factor"),
    [
        (("dapo", "token"), ("cispo", "token"), 1),
        (("dapo", "token"), ("vespo", "token"), 1),
        (("grpo", "token"), ("sapo", "token"), 1),
        (("dr_grpo", "token"), ("luspo", "sequence"), BUDGET),
        (("grpo", "token"), ("grpo", "sequence"), 1),
    ],
)
def test_on_messages_just_written_other_losses_are_ours(
    trainer: SharedPrefixGRPOTrainer, ours: tuple[str, str], theirs: tuple[str, str], factor: int
) -> None:
    expected = gradient(trainer, *ours) * factor
    assert expected.norm() > 1e-3
    assert (gradient(trainer, *theirs) - expected).norm() <= 1e-3 * expected.norm()


def test_the_averages_over_tokens_differ(trainer: SharedPrefixGRPOTrainer) -> None:
    by_token, by_message = (gradient(trainer, name, "token") for name in ("dapo", "grpo"))
    assert torch.nn.functional.cosine_similarity(by_token, by_message, dim=0) < 0.999


def test_the_keys_reach_trl(tmp_path: Path) -> None:
    keys = ["train.scale_rewards=batch", "train.importance_sampling_level=sequence", "train.loss_type=grpo"]
    built = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1", *keys)
    assert (built.scale_rewards, built.importance_sampling_level, built.loss_type) == ("batch", "sequence", "grpo")


def test_credit_of_single_tokens_needs_ratios_of_tokens() -> None:
    keys = ["reward.token_information=0.5", "train.importance_sampling_level=sequence"]
    with pytest.raises(
        ConfigError, match=r"^reward\.token_information = 0\.5: credits single tokens, of which train\."
    ):
        load_config("mi_rl.yaml", keys)
