"""Stopping and going on: a signal ends training behind a checkpoint, and a run folder alone is enough to resume."""

import signal
from pathlib import Path
from types import FrameType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

CHECKPOINTS = "checkpoints"


class StopOnSignal(TrainerCallback):
    """Ctrl-C (or SIGTERM) finishes the step under way, saves a checkpoint and ends; a second one ends at once."""

    def __init__(self) -> None:
        """Nothing is caught before ``listen``."""
        self.received: int | None = None

    def listen(self) -> None:
        """Catch both signals from now on."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        self.received = number

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save and stop behind the step in which the signal came."""
        if self.received is not None:
            control.should_save = True
            control.should_training_stop = True
        return control


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint of a run folder, None where there is none."""
    checkpoints = folder / CHECKPOINTS
    return get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
