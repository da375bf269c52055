"""Files that are whole or absent: written under another name, flushed to the disk, and renamed in one step.

Logs are appended to instead. A failure names the file that was asked for.
"""

import errno
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file so that a reader finds the former file or the new one, even after a kill at any moment.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; the former file is still there.
    """
    # The process id keeps two writers of one file out of each other's half-written copy.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        # A full disk names no file, and the other failures name the partial one, which nobody has heard of.
        raise _of_file(error, path) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def append_text(path: Path, text: str) -> None:
    """Append to a UTF-8 file, and return once it is on the disk; a kill can leave a part of the text.

    Raises:
        OSError: the file cannot be written, or the disk is full; it names the file.
    """
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _of_file(error, path) from error


def _of_file(error: OSError, path: Path) -> OSError:
    """The same failure, of a file that it names; NumPy's on a full disk has no number and tells it in words alone."""
    return OSError(error.errno, error.strerror or " ".join(str(error).split()), str(path))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON: see `write_text`."""
    write_text(path, json_text(value, indent=1))


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records as JSON lines, one a line: see `write_text`."""
    write_text(path, "".join(json_text(record) + "\n" for record in records))


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON that every reader takes: a number that is not finite, which JSON has not, is null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


WRITE_ERRORS = ("os error", "i/o error", "pytorchstreamwriter", "inline_container", "unexpected pos")
"""How writers that are not Python's say that they could not write, in small letters: Rust's in tokenizers and
safetensors, torch's own."""


@contextmanager
def other_writers(path: Path) -> Iterator[None]:
    """Turn what a library's own writer raises on a full or failing disk into an OSError that names ``path``.

    Raises:
        OSError: something could not be written.
    """
    try:
        yield
    except OSError as error:
        raise _of_file(error, path) from error
    except Exception as error:
        # Tokenizers raise a bare Exception, safetensors its own, torch a RuntimeError: their words alone tell.
        if not any(sign in str(error).lower() for sign in WRITE_ERRORS):
            raise
        raise OSError(errno.EIO, " ".join(str(error).split())[:100], str(path)) from error


def flush_folder(folder: Path) -> None:
    """Return once the names in a folder are on the disk: a rename into it survives a loss of power from here on."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder that `whole_folder` could not make or replace at its end, before there is any work to lose.

    Raises:
        OSError: there is a file or a folder with files in it, a mount point, which nothing replaces, or a file or no
            right to write above it.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        kind = "a link" if folder.is_symlink() else "a file"
        raise OSError(errno.EEXIST, f"is {kind}, where a folder is to be made", str(folder))
    if os.path.ismount(folder):
        raise OSError(errno.EBUSY, "is a mount point, which no folder replaces: name a folder below it", str(folder))
    if folder.is_dir() and any(folder.iterdir()):
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(folder))
    above = next(parent for parent in folder.absolute().parents if os.path.lexists(parent))
    if not above.is_dir():
        raise OSError(errno.ENOTDIR, f"cannot be made: {str(above)!r} is no folder", str(folder))
    if not os.access(above, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, f"cannot be made: no right to write in {str(above)!r}", str(folder))


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write files into, which becomes ``folder`` in one step once all of them are on the disk.

    After an error or a kill at any moment ``folder`` is as it was.

    Raises:
        OSError: ``folder`` cannot be made, see `check_new_folder`, or something could not be written; it names
            ``folder``.
    """
    check_new_folder(folder)
    with other_writers(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Made inside a folder that mkdtemp keeps for this process, so that it has the rights of any other folder.
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
        try:
            partial = beside / folder.name
            partial.mkdir()
            yield partial
            for path in partial.rglob("*"):
                _flush(path)
            flush_folder(partial)
            partial.rename(folder)
            flush_folder(folder.parent)
        finally:
            with suppress(OSError):
                shutil.rmtree(beside)


def _flush(path: Path) -> None:
    """Return once a file, or the names in a folder, are on the disk."""
    if path.is_dir():
        flush_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())
