"""TRL's GRPO with whole checkpoints and a guard against divergence.

Written for TRL 1.16 and Trainer of transformers 5: `_save_checkpoint` is theirs, written below a partial folder that
`_get_output_dir` names meanwhile; `create_optimizer` puts the guard into the optimizer; `_calculate_rewards` and
`_compute_loss` are theirs, with a look at what comes out; `_run_epoch` is theirs, where a step is left to take.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from data.writing import other_writers
from train.checkpoints.checkpoint import CheckpointError, drop_old, partial_folder, publish
from train.checkpoints.random_state import RandomState
from train.grpo.guard import Guard


class GuardedGRPOTrainer(GRPOTrainer):
    """GRPO that saves checkpoints whole or not at all, and takes no update from numbers that are not finite.

    Attributes:
        checkpoints: the folder that holds them.
        guard: decides whether the update of a step is taken.
    """

    def __init__(self, *arguments: Any, kept_checkpoints: int = 2, most_skipped: int = 5, **options: Any) -> None:
        """Take what TRL's trainer takes.

        Args:
            arguments: TRL's.
            kept_checkpoints: how many of the newest checkpoints stay on the disk; the best one stays besides.
            most_skipped: updates skipped one after the other that end the run.
            options: TRL's.
        """
        super().__init__(*arguments, **options)
        self.kept_checkpoints = kept_checkpoints
        self.checkpoints = Path(cast(str, self.args.output_dir))
        self.guard = Guard(self.checkpoints.parent, most_skipped, gather_object)
        # Where the checkpoint that is being written goes; None between checkpoints.
        self._partial: Path | None = None
        self._saved_step: int | None = None
        self._random_state: RandomState | None = None
        self._tokens_seen = 0
        self._batch: list[dict[str, Any]] = []
        # Each writes something else that a checkpoint has to hold into its folder.
        self.save_beside: list[Callable[[Path], None]] = []
        self.add_callback(_StepEnds(self))

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Trainer's optimizer, watched by the guard before DeepSpeed or accelerate wrap it."""
        optimizer = super().create_optimizer(model)
        self.guard.watch(optimizer)
        return optimizer

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Nothing: a checkpoint needs no card, and the adapter has one of its own."""

    def _calculate_rewards(
        self, inputs: list[dict[str, Any]], prompts: list[str], completions: Any, completion_ids_list: list[list[int]]
    ) -> Tensor:
        rewards = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.guard.check("a reward", rewards)
        own = slice(len(prompts) * self.accelerator.process_index, len(prompts) * (self.accelerator.process_index + 1))
        self._batch = [
            {"id": prompt, "message_ids": list(ids), "rewards": row}
            for prompt, ids, row in zip(prompts, completion_ids_list, rewards[own].tolist(), strict=True)
        ]
        return rewards

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        self.guard.check("the loss", loss.detach())
        return loss

    def end_step(self) -> None:
        """Ask the guard what became of the update, and log whether it was skipped.

        The state of the random numbers and the count of tokens are remembered, for an error in the middle of the next
        step would find them further on.

        Raises:
            DivergenceError: too many in a row were.
        """
        self._random_state = RandomState.now()
        self._tokens_seen = self.state.num_input_tokens_seen
        decode = cast(Any, self.processing_class).decode
        batch = [{**line, "message": decode(line["message_ids"])} for line in self._batch] if self.guard.refuses else []
        skipped = self.guard.end_step(self.state.global_step, batch)
        self._metrics["train"]["update_skipped"].append(float(skipped))

    def save_after_error(self) -> Path | None:
        """Save what was trained before an error in the middle of a step; the checkpoint, None where nothing is new.

        Every process calls this, or none. The messages of the step are not part of it: it will be taken again.
        """
        step = self.state.global_step
        if self._random_state is None or step == 0 or step == self._saved_step:
            return None
        self._random_state.put_back()
        self.state.num_input_tokens_seen = self._tokens_seen
        self._save_checkpoint(cast(nn.Module, self.model), None)
        return self.checkpoints / f"checkpoint-{step}"

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        """A pass over the questions, where a step is left: Trainer looks for that after a step alone."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*arguments, **options)

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._partial is None else str(self._partial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint beside the others, and make it one when every process has written its part.

        Raises:
            CheckpointError: it cannot be written.
        """
        checkpoints, step = self.checkpoints, self.state.global_step
        with _told(checkpoints / f"checkpoint-{step}"):
            self._partial = partial_folder(checkpoints, create=self.args.should_save)
            self.accelerator.wait_for_everyone()
            try:
                super()._save_checkpoint(model, trial)
            finally:
                written, self._partial = self._partial / f"checkpoint-{step}", None
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                for save in self.save_beside:
                    save(written)
                publish(written, checkpoints, _mean_reward(self.state.log_history, self._saved_step or 0))
                drop_old(checkpoints, self.kept_checkpoints, step)
            self.accelerator.wait_for_everyone()
        self._saved_step = step


class _StepEnds(TrainerCallback):
    """Tells the trainer where a step begins and ends."""

    def __init__(self, trainer: GuardedGRPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        self.trainer._saved_step = state.global_step
        # Trainer would save as often as the checkpoint says, not as often as is asked for now.
        state.save_steps = int(args.save_steps)
        if state.is_world_process_zero:
            self.trainer.guard.lines.cut(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.trainer.end_step()


@contextmanager
def _told(checkpoint: Path) -> Iterator[None]:
    """Tell in one line what keeps a checkpoint from being written."""
    try:
        with other_writers(checkpoint):
            yield
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint}: cannot be written ({error.strerror or error}); make room, and the same command goes on "
            "from the checkpoint before it"
        ) from error


def _mean_reward(log_history: Sequence[Mapping[str, Any]], after: int) -> float | None:
    """The mean of the rewards logged after a step; None where there are none."""
    rewards = [line["reward"] for line in log_history if line["step"] > after and line.get("reward") is not None]
    return sum(rewards) / len(rewards) if rewards else None
