"""The work of a study: start what is left, one process after the other or several at once, and write the results."""

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs.command import say, world_size
from configs.errors import ConfigError
from configs.run_folder import MARKER, owned
from configs.tree import to_yaml
from data.errors import InputError
from data.writing import write_text
from train.run_folder import PREDICTOR, TRAINED_PREDICTOR
from train.study.config import StudyConfig, check_files, overrides
from train.study.distil import distil
from train.study.figures import figures_path, write_figures
from train.study.members import Member
from train.study.page import write_pages
from train.study.processes import Running, in_use, share_of_cores, start, stop
from train.study.stand import Stand, is_trained, note_start, stand_of, wanted
from train.study.time_left import Times, duration

COMPRESSOR = "compressor"
"""The folder of the adapter that a training leaves, below its run folder."""

WARM_STARTS = "warm_starts"
"""The folder, below the study's, of warm starts that several of its trainings begin with."""

PREDICTORS = (TRAINED_PREDICTOR, PREDICTOR)
"""The folders of a predictor's adapter that a training may leave, the one that has learned longest first."""

POLL_SECONDS = 0.5
"""How often the processes are looked at: far less than the shortest of them takes."""


def run(config: StudyConfig, members: Sequence[Member], jobs: int) -> int:
    """Do what is left of some members, and write the results; the exit status, 1 where a member failed.

    Raises:
        InputError: a source is not there, or somebody else works in the study's folder.
        KeyboardInterrupt: a signal ended it; its words say what the same command goes on from.
    """
    if world_size() > 1:
        raise ConfigError("a study starts its processes itself: run it with python alone, and several with --jobs")
    check_files(config)
    with owned(config.folder, "study", to_yaml(config)):
        study = Study(config, list(members), jobs)
        try:
            with _interrupted_by_sigterm():
                study.work()
        except KeyboardInterrupt:
            stop(list(study.running.values()))
            raise KeyboardInterrupt(study.reached()) from None
        say(study.reached())
        write_pages(config)
    return 1 if study.failed else 0


def write_results(config: StudyConfig) -> int:
    """Write the results from the figures that are there.

    Raises:
        ConfigError: the pages belong into a study's folder, and there is none.
    """
    if config.pages is None and not (config.folder / MARKER).is_file():
        raise ConfigError(f"run_folder = {str(config.folder)!r}: holds no study yet, and pages names no other folder")
    write_pages(config)
    return 0


@dataclass
class Study:
    """A study at work.

    Attributes:
        config: the study's.
        members: those that are asked for, with what they need.
        jobs: how many may run at once.
        stand: which are done.
        left: those that are neither done nor running.
        running: by the member's name.
        failed: why, by the member's name; also of those that need one that failed.
        numbers: which of those that were left each is, by the member's name.
    """

    config: StudyConfig
    members: list[Member]
    jobs: int
    stand: Stand = field(init=False)
    left: list[Member] = field(init=False)
    running: dict[str, Running] = field(init=False, default_factory=dict)
    failed: dict[str, str] = field(init=False, default_factory=dict)
    numbers: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        """See what is there."""
        self.stand = stand_of(self.config.pages_folder, self.config.folder, self.members)
        self.left = wanted(self.members, self.stand)
        self.times = Times(self.members, self.stand)
        self.by_name = {member.name: member for member in self.members}
        # A training whose evaluations are all done is nobody's work any more, whether its folder is there or not.
        self.counted = [member for member in self.members if member in self.left or self.stand.is_done(member)]
        self.total = len(self.left)

    def work(self) -> None:
        """Do what is left, as far as nothing fails that it needs."""
        for line in self.stand.stale.values():
            say(line)
        done = len(self.counted) - self.total
        say(f"study {self.config.name}: {done} of {len(self.counted)} members are done, {self.total} are left")
        waiting = False
        while self.left or self.running:
            for name in [name for name, one in self.running.items() if one.process.poll() is not None]:
                self._finish(self.by_name[name], self.running.pop(name))
            self._give_up()
            ready = [member for member in self.left if self._is_ready(member)]
            free = [member for member in ready if not in_use(member.folder)]
            for member in free[: self.jobs - len(self.running)]:
                self._start(member)
            if ready and not free and not self.running and not waiting:
                say(f"{ready[0].name}: waiting for the process that is at work in {ready[0].folder}")
                waiting = True
            if self.left or self.running:
                time.sleep(POLL_SECONDS)

    def reached(self) -> str:
        """How far the study is, in words."""
        done = sum(self.stand.is_done(member) for member in self.counted)
        failed = f", {len(self.failed)} failed and are tried again next time" if self.failed else ""
        return f"{done} of {len(self.counted)} members done{failed}"

    def _is_ready(self, member: Member) -> bool:
        return member.needs is None or self.stand.is_done(member.needs)

    def _start(self, member: Member) -> None:
        """Start a member; what lies in its place and is not its own is a failure."""
        self.left.remove(member)
        folder = self.config.folder
        if member.set_name is None:
            if member.name in self.stand.stale:
                self._fail(member, self.stand.stale[member.name])
                return
            note_start(folder, member)
        recipe = (folder / "recipes" / member.place).with_suffix(".yaml")
        recipe.parent.mkdir(parents=True, exist_ok=True)
        write_text(recipe, member.recipe())
        log = (folder / "logs" / member.place).with_suffix(".log")
        command = "train/run.py" if member.set_name is None else "eval/run.py"
        threads = share_of_cores(self.jobs)
        self.running[member.name] = start(command, recipe, overrides(given(folder, member)), log, threads)
        self.numbers[member.name] = self.total - len(self.left)
        say(f"{self._number(member)} started, {self._time_left()}; log: {log}")

    def _finish(self, member: Member, ended: Running) -> None:
        """Take what a member has left."""
        try:
            if ended.process.returncode:
                raise InputError(f"{ended.failure()}; log: {ended.log}")
            if member.set_name is None:
                if not is_trained(self.config.folder, member):
                    raise InputError(f"{member.folder}: is not finished; log: {ended.log}")
                self.stand.trained.add(member.name)
            else:
                figures = distil(member)
                write_figures(figures_path(self.config.pages_folder, member), figures)
                self.stand.figures[member.name] = figures
        except InputError as error:
            self._fail(member, str(error))
            return
        self.times.add(member, ended.seconds)
        say(f"{self._number(member)} done in {duration(ended.seconds)}, {self._time_left()}")

    def _fail(self, member: Member, reason: str) -> None:
        self.failed[member.name] = reason
        say(f"{member.name} failed: {reason}")

    def _give_up(self) -> None:
        """Leave what needs a member that failed."""
        for member in [member for member in self.left if member.needs and member.needs.name in self.failed]:
            assert member.needs is not None
            self.left.remove(member)
            self._fail(member, f"it needs {member.needs.name}")

    def _number(self, member: Member) -> str:
        return f"[{self.numbers[member.name]} of {self.total}] {member.name}"

    def _time_left(self) -> str:
        running = [(self.by_name[name], one.seconds) for name, one in self.running.items()]
        return self.times.left(self.left, running, self.jobs)


def given(study: Path, member: Member) -> dict[str, Any]:
    """The keys that a study gives a member beside its recipe.

    These are the adapters that other members have made for it, and for a training the store of warm starts.

    Args:
        study: the study's folder.
        member: one whose needs are done.
    """
    keys: dict[str, Any] = {}
    if member.needs is not None:
        keys["compressor.adapter"] = str(member.needs.folder / COMPRESSOR)
    left = [run.folder / name for run in (member.needs, member.warm_start) if run for name in PREDICTORS]
    if found := [folder for folder in left if folder.is_dir()]:
        keys["predictor.adapter"] = str(found[0])
    if member.set_name is None:
        keys["train.warm_start_store"] = str(study / WARM_STARTS)
    return keys


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: members are asked to stop, and not just left."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
