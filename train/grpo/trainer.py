"""TRL's GRPO on the compressor's adapter: the configuration in TRL's terms, and the trainer built from it."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, PrinterCallback, ProgressCallback
from trl import GRPOConfig, GRPOTrainer

from configs.command import launched, world_size
from data.sample import Sample
from models.loading import torch_type
from train.checkpoints.checkpoint import CHECKPOINTS
from train.checkpoints.deepspeed_files import read_as_data
from train.config import Config, TrainConfig
from train.grpo.guarded_trainer import GuardedGRPOTrainer
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer
from train.processes.signals import StopOnSignal
from train.questions.order import pass_order
from train.questions.source import context_numbers
from train.reward.message_reward import MessageReward
from train.sampling.rollout import Rollout
from train.sampling.vllm import send_merged_weights, vllm_options
from train.tracking.metrics import MetricsFile, ProgressBar
from train.tracking.sample_messages import SampleMessages

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Trainer's names of the courses of the learning rate, all of which begin with the warm-up."""


def deepspeed_config(config: Config) -> dict[str, Any]:
    """ZeRO as configured, in DeepSpeed's terms; Trainer fills in sizes and rates."""
    return {
        "zero_optimization": {"stage": config.train.zero_stage},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": False},
        "zero_allow_untested_optimizer": True,
    }


def grpo_config(config: Config, folder: Path, report_to: list[str], end_token_id: int) -> GRPOConfig:
    """The training section in TRL's terms.

    Args:
        config: the run's.
        folder: the run folder; checkpoints go below it.
        report_to: where Trainer reports metrics, in its own terms.
        end_token_id: what ends a message.
    """
    train = config.train
    processes = world_size()
    on_cpu = not torch.cuda.is_available()
    return GRPOConfig(
        output_dir=str(folder / CHECKPOINTS),
        run_name=config.name,
        seed=config.seed,
        max_steps=train.steps,
        num_generations=train.group_size,
        per_device_train_batch_size=train.micro_batch_size(processes),
        gradient_accumulation_steps=train.gradient_accumulation_steps(processes),
        learning_rate=train.learning_rate,
        lr_scheduler_type=SCHEDULES[train.learning_rate_schedule],
        warmup_steps=train.warmup,
        beta=train.beta,
        epsilon=train.epsilon,
        temperature=train.temperature,
        **_loss_options(train),
        max_grad_norm=train.max_grad_norm,
        max_completion_length=config.compressor.budget_tokens,
        logging_steps=train.log_every,
        save_steps=train.save_every,
        report_to=report_to,
        remove_unused_columns=False,
        gradient_checkpointing=not on_cpu,
        use_cpu=on_cpu,
        bf16=not on_cpu and torch_type(config.compressor.dtype, "cuda") == torch.bfloat16,
        dataloader_num_workers=0,
        disable_tqdm=True,
        logging_strategy="steps",
        log_level="error",
        deepspeed=deepspeed_config(config) if launched() else None,
        **(_sampler_options(train, end_token_id) if train.sampler == "vllm" else {}),
    )


def _loss_options(train: TrainConfig) -> dict[str, Any]:
    """The loss in TRL's terms; best of n is its sum of -ratio x advantage x log-prob, with ratios of 1, over tokens."""
    if train.update == "best_of_n":
        return {"loss_type": "cispo", "epsilon_high": 1.0}
    return {
        "loss_type": train.loss_type,
        "scale_rewards": train.scale_rewards,
        "importance_sampling_level": train.importance_sampling_level,
    }


def _sampler_options(train: TrainConfig, end_token_id: int) -> dict[str, Any]:
    options = vllm_options(train.vllm, end_token_id)
    # What best of n keeps is learned as it stands, whatever its writer thought of it.
    return options | ({"vllm_importance_sampling_correction": False} if train.update == "best_of_n" else {})


def build_trainer(
    config: Config,
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    samples: Sequence[Sample],
    rollout: Rollout,
    reward: MessageReward,
    report_to: list[str],
    trainer_class: type[GRPOTrainer] = SharedPrefixGRPOTrainer,
) -> GRPOTrainer:
    """TRL's trainer with our rollout and reward.

    Args:
        config: the run's.
        model: the compressor, whose adapter is trained.
        tokenizer: the compressor's.
        samples: the questions to write messages for; their ids are TRL's prompts, which rollout and reward look up.
        rollout: writes the messages.
        reward: pays for them.
        report_to: where Trainer reports metrics, in its own terms.
        trainer_class: another one than ours for comparisons, such as TRL's own.
    """
    if launched():
        read_as_data()
    messages = SampleMessages(config.folder, config.tracking.show_messages_every)
    reward.watch = messages.take
    guarded: dict[str, Any] = {
        "kept_checkpoints": config.train.keep_checkpoints,
        # A run in which no update at all was taken has diverged, however short it is.
        "most_skipped": min(config.train.max_skipped_updates, config.train.steps),
    }
    contexts, together = context_numbers(samples), config.train.questions_per_context
    ours: dict[str, Any] = {
        "order": partial(pass_order, contexts, config.train.contexts_per_step, together, config.seed)
    }
    trainer = trainer_class(
        model=model,
        reward_funcs=[reward],
        args=grpo_config(config, config.folder, report_to, rollout.compressor.end_token_id),
        train_dataset=Dataset.from_dict(
            {"prompt": [sample.id for sample in samples], **({"context": contexts} if together > 1 else {})}
        ),
        processing_class=tokenizer,
        rollout_func=rollout,  # type: ignore[arg-type]
        callbacks=[MetricsFile(config.folder), messages, reward.step_weights, ProgressBar(), StopOnSignal()],
        **(guarded if issubclass(trainer_class, GuardedGRPOTrainer) else {}),
        **(ours if issubclass(trainer_class, SharedPrefixGRPOTrainer) else {}),
    )
    # TRL counts a message as cut off unless it ends with the tokenizer's end of text, which may not be the template's.
    trainer.eos_token_ids = [rollout.compressor.end_token_id]
    if trainer.use_vllm:
        send_merged_weights(trainer.vllm_generation, model)
    # Metrics and progress are shown by our own callbacks.
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    return trainer
