"""Commands answer before anything heavy is imported, and run the checkout that they lie in."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from configs.tree import PROJECT

pytestmark = pytest.mark.command

HEAVY = {"torch", "transformers", "trl", "peft", "accelerate", "datasets", "numpy", "scipy", "pyarrow", "httpx2"}
"""Packages that take from half a second to several to import."""

COMMANDS = {
    "train/run.py": ["train/run.py"],
    "eval/run.py": ["eval/run.py"],
    "train.run": ["-m", "train.run"],
    "eval.run": ["-m", "eval.run"],
    "eval.sweep": ["-m", "eval.sweep"],
    "eval.rounds": ["-m", "eval.rounds"],
    "eval.judge": ["-m", "eval.judge"],
    "eval.report": ["-m", "eval.report"],
    "eval.synthesise": ["-m", "eval.synthesise"],
    "models.compress": ["-m", "models.compress"],
    "models.serve": ["-m", "models.serve"],
    "train.benchmark": ["-m", "train.benchmark"],
    "train.study": ["-m", "train.study"],
}

REFUSALS = [
    ("train/run.py", ["--config", "mi_rl.yaml", "train.stepz=3"], "train.stepz: unknown key"),
    ("train/run.py", ["--config", "mi_rl.yaml", "predictor.model=miniature/none"], "no such embedded model"),
    ("eval/run.py", ["--config", "evaluation.yaml", "compressor.adapter=nowhere"], "compressor.adapter = 'nowhere'"),
    ("eval.run", ["--config", "evaluation.yaml", "eval.documentz=3"], "eval.documentz: unknown key"),
    ("eval.sweep", ["--config", "sweep.yaml", "seedz=[0]"], "seedz: unknown key"),
    ("train.study", ["--config", "study.yaml", "variants.full.train.stepz=1"], "variants.full"),
    ("train.study", ["--config", "study.yaml", "--jobs", "0"], "--jobs 0"),
    ("eval.rounds", ["--config", "evaluation.yaml", "--rounds", "0"], "--rounds 0"),
    ("eval.rounds", ["--config", "no-such.yaml"], "config 'no-such.yaml': no such file"),
    ("eval.judge", ["--labels", "labels.jsonl", "--model", "judge"], "--endpoint and --model go together"),
    ("models.compress", ["miniature/none", "--document", "x", "--question", "Which?"], "no such embedded model"),
    ("models.serve", ["--adapter", "miniature/none"], "no such embedded model"),
    ("models.serve", ["--adapter", "miniature/qwen2-small", "--key", "short"], "a key should have at least 8"),
    ("models.compress", ["a/b", "--document", "no-such.txt", "--question", "Which?"], "document 'no-such.txt'"),
]


def start(command: str, *arguments: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """A finished command, and the top-level packages that it imported."""
    process = [sys.executable, "-X", "importtime", *COMMANDS[command], *arguments]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(process, cwd=PROJECT, env=environment, capture_output=True, text=True)
    modules = re.findall(r"^import time:.*\| +(\S+)$", done.stderr, flags=re.MULTILINE)
    return done, {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_nothing_heavy(command: str) -> None:
    done, packages = start(command, "--help")
    assert done.returncode == 0 and "usage: " in done.stdout
    assert packages & HEAVY == set()


@pytest.mark.parametrize(("command", "arguments", "reason"), REFUSALS)
def test_bad_input_is_refused_before_anything_heavy_is_imported(
    command: str, arguments: list[str], reason: str
) -> None:
    done, packages = start(command, *arguments)
    assert done.returncode == 2 and reason in done.stderr
    assert packages & HEAVY == set()


@pytest.mark.parametrize("command", ["train/run.py", "eval/run.py"])
def test_a_command_run_as_a_file_takes_the_packages_of_its_own_checkout(command: str, tmp_path: Path) -> None:
    (tmp_path / command).parent.mkdir()
    shutil.copy(PROJECT / command, tmp_path / command)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "__init__.py").write_text("raise SystemExit('the other checkout')\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, str(tmp_path / command), "--help"], cwd="/", env=environment, capture_output=True, text=True
    )
    assert done.stderr == "the other checkout\n"
