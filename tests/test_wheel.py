"""The wheel is whole: installed away from the checkout, its commands run and find their recipes."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.test_architecture import FLOORS, PROJECT

pytestmark = pytest.mark.command


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy: what an earlier build left in the checkout must not get into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for package in FLOORS:
        shutil.copytree(PROJECT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*command, str(out), str(source)], check=True, timeout=300)
    return next(out.glob("shorthand-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel and, by a path alone, what the project depends on."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    site = next(folder.glob("lib/python*/site-packages"))
    # A path in a .pth file is searched, but its own .pth files are not read: the checkout's editable install is out.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return folder / "bin" / "python"


def run(python: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [str(python), *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_it_holds_every_recipe_template_and_weight_of_the_checkout(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files", *FLOORS], cwd=PROJECT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in tracked.stdout.split() if (PROJECT / name).exists()} - held == set()


def test_its_commands_run_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    for module in ("train.run", "eval.run", "eval.sweep", "models.compress", "models.serve"):
        help_text = run(installed, tmp_path, "-m", module, "--help")
        assert help_text.returncode == 0, help_text.stderr
        assert "usage" in help_text.stdout


def test_it_finds_its_recipes(installed: Path, tmp_path: Path) -> None:
    refused = run(installed, tmp_path, "-m", "train.run", "--config", "mi_rl.yaml", "train.steps=none")
    assert refused.returncode == 2
    assert "train.steps = 'none'" in refused.stderr
    missing = run(installed, tmp_path, "-m", "eval.run", "--config", "absent.yaml")
    assert "mi_rl.yaml" in missing.stderr
