"""Trainers on the embedded default with small batches."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from trl import GRPOTrainer

from configs.build import load_samples
from train.config import load_config
from train.grpo.trainer import build_trainer
from train.models import load_models
from train.questions.source import training_request
from train.reward.message_reward import MessageReward
from train.sampling.rollout import Rollout

SMALL = ("train.contexts_per_step=2", "train.group_size=4", "train.log_every=1", "train.save_every=1000")
QUIET = ("tracking.wandb=disabled", "information.negatives.counterfactual=1", "information.negatives.batch=1")


def make_trainer(folder: Path, trainer_class: type[GRPOTrainer], *overrides: str) -> GRPOTrainer:
    """A trainer on the embedded default with small batches."""
    config = load_config("mi_rl.yaml", [f"run_folder={folder}", *SMALL, *QUIET, *overrides])
    folder.mkdir(parents=True, exist_ok=True)
    models = load_models(config)
    samples = load_samples(config, models.compressor, "train", training_request, print)
    by_id = {sample.id: sample for sample in samples}
    train = config.train
    rollout = Rollout(models.compressor, by_id, train.temperature, config.seed, train.demonstrations)
    reward = MessageReward(config, models.compressor, models.channel, by_id)
    return build_trainer(config, models.adapted, models.tokenizer, samples, rollout, reward, [], trainer_class)


def policy(trainer: GRPOTrainer) -> nn.Module:
    assert isinstance(trainer.model, nn.Module)
    return trainer.model


def disturb(trainer: GRPOTrainer) -> None:
    """An adapter that already does something."""
    torch.manual_seed(3)
    for name, parameter in policy(trainer).named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter.data, std=0.05)


def inputs(trainer: GRPOTrainer) -> dict[str, Any]:
    """One generation batch, rewarded and padded as TRL does it."""
    policy(trainer).train()
    return trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
