"""Locks that a killed compilation left in torch's extension cache, and the ninja that compiles there.

DeepSpeed compiles operators at the first start. Torch guards each build folder with a file called ``lock`` that it
creates, keeps open while it compiles, and removes at the end; whoever finds it waits until it is gone, for ever where
the process that made it was killed (``torch.utils.file_baton.FileBaton``).
"""

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from torch.utils.cpp_extension import get_default_build_root

COMPILERS = {"ninja", "c++", "g++", "cc1plus", "clang", "clang++", "nvcc", "cicc", "ptxas", "hipcc"}
"""Names of the processes that torch starts to compile an extension."""

NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "ceph", "beegfs", "glusterfs", "afs"}
"""File systems that other machines may share, whose processes cannot be seen from here."""


def extension_root() -> Path:
    """The folder under which torch builds extensions, as torch itself finds it."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or get_default_build_root())


def find_locks(root: Path) -> list[Path]:
    """The locks of all build folders: directly below ``root``, or below a folder for each Python and accelerator."""
    return sorted([*root.glob("*/lock"), *root.glob("*/*/lock")])


def lock_holders(lock: Path) -> list[int]:
    """The processes of this machine that have the lock open, which a process does as long as it holds it."""
    return [process.pid for process in psutil.process_iter() if str(lock.resolve()) in _open_files(process)]


def on_network(path: Path) -> bool:
    """Whether the file system may be shared with another machine, whose processes cannot be seen."""
    path = path.resolve()
    mounts = [mount for mount in psutil.disk_partitions(all=True) if path.is_relative_to(mount.mountpoint)]
    kind = max(mounts, key=lambda mount: len(mount.mountpoint)).fstype if mounts else ""
    return kind in NETWORK_FILESYSTEMS or kind.startswith("fuse.")


def clear_stale_locks(
    root: Path | None = None,
    settle_seconds: float = 1.0,
    compiler_seconds: float = 600.0,
    unseen_seconds: float = 3600.0,
    sleep: Callable[[float], None] = time.sleep,
    is_shared: Callable[[Path], bool] = on_network,
) -> list[Path]:
    """Remove the locks that no living process holds.

    Safe while other processes compile, and where several call it at once: one process looks and removes at a time, and
    a lock goes only if it is the same file without a holder at two looks, so that neither a lock just made nor one just
    released is touched. Compilers that outlived the process that started them are waited for: they still write to the
    folder. Whoever removes a lock should say so.

    Args:
        root: the extension cache; None is `extension_root`.
        settle_seconds: time between the two looks.
        compiler_seconds: how long to wait for compilers that are left over; the lock stays if they run on.
        unseen_seconds: age at which a lock goes whose holder could not be seen from here, because the lock lies on a
            network file system or belongs to another user.
        sleep: waits so many seconds.
        is_shared: whether a path may be shared with another machine.

    Returns:
        The locks that were removed. What `find_locks` still finds is held by a process, or young and of a holder that
        cannot be seen.
    """
    root = root or extension_root()
    if not find_locks(root):
        return []
    with _held_alone(root):
        suspects = {lock: _identity(lock) for lock in find_locks(root) if _seems_stale(lock, unseen_seconds, is_shared)}
        if not suspects:
            return []
        sleep(settle_seconds)
        return [
            lock
            for lock, identity in suspects.items()
            if _await_compilers(lock.parent, compiler_seconds)
            and _seems_stale(lock, unseen_seconds, is_shared)
            and _identity(lock) == identity
            and _remove(lock)
        ]


def prepare_compilation() -> None:
    """Make ready for what DeepSpeed compiles; one process of each machine removes stale locks, and says so."""
    prefer_own_ninja()
    if os.environ.get("LOCAL_RANK") == "0":
        for lock in clear_stale_locks():
            print(f"removed {lock}, left by a compilation that was killed", file=sys.stderr)


def prefer_own_ninja() -> None:
    """Put this environment's tools first on PATH: another version of ninja would compile every operator again."""
    binaries = str(Path(sys.executable).parent)
    if os.environ.get("PATH", "").split(os.pathsep)[0] != binaries:
        os.environ["PATH"] = os.pathsep.join(filter(None, [binaries, os.environ.get("PATH")]))


@contextmanager
def _held_alone(root: Path) -> Iterator[None]:
    """Hold the cache alone: else a process could remove a lock that another made after clearing the same stale one."""
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _seems_stale(lock: Path, unseen_seconds: float, is_shared: Callable[[Path], bool]) -> bool:
    try:
        status = lock.stat()
    except FileNotFoundError:
        return False
    if lock_holders(lock):
        return False
    ours = status.st_uid == os.getuid() or os.getuid() == 0
    if ours and not is_shared(lock):
        return True
    return time.time() - status.st_mtime > unseen_seconds


def _await_compilers(folder: Path, seconds: float) -> bool:
    """Whether no compiler works in the folder, or none does any more within the time given."""
    deadline = time.monotonic() + seconds
    while any(_compiles_in(process, folder) for process in psutil.process_iter()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def _compiles_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.name() in COMPILERS and Path(process.cwd()) == folder.resolve()
    except psutil.Error:  # gone, or another user's
        return False


def _open_files(process: psutil.Process) -> set[str]:
    try:
        return {file.path for file in process.open_files()}
    except psutil.Error:  # gone, or another user's: see unseen_seconds
        return set()


def _identity(lock: Path) -> tuple[int, int] | None:
    try:
        status = lock.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_mtime_ns


def _remove(lock: Path) -> bool:
    try:
        lock.unlink()
    except FileNotFoundError:
        return False
    return True
