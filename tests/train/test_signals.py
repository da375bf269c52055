"""Ctrl-C as it arrives alone, from DeepSpeed's launcher, and at another process."""

import signal
from typing import Any, cast

from transformers import TrainerControl, TrainerState

from train.processes.signals import StopOnSignal

NO_ARGUMENTS = cast(Any, None)


def step(stop: StopOnSignal) -> tuple[bool, bool]:
    """Whether training saves and stops after a step."""
    control = TrainerControl()
    stop.on_step_end(NO_ARGUMENTS, TrainerState(), control)
    return control.should_save, control.should_training_stop


def test_the_launchers_signals_after_ctrl_c_end_nothing_at_once() -> None:
    stop, before = StopOnSignal(), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop.on_train_begin(NO_ARGUMENTS, TrainerState())
    assert step(stop) == (False, False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
        signal.raise_signal(number)
    assert step(stop) == (True, True)
    stop.on_train_end()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_another_process_received_stops_this_one_after_the_same_step() -> None:
    assert step(StopOnSignal(gather=lambda own: [*own, True])) == (True, True)
