"""Checkpoints that are whole or absent, and known to hold what was written.

Trainer writes a checkpoint file by file, into a folder that does not count. When every process is done, the files are
flushed to the disk, a manifest with the SHA-256 of each is written last, and one rename makes the folder a checkpoint.
Before a run goes on from one, every hash is compared: a damaged checkpoint is named and passed over.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import InputError
from data.writing import flush_folder, write_text

CHECKPOINTS = "checkpoints"
"""The folder of checkpoints below the run folder."""

PARTIAL = "unfinished"
"""The folder below `CHECKPOINTS` in which a checkpoint is written; whatever a kill left there is dropped."""

REPLACED = "replaced"
"""The folder below `PARTIAL` in which a folder lies while another one takes its place."""

MANIFEST = "manifest.json"
"""The file that makes a folder a checkpoint: what it holds, with hashes."""

UNUSED = ("training_args.bin", "zero_to_fp32.py", "zero_to_torch.py", "README.md")
"""Files that Trainer, DeepSpeed and PEFT add and that nothing here reads: pickles, programs and an empty model card."""


class CheckpointError(InputError):
    """A checkpoint that cannot be written or must not be read; the message says what the run can go on from."""


class Checkpoint(NamedTuple):
    """A folder whose name says that it is a checkpoint; whether it is whole is another matter.

    Attributes:
        path: the folder.
        step: the optimizer steps that had been taken.
    """

    path: Path
    step: int


class Found(NamedTuple):
    """What a run folder can go on from.

    Attributes:
        newest: the newest whole checkpoint; None where there is none.
        damaged: for each newer one, its folder and what is wrong with it.
    """

    newest: Checkpoint | None
    damaged: list[str]


def partial_folder(checkpoints: Path, create: bool) -> Path:
    """Where the next checkpoint is written; ``create`` makes it, emptied of what a kill or a full disk left."""
    partial = checkpoints / PARTIAL
    if create:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    return partial


def publish(written: Path, checkpoints: Path, reward: float | None) -> Path:
    """Make a folder that has been written a checkpoint: flush it, seal it by a manifest, rename it into place.

    Args:
        written: the folder, below the partial one, named as the checkpoint.
        checkpoints: where it goes. A damaged checkpoint of the same step is replaced.
        reward: the mean reward since the checkpoint before, by which the best is known; None where nothing was logged.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    for name in UNUSED:
        (written / name).unlink(missing_ok=True)
    files = {str(path.relative_to(written)): _fingerprint(path, flush=True) for path in _files(written)}
    write_text(written / MANIFEST, _sealed({"reward": reward, "files": files}))
    for folder in (path for path in written.rglob("*") if path.is_dir()):
        flush_folder(folder)
    flush_folder(written)
    target = checkpoints / written.name
    if target.exists():
        # Set aside, and dropped when the new one stands: a kill in between leaves the old one to `put_back`.
        aside = written.parent / REPLACED
        aside.mkdir()
        target.rename(aside / target.name)
    written.rename(target)
    shutil.rmtree(written.parent)
    flush_folder(checkpoints)
    return target


def put_back(checkpoints: Path) -> None:
    """Put back what a kill has left set aside, between the old folder of a name and the new one."""
    aside = checkpoints / PARTIAL / REPLACED
    for old in aside.iterdir() if aside.is_dir() else ():
        if not (checkpoints / old.name).exists():
            old.rename(checkpoints / old.name)


def find_checkpoint(run_folder: Path) -> Found:
    """The newest whole checkpoint of a run folder, and the damaged ones that are newer."""
    damaged: list[str] = []
    for checkpoint in reversed(list(checkpoints_in(run_folder / CHECKPOINTS))):
        reason = damage(checkpoint)
        if reason is None:
            return Found(checkpoint, damaged)
        damaged.append(f"{checkpoint.path}: {reason}")
    return Found(None, damaged)


def checkpoints_in(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints of a folder in the order of their steps, whole or not."""
    found = [] if not folder.is_dir() else [path for path in folder.iterdir() if path.is_dir()]
    named = [(re.fullmatch(r"checkpoint-(\d{1,18})", path.name), path) for path in found]
    yield from sorted((Checkpoint(path, int(name[1])) for name, path in named if name), key=lambda c: c.step)


def damage(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint, in a few words; None where every file is as it was written."""
    manifest = _manifest(checkpoint.path)
    if isinstance(manifest, str):
        return manifest
    present = {str(path.relative_to(checkpoint.path)): path for path in _files(checkpoint.path)}
    present.pop(MANIFEST)
    expected = manifest["files"]
    if missing := sorted(expected.keys() - present.keys()):
        return f"{missing[0]} is missing"
    if foreign := sorted(present.keys() - expected.keys()):
        return f"{foreign[0]} was not written with it"
    for name, path in present.items():
        if path.is_symlink() or not path.is_file():
            return f"{name} is no regular file"
        try:
            if _fingerprint(path) != expected[name]:
                return f"{name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
    return None


def drop_old(checkpoints: Path, kept: int, step: int) -> None:
    """Drop checkpoints but the newest ``kept`` and, of those before, the one of the highest reward.

    Args:
        checkpoints: the folder that holds them.
        kept: how many stay; at least 1.
        step: of the one just written. Those of later steps were damaged, and passed over when training went on.
    """
    for checkpoint in checkpoints_in(checkpoints):
        if checkpoint.step > step:
            shutil.rmtree(checkpoint.path, ignore_errors=True)
    rewards = {c.path: _reward(c.path) for c in checkpoints_in(checkpoints)}
    known = {path: reward for path, reward in rewards.items() if reward is not None}
    best = max(known, key=lambda path: known[path]) if known else None
    for path in list(rewards)[:-kept]:
        if path != best:
            shutil.rmtree(path, ignore_errors=True)


def _reward(path: Path) -> float | None:
    manifest = _manifest(path)
    return None if isinstance(manifest, str) else manifest["reward"]


def _manifest(path: Path) -> dict[str, Any] | str:
    """The manifest of a checkpoint, or what is wrong with it.

    It has to be letter for letter what `_sealed` writes, so that no byte of it can change unseen.
    """
    file = path / MANIFEST
    if file.is_symlink() or not file.is_file():
        return f"it has no {MANIFEST}, so it was not written to its end"
    try:
        text = file.read_text(encoding="utf-8")
        body = json.loads(text)["body"]
        if _sealed(body) == text and isinstance(body["files"], dict):
            return body
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return f"{MANIFEST} is not what was written"


def _sealed(body: dict[str, Any]) -> str:
    """The text of a manifest: its body, and the hash of the body."""
    canonical = json.dumps(body, sort_keys=True)
    seal = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return json.dumps({"body": body, "sha256": seal}, sort_keys=True, indent=1) + "\n"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _fingerprint(path: Path, flush: bool = False) -> str:
    """The SHA-256 of a file; with ``flush``, of one that is on the disk for good afterwards."""
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
