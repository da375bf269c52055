"""What every command shares: its exit status, what it prints, and how many processes it is."""

import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from accelerate import PartialState

from configs.tree import ConfigError
from data.errors import DataError
from models.endpoint import EndpointError
from models.loading import ModelError, quiet_libraries


def is_main() -> bool:
    """Whether this is the process that writes."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """Processes of this start: one, unless a launcher says otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether deepspeed (or torchrun) started this process."""
    return "LOCAL_RANK" in os.environ


Loaded = TypeVar("Loaded")


def status(load: Callable[[], Loaded], work: Callable[[Loaded], int]) -> int:
    """The exit status of a command: what ``work`` gives, 2 for bad input, 130 when interrupted.

    Args:
        load: reads the configuration; what it refuses is said once, however many processes there are.
        work: takes it.
    """
    quiet_libraries()
    # The first call decides for all: without GPUs, processes find each other only where they are told to look.
    PartialState(cpu=not torch.cuda.is_available())
    try:
        config = load()
    except ConfigError as error:
        say(f"error: {error}", sys.stderr)
        return 2
    try:
        return work(config)
    except (ConfigError, ModelError, DataError, EndpointError) as error:
        # By each process that meets it: it may be the only one.
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    except KeyboardInterrupt:
        say("\ninterrupted: the same command goes on from the last batch that was finished", sys.stderr)
        return 130


def say(text: str, file: Any = None) -> None:
    """Print once, however many processes there are."""
    if PartialState().is_main_process:
        print(text, flush=True, file=file or sys.stdout)
