"""What made a run's results: when, on which machine, and with which versions of the libraries and of this project."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TypedDict

import torch

from configs.command import world_size
from configs.tree import PROJECT

LIBRARIES = ("transformers", "trl", "peft")
"""Beside torch, the libraries whose versions can change a figure: they hold the models, the update and the adapters."""


class Machine(TypedDict):
    """What the results were computed on."""

    cpu: str
    """The name of the processor."""

    cores: int
    """The cores that this process may use."""

    accelerators: list[str]
    """The names of the GPUs that torch sees."""

    processes: int
    """The processes that shared the work."""


class Provenance(TypedDict):
    """The part of ``meta`` in results that says what code made them, when, and on what."""

    date: str
    """When they were done, in UTC, to the second, as ISO 8601 has it."""

    machine: Machine
    """What they were computed on."""

    versions: dict[str, str | None]
    """The versions of Python, torch, transformers, trl, peft, and of ``shorthand``. None where one is not installed as
    a package, as Shorthand is not where it runs from a checkout alone."""

    commit: str | None
    """The commit of the checkout. None where Shorthand is installed away from one, or git is missing."""

    modified: bool | None
    """Whether the checkout differs from that commit. None where ``commit`` is."""


def provenance() -> Provenance:
    """What runs now."""
    packages = {name: _version(name) for name in (*LIBRARIES, "shorthand")}
    changed = _git("status", "--porcelain", "--untracked-files=no")
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **packages},
        "commit": _git("rev-parse", "HEAD"),
        "modified": None if changed is None else bool(changed),
    }


def _machine() -> Machine:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    accelerators = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": _processor(), "cores": cores, "accelerators": accelerators, "processes": world_size()}


def _processor() -> str:
    """The processor's name; on Linux the ``platform`` module knows its kind alone."""
    described = Path("/proc/cpuinfo")
    if described.is_file() and (name := re.search(r"^model name\s*:\s*(.+)$", described.read_text(), re.MULTILINE)):
        return name[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    # Without this, a package installed below somebody's repository would get the commit of that repository.
    if not (PROJECT / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "-C", str(PROJECT), *arguments], capture_output=True, check=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
