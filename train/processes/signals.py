"""Stopping on a signal: training ends after the step under way, with a checkpoint to go on from."""

import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class StopOnSignal(TrainerCallback):
    """Ctrl-C or SIGTERM ends training after the step under way and a checkpoint; a second Ctrl-C ends it at once.

    DeepSpeed's launcher answers Ctrl-C, which reaches every process by itself, with a SIGTERM to one process after the
    other, and kills what still runs half a minute later. So SIGTERM is never the second signal, and all processes act
    on what one of them received, after the same step.
    """

    def __init__(self, gather: Callable[[list[bool]], list[bool]] = gather_object) -> None:
        """Signals are caught while training runs; ``gather`` joins what each process gives into one list for all."""
        self.gather = gather
        self.received: set[int] = set()
        self.handlers: dict[int, Any] = {}
        self.speaks = False

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Catch both signals."""
        self.speaks = state.is_world_process_zero
        self.handlers = {number: signal.signal(number, self._receive) for number in (signal.SIGINT, signal.SIGTERM)}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop where any process received a signal."""
        if any(self.gather([bool(self.received)])):
            control.should_save = True
            control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Give the signals back to whoever had them."""
        self.release()

    def release(self) -> None:
        """Give the signals back to whoever had them; nothing where they were given back already."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and number in self.received:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.speaks and not self.received:
            # No promise of a checkpoint: where another process has died, the step under way never ends.
            print("\nstopping after this step", flush=True)
        self.received.add(number)
