"""Training that goes on from a checkpoint: what is left to do, and how often it is saved."""

from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from models.fingerprint import is_trainable, parameter_hash
from tests.train.small_trainer import make_trainer, policy
from train.checkpoints.checkpoint import checkpoints_in
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer

SMALL = (
    # Three steps a pass: training does not end where a pass does.
    "tasks=[{name: miniature/notes, documents: 6, questions_per_document: 1, facts: 4}]",
    "train.group_size=2",
    "train.keep_checkpoints=9",
    "train.warmup_steps=0",
    "train.task_information_every=0",
    "compressor.budget_tokens=8",
)


class StopAfterOneStep(TrainerCallback):
    """Saves after the first step, and ends there."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        control.should_save = control.should_training_stop = True


def saved(folder: Path) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints_in(folder / "checkpoints")]


def test_a_training_that_is_at_its_end_takes_no_further_step(tmp_path: Path) -> None:
    settings = (*SMALL, "train.steps=2", "train.save_every=2")
    first = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *settings)
    first.train()
    again = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-2"))
    assert again.state.global_step == 2 and saved(tmp_path) == [2]
    assert parameter_hash(policy(again), is_trainable) == parameter_hash(policy(first), is_trainable)


def test_a_training_that_goes_on_is_saved_as_often_as_is_asked_for_now(tmp_path: Path) -> None:
    stopped = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *SMALL, "train.steps=4", "train.save_every=50")
    stopped.add_callback(StopAfterOneStep())
    stopped.train()
    goes_on = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *SMALL, "train.steps=4", "train.save_every=1")
    goes_on.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-1"))
    assert saved(tmp_path) == [1, 2, 3, 4]
