"""The state of every generator of random numbers that a training draws from, remembered and put back."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RandomState:
    """The states of the generators of Python, numpy and torch, on the CPU and on all GPUs."""

    python: tuple[Any, ...]
    numbers: Any
    tensors: Tensor
    cuda: list[Tensor]

    @classmethod
    def now(cls) -> "RandomState":
        """The states as they are."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return cls(random.getstate(), numpy.random.get_state(), torch.get_rng_state(), cuda)

    def put_back(self) -> None:
        """Make these the states again."""
        random.setstate(self.python)
        numpy.random.set_state(self.numbers)
        torch.set_rng_state(self.tensors)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)


@contextmanager
def random_state_kept() -> Iterator[None]:
    """Whatever is drawn inside, what is drawn afterwards is the same."""
    before = RandomState.now()
    try:
        yield
    finally:
        before.put_back()
