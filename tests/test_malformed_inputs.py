"""Whatever is malformed, a command ends with one line and status 2, soon, and writes nothing outside its run folder."""

import os
import random
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

import pytest

from tests.local_server import serving
from tests.malformed_inputs import MAKERS, Bench, Malformed

SECONDS = 60
"""How long a command may take to refuse an input; on a busy machine, too."""


class TooLongError(BaseException):
    """A command has not ended in time; no ``except Exception`` takes it for the fault of an input."""


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fault(malformed: Malformed, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command did wrong with an input; empty where it refused or used it rightly."""
    capsys.readouterr()
    with serving(malformed.replies) if malformed.replies else nullcontext() as server:
        url = server.url if server else ""
        arguments = [argument.replace("{server}", url) for argument in malformed.arguments]
        try:
            with limited(SECONDS):
                status = malformed.command(arguments)
        except TooLongError:
            return f"does not end within {SECONDS} s"
        except SystemExit as end:
            status = end.code  # argparse's own way of refusing
        except Exception:
            return traceback.format_exc(limit=-6)
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if "error: " in line]
    if status == 0:
        return ""
    if status != 2 or len(errors) != 1 or "Traceback" in said:
        return f"status {status}, {len(errors)} lines of errors:\n{said[-2000:]}"
    return "" if len(errors[0]) < 10_000 else f"an error of {len(errors[0])} characters"


def files(folder: Path) -> set[str]:
    """What lies below a folder, apart from run folders."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if name.partition(os.sep)[0] not in ("run", "runs")}


def faults(seed: int, count: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What commands did wrong with so many inputs of a seed."""
    bench, rng, found = Bench.at(folder), random.Random(seed), []
    for number in range(count):
        malformed = rng.choice(MAKERS)(bench, rng)
        before = files(folder)
        if wrong := fault(malformed, capsys):
            found.append(f"{number}, {malformed.kind}: {[text[:200] for text in malformed.arguments]}\n{wrong}")
        if written := files(folder) - before:
            found.append(f"{number}, {malformed.kind}: {malformed.arguments}\nwrote {sorted(written)}")
    return found


@pytest.fixture
def bench_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, without hub, tracker or a home of somebody's."""
    monkeypatch.chdir(tmp_path)
    home = str(tmp_path_factory.mktemp("home"))
    for name, value in {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "HOME": home}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.command
def test_a_few_malformed_inputs_of_every_kind_are_refused_in_one_line(
    bench_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not (found := faults(0, 30, bench_folder, capsys)), "\n\n".join(found)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_three_hundred_malformed_inputs_are_refused_in_one_line(
    bench_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("SHORTHAND_SEED", "1"))
    found = faults(seed, 300, bench_folder, capsys)
    assert not found, f"seed {seed}, Python {sys.version_info[:2]}, {len(found)} faults\n\n" + "\n\n".join(found)
