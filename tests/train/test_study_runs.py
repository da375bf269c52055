"""A study as a command: what its processes leave, and how it goes on after kills and failures."""

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from configs.tree import PROJECT
from eval.run import main as evaluate
from tests.eval.small_evaluation import small, write_adapter
from tests.train.small_study import configured, messages, plant, written
from train.study.__main__ import main
from train.study.distil import distil
from train.study.figures import read_figures, write_figures
from train.study.members import planned
from train.study.processes import Running, start, stop

pytestmark = pytest.mark.command


def test_figures_are_those_of_the_evaluation(tmp_path: Path) -> None:
    baselines = "baselines=[{name: no-context}, {name: bm25, budgets: [8, 16]}]"
    adapter = write_adapter(tmp_path / "adapter")
    folder = tmp_path / "study" / "evaluate" / "notes" / "warm-start" / "0"
    assert evaluate(small(folder, f"compressor.adapter={adapter}", baselines)) == 0
    config = configured(tmp_path)
    member = next(member for member in planned(config) if member.name == "notes warm-start")
    figures = distil(member)
    results = json.loads((folder / "results.json").read_text())
    own = {"warm-start": results["overall"]["after"], "untrained": results["overall"]["before"]}
    for entry in results["baselines"]:
        budget = entry["budget_tokens"]
        own[entry["name"] if budget is None else f"{entry['name']} {budget}"] = entry
    assert (
        [one.name for one in figures.messages]
        == list(own)
        == [*("warm-start", "untrained", "no-context", "bm25 8", "bm25 16")]
    )
    for one in figures.messages:
        expected = own[one.name]
        assert statistics.fmean(one.tokens) == pytest.approx(expected["message_tokens"]["value"])
        assert statistics.fmean([f1 for f1 in one.accuracy if f1 is not None]) == pytest.approx(
            expected["accuracy"]["value"]
        )
        bits = [value for value in one.bits if value is not None]
        assert max(0.0, statistics.fmean(bits)) == pytest.approx(expected["information_bits"]["value"], abs=1e-5)
    path = tmp_path / "figures.json"
    write_figures(path, figures)
    assert read_figures(path) == figures


def test_a_member_that_fails_is_one_line_and_leaves_the_others_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"warm_start": None, "seeds": [0], "pages": str(tmp_path / "pages")}
    changes["variants"] = {"full": {}, "broken": {"compressor.adapter": "nowhere"}}
    config = configured(tmp_path, **changes)
    for member in planned(config):
        if member.set_name and member.variant != "broken":
            plant(config, member, messages(member.variant, [1.0, 0.0, 0.5, 1.0], [5] * 4))
    for _ in range(2):
        assert main(["--config", str(written(tmp_path, **changes))]) == 1
        lines = capsys.readouterr().out.splitlines()
        [failure] = [line for line in lines if line.startswith("train broken/0 failed: ")]
        assert "compressor.adapter = 'nowhere'" in failure and "; log: " in failure
        assert "notes broken/0 failed: it needs train broken/0" in lines
        assert "2 of 4 members done, 2 failed and are tried again next time" in lines
    results = json.loads((tmp_path / "pages" / "results.json").read_text())
    assert results["notes"]["full"]["0"]["f1"] == 0.625 and results["notes"]["broken"]["0"]["f1"] is None


def study(file: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "train.study", "--config", str(file), *more]


def until(condition: Any, seconds: float = 600) -> None:
    """Wait for what has to happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def script(folder: Path, text: str) -> Running:
    """A started process of its own, instead of a command of the project."""
    file = folder / "script.py"
    file.write_text(text)
    return start(str(file), folder / "recipe.yaml", ["a=1"], folder / "logs" / "script.log", threads=3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("print('error: a = 1: no'); print('more'); raise SystemExit(2)", "a = 1: no"),
        ("print('step 3'); raise ValueError('b')", "exit status 1: ValueError: b"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
    ],
)
def test_a_failure_is_the_refusal_or_the_last_that_was_said(text: str, words: str, tmp_path: Path) -> None:
    before = script(tmp_path, "print('error: of a former start')")
    before.process.wait()
    failed = script(tmp_path, text)
    failed.process.wait()
    assert failed.failure() == words


def test_a_process_is_told_its_threads_and_is_interrupted_once(tmp_path: Path) -> None:
    waiting = """
import os, sys, time
print("threads", os.environ["OMP_NUM_THREADS"], *sys.argv[1:], flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    # As in the background of a shell.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    running = script(tmp_path, waiting)
    signal.signal(signal.SIGINT, before)
    until(lambda: "threads" in running.log.read_text())
    stop([running])
    said = f"threads 3 --config {tmp_path / 'recipe.yaml'} a=1"
    assert running.log.read_text().splitlines() == [said, "interrupted"] and running.process.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)  # ten processes, each of which takes long to start on a busy machine
def test_a_study_that_is_killed_goes_on_and_is_made_again_from_its_figures(tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    file = written(tmp_path, pages=str(pages))
    runs = tmp_path / "study" / "train"
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "2"}
    killed = subprocess.Popen(study(file, "--jobs", "2"), env=environment, cwd=PROJECT, stdout=subprocess.DEVNULL)
    until(lambda: (runs / "full" / "0" / "run.lock").exists())
    warm = (runs / "warm-start" / "results.json").read_bytes()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    done = subprocess.run(study(file, "--jobs", "2"), env=environment, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "study small: 1 of 10 members are done, 9 are left" in done.stdout and "failed" not in done.stdout
    assert "10 of 10 members done\n" in done.stdout and "[9 of 9] " in done.stdout
    assert (runs / "warm-start" / "results.json").read_bytes() == warm
    adapters = {path.read_bytes() for path in runs.glob("*/*/compressor/adapter_model.safetensors")}
    assert len(adapters) == 4
    results = json.loads((pages / "results.json").read_text())["notes"]
    assert set(results) == {"warm-start", "untrained", "bm25 8", "bm25 32", "full", "without-information"}
    assert all(list(found.values())[-1]["n"] == 8 for found in results.values())
    first = {name: (pages / name).read_bytes() for name in ("results.json", "results.md")}
    shutil.rmtree(tmp_path / "study")
    assert main(["--config", str(file), "--table"]) == 0 and main(["--config", str(file)]) == 0
    assert {name: (pages / name).read_bytes() for name in first} == first
    assert not (tmp_path / "study" / "train").exists()
