"""Folders that are whole or absent, and what a failure to write says."""

import errno
import os
from pathlib import Path

import pytest

from data.errors import os_error
from data.writing import check_new_folder, other_writers, whole_folder, write_text


def refusal(folder: Path) -> str:
    """What is said of a folder that cannot be made; nothing is left beside it."""
    before = sorted(folder.parent.iterdir()) if folder.parent.is_dir() else None
    with pytest.raises(OSError) as caught, whole_folder(folder):
        pytest.fail("there was work to lose")
    assert before == (sorted(folder.parent.iterdir()) if folder.parent.is_dir() else None)
    return os_error(caught.value)


def test_a_folder_that_cannot_be_made_is_refused_before_there_is_work_to_lose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "full" / "of").mkdir(parents=True)
    (tmp_path / "disk").mkdir()
    assert refusal(tmp_path / "file") == f"'{tmp_path}/file': is a file, where a folder is to be made"
    assert refusal(tmp_path / "link") == f"'{tmp_path}/link': is a link, where a folder is to be made"
    assert refusal(tmp_path / "file" / "x" / "y").endswith(f"cannot be made: '{tmp_path}/file' is no folder")
    assert refusal(tmp_path / "full").endswith(os.strerror(errno.ENOTEMPTY))
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk")
    assert "is a mount point, which no folder replaces: name a folder below it" in refusal(tmp_path / "disk")
    check_new_folder(tmp_path / "disk" / "new" / "one")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert refusal(tmp_path / "new").endswith(f"no right to write in '{tmp_path}'")


def test_an_empty_folder_is_replaced_by_the_whole_one(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with whole_folder(tmp_path / "out") as partial:
        write_text(partial / "a.txt", "a")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


def test_a_failure_without_a_number_keeps_its_words(tmp_path: Path) -> None:
    with pytest.raises(OSError) as caught, other_writers(tmp_path / "out"):
        raise OSError("4096 requested and\n0 written")
    assert os_error(caught.value) == f"'{tmp_path}/out': 4096 requested and 0 written"
    assert os_error(OSError("4096 requested and\n0 written")) == "4096 requested and 0 written"
    assert os_error(OSError(None, None)) == "OSError"
