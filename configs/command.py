"""What every command shares: its command line, its exit status, what it prints, and how its processes start.

A command is a shell of three steps: it reads its arguments, then its configuration, and only then imports and runs the
work. Nothing imported here is heavy, so that ``--help`` and a refused configuration answer at once.
"""

import argparse
import mmap
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO, TypeVar

from configs.tree import ConfigError, Section, describe, to_yaml
from data.errors import InputError, one_line, os_error

BAD_INPUT = 2
"""Exit status for input that has to be mended; argparse ends with the same for a wrong command line."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells give it: 128 and the number of SIGINT."""

Loaded = TypeVar("Loaded")


def config_parser(
    name: str, description: str, examples: Sequence[str], keys: type[Section], first: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """The command line of a command with a configuration; ``--help`` lists its keys. A command adds its own options.

    Read it with ``parse_intermixed_args``, which lets options stand among the overrides.

    Args:
        name: how the command is called, for usage lines.
        description: what it does, in paragraphs.
        examples: whole command lines, shown as they are.
        keys: the type of its configuration.
        first: names of the sections that the list of keys begins with.
    """
    # As argparse wraps the rest of the page; beyond a hundred columns, lines are hard to follow.
    width = min(shutil.get_terminal_size().columns - 2, 100)
    paragraphs = description.replace("``", "'").split("\n\n")
    lines = "\n".join(f"  {example}" for example in examples)
    parser = argparse.ArgumentParser(
        prog=name,
        description="\n\n".join(textwrap.fill(" ".join(paragraph.split()), width) for paragraph in paragraphs),
        epilog=f"examples:\n{lines}\n\nconfiguration keys:\n\n{describe(keys, first, width)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a YAML file, as given or in configs/")
    # deepspeed's launcher passes it to every process; the environment says the same.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument(
        "--dry-run", action="store_true", help="check all that takes no weights, print the resolved configuration, stop"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys: eval.documents=5")
    return parser


def status(load: Callable[[], Loaded], work: Callable[[Loaded], int]) -> int:
    """The exit status of a command: what ``work`` gives, 2 for bad input or a failing disk, 130 when interrupted.

    Args:
        load: reads arguments and configuration. Every process refuses the same, so the main one alone prints it.
        work: does the rest with what was loaded. A process that meets an error prints it, whichever process it is: no
            other may have met it. Where ``work`` ends by a `KeyboardInterrupt` with words, they say what the same
            command goes on from.
    """
    try:
        loaded = load()
    except (InputError, OSError) as error:
        say(f"error: {_told(error)}", sys.stderr)
        return BAD_INPUT
    try:
        return work(loaded)
    except (InputError, OSError) as error:
        print(f"error: {_told(error)}", file=sys.stderr, flush=True)
        return BAD_INPUT
    except KeyboardInterrupt as interruption:
        origin = str(interruption) or "the last batch that was finished"
        say(f"\ninterrupted: the same command goes on from {origin}", sys.stderr)
        return INTERRUPTED


def _told(error: InputError | OSError) -> str:
    """An error on one line. An OSError is the machine's, never a mistake of the program: it is told like bad input."""
    return os_error(error) if isinstance(error, OSError) else str(error)


def make_run_folder(folder: Path) -> None:
    """Make the folder that a run writes to, and write to it once: whether that works is known before any other work.

    Raises:
        ConfigError: something else is there, or nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(mmap.PAGESIZE))  # a full disk still has room for an empty file
    except (FileExistsError, NotADirectoryError):
        raise ConfigError(f"run_folder = {str(folder)!r}: is, or lies below, something that is no folder") from None
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise ConfigError(f"run_folder = {one_line(repr(str(folder)))}: cannot be written to ({reason})") from None


def check_run_folder(folder: Path) -> None:
    """Refuse a folder that a run could not write to, and leave nothing behind: see `make_run_folder`."""
    made = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        make_run_folder(folder)
    finally:
        for path in made:
            with suppress(OSError):
                path.rmdir()


def print_plan(config: Section, folder: Path) -> int:
    """What a dry run ends with: the resolved configuration as YAML, once the run folder is known to be writable.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    check_run_folder(folder)
    print(to_yaml(config), end="")
    return 0


def say_aside(text: str) -> None:
    """Print once on standard error, where standard output is a result that is read on."""
    say(text, sys.stderr)


def say(text: str, file: TextIO | None = None) -> None:
    """Print once, however many processes there are; ``file`` is standard output unless given."""
    if is_main():
        print(text, flush=True, file=file or sys.stdout)


def is_main() -> bool:
    """Whether this is the process that prints and writes: the first one of all machines."""
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """The number of processes of this start: 1, unless a launcher says otherwise."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Whether a launcher, deepspeed or torchrun, started this process."""
    return "LOCAL_RANK" in os.environ


def start_processes() -> None:
    """Let the processes of this start find each other, on GPUs where there are any; the first call decides for all.

    Called by the work of a command before anything else, for the libraries imported here take seconds to load.
    """
    import torch
    from accelerate import PartialState

    from models.loading import quiet_libraries

    quiet_libraries()
    # Cores are shared by the number of processes on this machine, for which DeepSpeed has a name of its own.
    if "LOCAL_SIZE" in os.environ:
        os.environ.setdefault("LOCAL_WORLD_SIZE", os.environ["LOCAL_SIZE"])
    # Without GPUs, processes find each other only where they are told to look.
    PartialState(cpu=not torch.cuda.is_available())
