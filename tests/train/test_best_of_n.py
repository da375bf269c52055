"""Best of n: the loss is the likelihood of what is kept, and what is not kept costs nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from configs.tree import ConfigError
from tests.train.small_trainer import disturb, inputs, make_trainer, policy
from train.config import load_config
from train.grpo import shared_prefix_trainer
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer

pytestmark = pytest.mark.command

BEST = "train.update=best_of_n"

SELECTING = "compressor.model=miniature/qwen2-small"
"""A compressor whose untrained messages hold the answer often enough for two small groups to have one."""


def prepared(folder: Path, *overrides: str) -> tuple[SharedPrefixGRPOTrainer, list[dict[str, Any]]]:
    """A trainer whose adapter does something, and the micro batches of a step."""
    trainer = make_trainer(folder, SharedPrefixGRPOTrainer, "train.steps=1", BEST, SELECTING, "seed=1", *overrides)
    assert isinstance(trainer, SharedPrefixGRPOTrainer)
    disturb(trainer)
    inputs(trainer)
    assert trainer._buffered_inputs is not None
    trainer.current_gradient_accumulation_steps = len(trainer._buffered_inputs)
    return trainer, trainer._buffered_inputs


def gradients(trainer: SharedPrefixGRPOTrainer, batches: list[dict[str, Any]]) -> tuple[float, list[torch.Tensor]]:
    """The loss of a step and its gradient, summed over micro batches as Trainer does."""
    trained = [parameter for parameter in policy(trainer).parameters() if parameter.requires_grad]
    losses = [trainer._compute_loss(policy(trainer), batch) for batch in batches]
    total = torch.stack(losses).sum()
    return float(total.detach()), list(torch.autograd.grad(total, trained))


def plain_likelihood(
    trainer: SharedPrefixGRPOTrainer, batches: list[dict[str, Any]]
) -> tuple[float, list[torch.Tensor]]:
    """The mean negative log-likelihood of the kept messages' tokens, every message read by itself."""
    model, nats, tokens = policy(trainer), torch.zeros(()), 0
    for batch in batches:
        for row in batch["advantages"].nonzero()[:, 0].tolist():
            prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
            message = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
            logits = model(torch.cat([prompt, message])[None]).logits[0, len(prompt) - 1 : -1]
            nats = nats - batch["advantages"][row] * logits.log_softmax(-1).gather(1, message[:, None]).sum()
            tokens += len(message)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    loss = nats / tokens
    return float(loss.detach()), list(torch.autograd.grad(loss, trained))


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.micro_batch_messages=null"],
        ["train.micro_batch_messages=4"],
        ["train.micro_batch_messages=2"],
        ["train.demonstrations=1"],
    ],
)
def test_the_gradient_is_that_of_the_mean_likelihood_of_a_kept_token(tmp_path: Path, overrides: list[str]) -> None:
    trainer, batches = prepared(tmp_path, *overrides)
    assert 0 < sum(int((batch["advantages"] > 0).sum()) for batch in batches) <= 2
    loss, ours = gradients(trainer, batches)
    expected, theirs = plain_likelihood(trainer, batches)
    assert loss == pytest.approx(expected, rel=1e-4) and expected > 0
    for our_gradient, their_gradient in zip(ours, theirs, strict=True):
        assert (our_gradient - their_gradient).norm() <= 1e-3 * their_gradient.norm()


@contextmanager
def tokens_read(trainer: SharedPrefixGRPOTrainer) -> Iterator[list[int]]:
    """Takes the tokens of every forward pass of the policy."""
    read: list[int] = []
    plain = cast(PreTrainedModel, trainer.accelerator.unwrap_model(trainer.model)).base_model.model.base_model  # type: ignore[union-attr]

    def count(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        read.append(options["input_ids"].numel())

    hook = cast(nn.Module, plain).register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield read
    finally:
        hook.remove()


def test_only_kept_messages_and_their_prompts_are_read_in_the_update(tmp_path: Path) -> None:
    trainer, batches = prepared(tmp_path)
    [batch] = batches
    lengths = batch["prompt_mask"].sum(dim=1) + batch["completion_mask"].sum(dim=1)
    kept = batch["advantages"].bool()
    assert (batch["completion_mask"].sum(dim=1) > 0).tolist() == kept.tolist()
    with tokens_read(trainer) as read:
        trainer._compute_loss(policy(trainer), batch)
    # The last token of a message is predicted, and not read.
    assert 0 < sum(read) <= int(lengths[kept].sum())


def test_a_step_in_which_nothing_is_kept_reads_nothing_and_has_a_gradient_of_zero(tmp_path: Path) -> None:
    trainer, [batch] = prepared(tmp_path)
    batch["advantages"].zero_()
    batch["completion_mask"].zero_()
    batch["num_items_in_batch"].zero_()
    with tokens_read(trainer) as read:
        loss, ours = gradients(trainer, [batch])
    assert loss == 0 and read == [] and all(not gradient.any() for gradient in ours)


def test_what_is_kept_is_learned_and_logged(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=3", BEST, "train.micro_batch_messages=2")
    before = [parameter.detach().clone() for parameter in policy(trainer).parameters() if parameter.requires_grad]
    trainer.train()
    after = [parameter for parameter in policy(trainer).parameters() if parameter.requires_grad]
    assert any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    lines = [line for line in trainer.state.log_history if "kept/group_share" in line]
    assert len(lines) == 3
    for line in lines:
        assert 0 <= line["kept/group_share"] <= 1
        if line["kept/group_share"]:
            assert line["loss"] > 0
            assert line["kept/reward"] > line["reward"] and 1 <= line["kept/tokens"] <= 128


def test_trls_own_update_keeps_everything(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1")
    batch = inputs(trainer)
    assert int((batch["completion_mask"].sum(dim=1) > 0).sum()) == 8
    assert "kept/group_share" not in trainer._metrics["train"]


def test_the_likelihood_is_that_at_the_sampling_temperature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, batches = prepared(tmp_path, "train.temperature=1.5")
    used: list[float] = []
    original = shared_prefix_trainer.token_scores

    def watched(*arguments: Any) -> Any:
        used.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(shared_prefix_trainer, "token_scores", watched)
    gradients(trainer, batches)
    assert used == [1.5]


@pytest.mark.parametrize("key", ["beta=0.1", "epsilon=0.3", "loss_type=grpo", "importance_sampling_level=sequence"])
def test_a_key_of_grpo_is_refused(key: str) -> None:
    name, value = key.split("=")
    with pytest.raises(ConfigError, match=rf"^train\.{name} = '?{value}'?: is read with train\.update = grpo alone"):
        load_config("mi_rl.yaml", [BEST, f"train.{key}"])


def test_credit_of_single_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^reward\.token_information = 0\.5: credits single tokens, and train\.upd"):
        load_config("mi_rl.yaml", [BEST, "reward.token_information=0.5"])
