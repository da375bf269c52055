"""The processes of a study's members: each a command of its own that ends with the study, however that ends."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from configs.run_folder import LOCK
from configs.tree import PROJECT
from data.errors import one_line

MOST_SHOWN = 300
"""Characters of a failure that are shown; the log has all of it."""

SET_DEATH_SIGNAL = 1
"""Linux's PR_SET_PDEATHSIG of ``prctl``: the signal that a process gets when its parent ends."""


@dataclass(frozen=True)
class Running:
    """A process that has been started.

    Attributes:
        process: the command.
        log: where its output goes.
        offset: bytes that the log held before.
        started: when, seconds of the monotonic clock.
    """

    process: subprocess.Popen[bytes]
    log: Path
    offset: int
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """How long it has been running."""
        return time.monotonic() - self.started

    def failure(self) -> str:
        """Why it failed, on one line: its refusal, or else the last that it said."""
        with self.log.open("rb") as file:
            file.seek(self.offset)
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        refusals = [line for line in lines if line.startswith("error: ")]
        code = self.process.returncode
        end = f"ended by signal {-code}" if code < 0 else f"exit status {code}"
        said = refusals[-1].removeprefix("error: ") if refusals else ": ".join([end, *lines[-1:]])
        return one_line(said, MOST_SHOWN)


def start(command: str, recipe: Path, overrides: Sequence[str], log: Path, threads: int) -> Running:
    """Start a command of this checkout, its output going to the end of a log.

    Args:
        command: its file, such as ``train/run.py``.
        recipe: its configuration.
        overrides: of the configuration.
        log: is made where it is absent.
        threads: that it may use, ``OMP_NUM_THREADS``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    arguments = [sys.executable, str(PROJECT / command), "--config", str(recipe), *overrides]
    with log.open("ab") as file:
        offset = file.tell()
        process = subprocess.Popen(
            arguments,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            # Ctrl-C reaches the study alone, which passes it on once: a second one would end a training at once.
            start_new_session=True,
            preexec_fn=_before_start,
        )
    return Running(process, log, offset)


def stop(running: Sequence[Running]) -> None:
    """Ask processes to stop where the same command goes on from, and wait for them; once interrupted, end them."""
    try:
        _signal(running, signal.SIGINT)
        for one in running:
            one.process.wait()
    except KeyboardInterrupt:
        _signal(running, signal.SIGKILL)
        raise


def in_use(folder: Path) -> bool:
    """Whether a process is at work in a run folder."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def share_of_cores(jobs: int) -> int:
    """Threads for each of so many processes: a share of the cores, or of ``OMP_NUM_THREADS`` where that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, (int(given) if given.isdecimal() else cores) // jobs)


def _signal(running: Sequence[Running], number: int) -> None:
    for one in running:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, number)


def _before_start() -> None:
    # Members are stopped by SIGINT, to which a study in the background of a shell is deaf, and they would be as well.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        _end_with_parent()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(SET_DEATH_SIGNAL, signal.SIGTERM)
