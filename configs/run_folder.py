"""A run folder has one owner: a marker says which command it belongs to, a lock that somebody is at work in it.

Without the marker a folder is somebody else's: nothing is written to it, and nothing of it is dropped.
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from configs.command import is_main, make_run_folder
from configs.errors import ConfigError
from data.errors import os_error
from data.writing import write_text

MARKER = "run.json"
"""The file that makes a folder a run folder."""

LOCK = "run.lock"
"""The file that is locked while a command works in the folder; the lock goes with the process, however it ends."""

CONFIG_FILE = "config.yaml"
"""The resolved configuration, for people; what a run has to agree with is its hash in the marker."""

FORMAT = "shorthand run folder, version 1"
"""What the marker says of itself."""


@contextmanager
def owned(
    folder: Path,
    command: str,
    config: str | None = None,
    identity: str | None = None,
    fresh: bool = False,
    holds_work: Callable[[Path], bool] = lambda _: True,
) -> Iterator[Path]:
    """The folder of a run, which nobody else uses until the end of the block; every process of the run calls this.

    Args:
        folder: is made where it is absent.
        command: whose folder it is, such as ``train``.
        config: the resolved configuration, kept for people; None where the command keeps its own.
        identity: what the folder holds a run of: all that must not change until it ends; None where everything may.
        fresh: drop what the folder holds.
        holds_work: whether anything was computed in the folder; one without may change its configuration.

    Raises:
        ConfigError: somebody else works in the folder, it is no run folder or another command's, or it holds a run of
            another configuration. Every process raises the same.
    """
    lock = on_main(lambda: _open(folder, command, config, identity, fresh, holds_work))
    try:
        yield folder
    finally:
        if lock is not None:
            os.close(lock)


def is_finished(folder: Path) -> bool:
    """Whether the run has come to its end, the last page included."""
    return bool((_marker(folder) or {}).get("finished"))


def mark_finished(folder: Path) -> None:
    """Note that the run has come to its end."""
    _mark(folder, {**(_marker(folder) or {}), "finished": True})


def on_main(work: Callable[[], int]) -> int | None:
    """Do something on the main process alone; what it refuses, every process refuses with the same words.

    Returns:
        What the work gave, on the main process; None elsewhere.
    """
    from accelerate.utils import broadcast_object_list

    result, refusal = None, [""]
    if is_main():
        try:
            result = work()
        except ConfigError as error:
            refusal = [str(error)]
        except OSError as error:
            refusal = [os_error(error)]
    broadcast_object_list(refusal)
    if refusal[0]:
        raise ConfigError(refusal[0])
    return result


def _open(
    folder: Path,
    command: str,
    config: str | None,
    identity: str | None,
    fresh: bool,
    holds_work: Callable[[Path], bool],
) -> int:
    """Lock the folder and make it this run's; the descriptor of the lock."""
    _check_ours(folder, command)
    make_run_folder(folder)
    lock = _lock(folder)
    try:
        # Once more, for now nobody else changes it.
        _check_ours(folder, command)
        marker = _marker(folder) or {}
        if fresh or marker.get("dropping"):
            _drop(folder, command)
            marker = {}
        _check_identity(folder, marker, identity, holds_work)
        if not marker or marker.get("identity") != _hash(identity):
            _mark(folder, {"command": command, "identity": _hash(identity), "finished": False})
        for partial in folder.glob(".*.partial"):
            partial.unlink(missing_ok=True)
        resolved = folder / CONFIG_FILE
        if config is not None and (resolved.is_symlink() or _text(resolved) != config):
            write_text(resolved, config)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _check_ours(folder: Path, command: str) -> None:
    """Refuse a folder that holds something and was not made by this command."""
    # What a kill left of the first marker says nothing yet; it is dropped below.
    left = {LOCK, *(path.name for path in folder.glob(f".{MARKER}.*.partial"))} if os.path.isdir(folder) else set()
    if not os.path.isdir(folder) or not (names := {path.name for path in folder.iterdir()} - left):
        return
    shown = f"run_folder = {str(folder)!r}"
    marker = _marker(folder)
    if marker is None:
        state = f"has a damaged {MARKER}" if MARKER in names else f"holds files and no {MARKER}"
        raise ConfigError(f"{shown}: {state}, so it is not taken for a run's; choose another run_folder or name")
    if marker["command"] != command:
        raise ConfigError(f"{shown}: belongs to {marker['command']}, not to {command}; choose another name=...")


def _lock(folder: Path) -> int:
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
        os.close(descriptor)
        raise ConfigError(
            f"run_folder = {str(folder)!r}: {owner} is at work in it; wait for its end, or choose another name=..."
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
    return descriptor


def _check_identity(
    folder: Path, marker: dict[str, Any], identity: str | None, holds_work: Callable[[Path], bool]
) -> None:
    """Refuse a folder in which something was computed with another configuration."""
    if identity is None or not marker or marker.get("identity") == _hash(identity) or not holds_work(folder):
        return
    raise ConfigError(
        f"run_folder = {str(folder)!r}: holds a run of another configuration; "
        "choose another name=..., or --fresh to drop it"
    )


def _drop(folder: Path, command: str) -> None:
    """Drop all that a run folder holds; what a kill leaves of it is dropped at the next start."""
    _mark(folder, {"command": command, "identity": None, "dropping": True})
    for path in folder.iterdir():
        if path.name in (LOCK, MARKER):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _mark(folder: Path, state: dict[str, Any]) -> None:
    write_text(folder / MARKER, json.dumps({"format": FORMAT, **state}, indent=1) + "\n")


def _marker(folder: Path) -> dict[str, Any] | None:
    """What the marker says; None where there is none, or another file of that name."""
    try:
        marker = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return marker if marker["format"] == FORMAT and isinstance(marker["command"], str) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _hash(identity: str | None) -> str | None:
    return None if identity is None else hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def _text(path: Path) -> str | None:
    """The text of a file; None where there is none that can be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
