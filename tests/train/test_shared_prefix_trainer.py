"""The trainer that reads every context once follows TRL's own: same log-probabilities, gradients and losses."""

from pathlib import Path

import pytest
import torch
from trl import GRPOTrainer

from tests.train.small_trainer import disturb, inputs, make_trainer, policy
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer, grouped, with_token_credit

pytestmark = pytest.mark.command


def test_log_probs_entropies_and_gradients_are_trls_own(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1", "train.temperature=1.3")
    disturb(trainer)
    batch = inputs(trainer)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    kept, real = batch["completion_ids"].shape[1], batch["completion_mask"].bool()
    trained = [parameter for parameter in policy(trainer).parameters() if parameter.requires_grad]
    results = []
    for kind in (SharedPrefixGRPOTrainer, GRPOTrainer):
        log_probs, entropies, _ = kind._get_per_token_logps_and_entropies(  # type: ignore[arg-type]
            trainer,  # pyright: ignore[reportArgumentType]
            policy(trainer),
            ids,
            mask,
            kept,
            compute_entropy=True,
        )
        assert entropies is not None
        gradients = torch.autograd.grad((log_probs * real).square().sum(), trained)
        results.append((log_probs[real].detach(), entropies[real].detach(), gradients))
    (ours, our_entropies, our_gradients), (theirs, their_entropies, their_gradients) = results
    assert int(real.sum()) > 50 and not real.all()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    torch.testing.assert_close(our_entropies, their_entropies, atol=1e-4, rtol=0)
    for our_gradient, their_gradient in zip(our_gradients, their_gradients, strict=True):
        assert (our_gradient - their_gradient).norm() <= 1e-3 * their_gradient.norm()


def test_padding_and_missing_messages_come_back_as_zero(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1")
    ids = torch.tensor([[0, 5, 6, 7, 8, 0], [3, 5, 6, 0, 0, 0]])
    mask = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]])
    log_probs, entropies, _ = trainer._get_per_token_logps_and_entropies(policy(trainer), ids, mask, 3)
    assert entropies is None
    assert (log_probs != 0).tolist() == [[True, True, False], [False, False, False]]


def test_micro_batches_hold_whole_groups(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1", "train.micro_batch_messages=4")
    first = inputs(trainer)
    batches = trainer._buffered_inputs
    assert batches is not None and batches[0] is first
    assert [len(torch.unique(batch["prompt_ids"], dim=0)) for batch in batches] == [1, 1]
    for batch in batches:
        assert batch["advantages"].mean().abs() < 1e-4


def test_grouping_moves_rows_and_nothing_else() -> None:
    prompts = torch.tensor([[1], [2], [1], [2]])
    batches = [
        {"prompt_ids": prompts[:2], "advantages": torch.tensor([0.0, 1.0]), "num_items_in_batch": torch.tensor(9)},
        {"prompt_ids": prompts[2:], "advantages": torch.tensor([2.0, 3.0]), "num_items_in_batch": torch.tensor(9)},
    ]
    first, second = grouped(batches)
    assert first["advantages"].tolist() == [0.0, 2.0] and second["advantages"].tolist() == [1.0, 3.0]
    assert first["num_items_in_batch"] == 9


def test_images_are_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1")
    ids = torch.ones((1, 3), dtype=torch.long)
    with pytest.raises(ValueError, match="text alone"):
        trainer._get_per_token_logps_and_entropies(policy(trainer), ids, ids, 1, pixel_values=torch.ones(1))


@pytest.mark.slow
def test_twenty_steps_follow_the_stock_trainers_curve(tmp_path: Path) -> None:
    curves = []
    for kind in (SharedPrefixGRPOTrainer, GRPOTrainer):
        trainer = make_trainer(tmp_path / kind.__name__, kind, "train.steps=20")
        trainer.train()
        curves.append([(line["loss"], line["grad_norm"]) for line in trainer.state.log_history if "loss" in line])
    ours, theirs = curves
    assert len(ours) == len(theirs) == 20
    assert max(abs(loss) for loss, _ in theirs) > 1e-2
    for (loss, norm), (expected_loss, expected_norm) in zip(ours, theirs, strict=True):
        assert loss == pytest.approx(expected_loss, abs=1e-3)
        assert norm == pytest.approx(expected_norm, rel=1e-2, abs=1e-3)


def test_token_credit_is_added_to_the_advantage_of_its_message(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1", "reward.token_information=0.5")
    batch = inputs(trainer)
    advantages, mask = batch["advantages"], batch["completion_mask"].bool()
    assert advantages.shape == mask.shape
    assert any(len(torch.unique(row[real])) > 1 for row, real in zip(advantages, mask, strict=True))
    trainer.train()


def test_token_credit_is_cut_and_padded_to_the_messages() -> None:
    advantages, credit = torch.tensor([1.0, 2.0]), torch.tensor([[0.5, 0.0], [0.25, 0.25]])
    assert with_token_credit(advantages, credit, 3).tolist() == [[1.5, 1.0, 1.0], [2.25, 2.25, 2.0]]
    assert with_token_credit(advantages, credit, 1).tolist() == [[1.5], [2.25]]


def test_the_policys_own_messages_lie_within_rounding_of_the_update(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=2", "train.temperature=1.3")
    disturb(trainer)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "sampler_gap/mean_nats" in line]
    assert len(lines) == 2
    for line in lines:
        assert 0 < line["sampler_gap/mean_nats"] < 1e-4 and line["sampler_gap/max_nats"] < 1e-2
        assert line["sampler_gap/missing_tokens"] == 0 and "sampler_gap/adapter_reached" not in line


def test_the_gap_is_over_the_tokens_of_all_micro_batches(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1", "train.micro_batch_messages=4")
    inputs(trainer)
    batches = trainer._buffered_inputs
    assert batches is not None and len(batches) == 2
    for batch, shift in zip(batches, (0.5, 2.0), strict=True):
        batch["sampling_per_token_logps"] = batch["sampling_per_token_logps"] - shift
    batches[1]["sampling_per_token_logps"][0, 0] = torch.nan
    first, second = (int(batch["completion_mask"].sum()) for batch in batches)
    trainer.current_gradient_accumulation_steps = 2
    for batch, last in zip(batches, (False, True), strict=True):
        trainer.accelerator.gradient_state._set_sync_gradients(last)
        trainer._compute_loss(policy(trainer), batch)
    metrics = trainer._metrics["train"]
    expected = (0.5 * first + 2.0 * (second - 1)) / (first + second - 1)
    assert metrics["sampler_gap/mean_nats"] == [pytest.approx(expected, abs=1e-4)]
    assert metrics["sampler_gap/max_nats"] == [pytest.approx(2.0, abs=1e-2)]
    assert metrics["sampler_gap/missing_tokens"] == [1]
