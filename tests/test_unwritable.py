"""What the machine refuses, a folder, a file, a disk, a service, is one line that names it, and status 2."""

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from configs.command import make_run_folder, status
from configs.tree import ConfigError
from data.errors import os_error
from data.writing import append_text, write_text
from eval.judge.__main__ import main as judge
from eval.report.__main__ import main as report
from eval.rounds.__main__ import main as rounds
from eval.run import main as evaluate
from eval.sweep.__main__ import main as sweep
from eval.synthesise import main as synthesise
from models.compress import main as compress
from train.config import load_config
from train.run import main as train
from train.tracking.metrics import start_wandb

Command = Callable[[Sequence[str]], int]

RECIPES: dict[str, tuple[Command, list[str]]] = {
    "train": (train, ["--config", "mi_rl.yaml", "tracking.wandb=disabled"]),
    "eval.run": (evaluate, ["--config", "evaluation.yaml", "compressor.adapter=null"]),
    "eval.rounds": (rounds, ["--config", "evaluation.yaml", "compressor.adapter=null"]),
    "eval.sweep": (sweep, ["--config", "sweep.yaml"]),
}
"""Every command that writes a run folder, with a command line that would run."""

FULL = "/dev/full"
"""A file of Linux on which every write finds the disk full."""


def refusal(
    command: Command, arguments: Sequence[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> str:
    """The one line that a command ends with, its status being 2."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert command(arguments) == 2
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in said
    return errors[0]


def places(tmp_path: Path) -> dict[str, str]:
    """Places that no run folder can be made at."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "away")
    return {
        "a file": str(tmp_path / "file"),
        "below a file": str(tmp_path / "file" / "runs"),
        "a device": "/dev/null",
        "a kernel's file system": "/proc/x",
        "a read-only one": "/sys/x",
        "a broken link": str(tmp_path / "link"),
        "a loop": str(tmp_path / "loop"),
        "a name too long": str(tmp_path / ("x" * 300)),
        "a character that ends names": f"{tmp_path}/a\\0b",
    }


@pytest.mark.parametrize("command", RECIPES)
def test_a_run_folder_that_cannot_be_written_is_refused_by_its_name(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    main, arguments = RECIPES[command]
    for kind, place in places(tmp_path).items():
        line = refusal(main, [*arguments, f'run_folder="{place}"'], capsys, monkeypatch)
        assert line.startswith("error: run_folder = ") and place[:20] in line, (kind, line)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_run_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigError, match=r"run_folder = .*cannot be written to \(Permission denied\)"):
        make_run_folder(tmp_path / "run")


def test_a_folder_that_can_be_written_is_left_empty(tmp_path: Path) -> None:
    make_run_folder(tmp_path / "runs" / "a")
    assert list((tmp_path / "runs" / "a").iterdir()) == []


def test_further_commands_name_what_they_cannot_read_or_write(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    server = ["--endpoint", "http://127.0.0.1:9/v1", "--model", "m"]
    lines = {
        str(tmp_path / "no"): (judge, ["--labels", str(tmp_path / "no")]),
        "/dev/null": (report, ["/dev/null"]),
        "/proc/x": (synthesise, ["--task", "fineweb", "--out", "/proc/x/set", *server]),
        str(tmp_path / "file"): (compress, ["miniature/qwen2-small", "--document", str(tmp_path), "--question", "q"]),
        "x" * 60: (compress, ["miniature/qwen2-small", "--document", "x" * 300, "--question", "q"]),
    }
    for name, (main, arguments) in lines.items():
        line = refusal(main, arguments, capsys, monkeypatch)
        assert name[:15] in line, line


def test_an_error_of_the_operating_system_names_its_file_or_its_reason_alone() -> None:
    assert os_error(OSError(errno.EACCES, "Permission denied", "/a/b")) == "'/a/b': Permission denied"
    assert os_error(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    assert os_error(ConnectionError("reset\nby peer")) == "reset by peer"


@pytest.mark.parametrize("when", ["load", "work"])
def test_an_error_of_the_operating_system_ends_a_command_as_bad_input_does(
    when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object = None) -> int:
        raise OSError(errno.EROFS, "Read-only file system", "runs/a")

    assert (status(fail, lambda _: 0) if when == "load" else status(lambda: 0, fail)) == 2
    assert capsys.readouterr().err == "error: 'runs/a': Read-only file system\n"


@pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no disk that is always full")
def test_a_full_disk_is_told_with_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").symlink_to(FULL)
    with pytest.raises(OSError, match="No space left on device") as caught:
        append_text(tmp_path / "log.jsonl", "{}\n")
    assert os_error(caught.value) == f"'{tmp_path}/log.jsonl': No space left on device"
    with pytest.raises(OSError, match="No such file or directory") as caught:
        write_text(tmp_path / "no" / "results.json", "{}")
    assert caught.value.filename == str(tmp_path / "no" / "results.json")


@pytest.mark.parametrize(("settings", "reason"), [({"WANDB_MODE": "bogus"}, "bogus"), ({}, "API key")])
def test_a_tracker_that_does_not_start_is_one_line_that_names_the_key(
    settings: dict[str, str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # without an account
    for name in ("WANDB_API_KEY", "WANDB_MODE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    config = load_config("mi_rl.yaml", ["tracking.wandb=online"])
    with pytest.raises(ConfigError, match=f"tracking.wandb = 'online': W&B does not start .*{reason}") as caught:
        start_wandb(config, tmp_path)
    assert "\n" not in str(caught.value) and "tracking.wandb=disabled" in str(caught.value)
