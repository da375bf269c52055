"""Divergence: an update from numbers that are not finite is not taken, and many in a row end the run.

The check sits in the optimizer itself, which every mode calls in the end: plain, under DDP, under DeepSpeed's ZeRO,
where the gradients of a process are those of its own partition.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from configs.command import is_main, say
from data.errors import InputError
from train.tracking.step_lines import StepLines

SKIPPED_FILE = "skipped_batches.jsonl"
"""The messages of every update that was not taken, in the run folder of the first process."""


class DivergenceError(InputError):
    """Updates had to be skipped again and again; the message says for what, and where their batches are."""


class Guard:
    """Whether the update of the step under way may be taken.

    Attributes:
        skipped: how many updates were not taken since the start.
        in_a_row: how many of them came last, one after the other.
        paused: whether the update of the step is left out although nothing is wrong with it.
    """

    def __init__(self, folder: Path, most_in_a_row: int, join: Callable[[list[Any]], list[Any]]) -> None:
        """Fix where batches are kept, and when to give up.

        Args:
            folder: the run folder.
            most_in_a_row: updates skipped one after the other that end the run.
            join: joins what each process gives into one list for all.
        """
        self.lines = StepLines(folder / SKIPPED_FILE)
        self.most_in_a_row = most_in_a_row
        self.join = join
        self.skipped = 0
        self.in_a_row = 0
        self.paused = False
        self._reasons: list[str] = []
        self._before: list[Tensor] = []

    @property
    def refuses(self) -> bool:
        """Whether something of the step under way was not finite."""
        return bool(self._reasons)

    def check(self, name: str, values: Tensor) -> None:
        """Note that the update must not be taken where a value is not finite."""
        if not values.isfinite().all():
            self.refuse(f"{name} is not finite")

    def refuse(self, reason: str) -> None:
        """Note why the update must not be taken."""
        if reason not in self._reasons:
            self._reasons.append(reason)

    def watch(self, optimizer: Optimizer) -> None:
        """Stand before and after every step of an optimizer."""
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)

    def _before_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Take the gradients away where the update must not be taken: without them an optimizer does nothing."""
        for parameter in _parameters(optimizer):
            if parameter.grad is not None:
                self.check("the gradient", parameter.grad)
        if self._refused() or self.paused:
            for parameter in _parameters(optimizer):
                parameter.grad = None
        self._before = [parameter.detach().clone() for parameter in _parameters(optimizer)]

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Undo an update that has made a parameter not finite."""
        for parameter in _parameters(optimizer):
            self.check("a parameter after the update", parameter.detach())
        if self._refused():
            with torch.no_grad():
                for parameter, before in zip(_parameters(optimizer), self._before, strict=True):
                    parameter.copy_(before)
        self._before = []

    def _refused(self) -> bool:
        """Whether any process refuses the update; its reasons are known to all from then on."""
        for reasons in self.join([list(self._reasons)]):
            for reason in reasons:
                self.refuse(reason)
        return bool(self._reasons)

    def end_step(self, step: int, batch: Sequence[Mapping[str, Any]]) -> bool:
        """Count the step, and keep its batch where the update was not taken; whether it was not.

        Args:
            step: the number of the step just finished, from 1.
            batch: this process's messages: JSON values for each.

        Raises:
            DivergenceError: too many in a row.
        """
        reasons, self._reasons = self._reasons, []
        if not reasons:
            self.in_a_row = 0
            return False
        self.skipped += 1
        self.in_a_row += 1
        lines = [line for part in self.join([list(batch)]) for line in part]
        if is_main():
            self.lines.add(step, [{"reasons": reasons, **line} for line in lines])
        told = f"step {step}: {' and '.join(reasons)}"
        if self.in_a_row >= self.most_in_a_row:
            raise DivergenceError(
                f"training has diverged: {self.in_a_row} updates in a row were skipped, the last at {told}; their "
                f"batches are in {self.lines.path}; a lower train.learning_rate is the first thing to try"
            )
        say(f"\n{told}; the update is skipped, its batch is in {self.lines.path}", sys.stderr)
        return True


def _parameters(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]
