"""Training with a base in bfloat16 on a CPU, whether it has the instructions or not."""

from pathlib import Path

import pytest
import torch

from tests.train.small_trainer import disturb, make_trainer, policy
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer

pytestmark = pytest.mark.command


def test_a_step_trains_a_float32_adapter_beside_a_base_in_bfloat16(tmp_path: Path) -> None:
    types = ("compressor.dtype=bfloat16", "predictor.dtype=bfloat16")
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=1", "train.warmup_steps=0", *types)
    disturb(trainer)
    before = {name: weight.detach().clone() for name, weight in policy(trainer).named_parameters()}
    trainer.train()
    after = dict(policy(trainer).named_parameters())
    adapter = {name for name in after if ".lora_" in name}
    assert {after[name].dtype for name in adapter} == {torch.float32}
    assert {after[name].dtype for name in after.keys() - adapter} == {torch.bfloat16}
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed and changed <= adapter
    assert all(bool(after[name].isfinite().all()) for name in changed)
    gaps = [line["sampler_gap/mean_nats"] for line in trainer.state.log_history if "sampler_gap/mean_nats" in line]
    # The policy that wrote the messages and the one that scores them differ by rounding alone, nats.
    assert gaps and all(abs(gap) < 0.1 for gap in gaps)
