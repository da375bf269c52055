"""What an export needs around it, checked before any work: a place for its folder. Nothing heavy is imported here."""

import os
from pathlib import Path

from data.errors import DataError, os_error
from data.writing import check_new_folder


def output_folder(named: str) -> Path:
    """The folder that a command line names; of a link, and of ``.`` and ``..``, the folder that it leads to."""
    path = Path(named)
    return Path(os.path.realpath(path)) if path.is_symlink() or path.name in ("", "..") else path


def check_output(output: Path) -> None:
    """Refuse a folder that an export could not become.

    Raises:
        DataError: it has files, is a file, a link or a mount point, or cannot be made where it is to be.
    """
    if output.is_dir() and any(output.iterdir()):
        raise DataError(f"{str(output)!r}: there are files already; name another folder (--output), or delete it")
    try:
        check_new_folder(output)
    except OSError as error:
        raise DataError(f"{os_error(error)}; name another folder (--output)") from error
