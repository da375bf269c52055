"""Stale locks in torch's extension cache, made and held by torch's own FileBaton in other processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch.utils import file_baton
from torch.utils.file_baton import FileBaton

from train.processes.extension_cache import (
    clear_stale_locks,
    extension_root,
    find_locks,
    lock_holders,
    prefer_own_ninja,
)

pytestmark = pytest.mark.command

# Run from torch's own file, without the seconds that importing all of torch takes.
HOLD = """
import runpy, sys, time
assert runpy.run_path(sys.argv[1])["FileBaton"](sys.argv[2]).try_acquire()
print("held", flush=True)
time.sleep(600)
"""
CLEAR = """
import sys
from pathlib import Path
from train.processes.extension_cache import clear_stale_locks
print(len(clear_stale_locks(Path(sys.argv[1]), settle_seconds=0.5)))
"""
Hold = Callable[[Path], subprocess.Popen[str]]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Starts a process that acquires a lock and keeps it."""
    processes: list[subprocess.Popen[str]] = []

    def start(lock: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, file_baton.__file__, str(lock)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    """Where torch puts the lock of an operator's build folder."""
    folder = tmp_path / "py311_cpu" / "deepspeed_shm_comm"
    folder.mkdir(parents=True)
    return folder / "lock"


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_the_lock_of_a_killed_process_is_removed(tmp_path: Path, lock: Path, hold: Hold) -> None:
    killed(hold(lock))
    assert lock.exists()
    assert clear_stale_locks(tmp_path, settle_seconds=0.01) == [lock]
    assert FileBaton(str(lock)).try_acquire()


def test_the_lock_of_a_living_process_is_kept(tmp_path: Path, lock: Path, hold: Hold) -> None:
    process = hold(lock)
    assert lock_holders(lock) == [process.pid]
    assert clear_stale_locks(tmp_path, settle_seconds=0.01, unseen_seconds=0) == []
    assert find_locks(tmp_path) == [lock]


def test_the_stale_lock_goes_and_the_held_one_beside_it_stays(tmp_path: Path, lock: Path, hold: Hold) -> None:
    stale = tmp_path / "fused_adam" / "lock"
    stale.parent.mkdir()
    killed(hold(stale))
    hold(lock)
    assert clear_stale_locks(tmp_path, settle_seconds=0.01) == [stale]
    assert find_locks(tmp_path) == [lock]


def test_a_lock_taken_anew_between_the_two_looks_is_kept(tmp_path: Path, lock: Path, hold: Hold) -> None:
    killed(hold(lock))

    def another_start_takes_it(seconds: float) -> None:
        lock.unlink()
        hold(lock)

    assert clear_stale_locks(tmp_path, sleep=another_start_takes_it) == []
    assert lock.exists()


def test_a_lock_without_a_holder_that_is_released_between_the_two_looks_is_not_reported(
    tmp_path: Path, lock: Path
) -> None:
    baton = FileBaton(str(lock))
    assert baton.try_acquire() and baton.fd is not None
    os.close(baton.fd)  # the first half of release()
    assert clear_stale_locks(tmp_path, sleep=lambda seconds: lock.unlink()) == []


def test_of_several_processes_one_removes_the_lock(tmp_path: Path, lock: Path, hold: Hold) -> None:
    killed(hold(lock))
    command = [sys.executable, "-c", CLEAR, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    ranks = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    assert sorted(rank.communicate()[0].strip() for rank in ranks) == ["0", "1"]


def test_a_compiler_that_outlived_its_parent_is_waited_for(tmp_path: Path, lock: Path, hold: Hold) -> None:
    compiler = tmp_path / "ninja"
    compiler.symlink_to("/bin/sleep")
    killed(hold(lock))
    orphan = subprocess.Popen([str(compiler), "600"], cwd=lock.parent)
    try:
        assert clear_stale_locks(tmp_path, settle_seconds=0.01, compiler_seconds=0) == []
        assert lock.exists()
    finally:
        orphan.kill()
        orphan.wait()
    assert clear_stale_locks(tmp_path, settle_seconds=0.01, compiler_seconds=0) == [lock]


def test_where_holders_cannot_be_seen_only_an_old_lock_goes(tmp_path: Path, lock: Path) -> None:
    lock.touch()
    assert clear_stale_locks(tmp_path, settle_seconds=0.01, is_shared=lambda path: True) == []
    hours_ago = time.time() - 7200
    os.utime(lock, (hours_ago, hours_ago))
    assert clear_stale_locks(tmp_path, settle_seconds=0.01, is_shared=lambda path: True) == [lock]


def test_a_cache_that_is_not_there_has_no_locks(tmp_path: Path) -> None:
    assert clear_stale_locks(tmp_path / "absent") == []


def test_the_cache_is_where_torch_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.cpp_extension import _get_build_directory

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (Path(_get_build_directory("op", verbose=False)) / "lock").touch()
    assert find_locks(extension_root()) == [tmp_path / "op" / "lock"]
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = Path(_get_build_directory("op", verbose=False))
    (folder / "lock").touch()
    assert find_locks(extension_root()) == [folder / "lock"]


def test_the_environments_own_tools_come_first_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    prefer_own_ninja()
    prefer_own_ninja()
    assert os.environ["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/usr/bin"]
