"""What made a run's results: the versions of the libraries and of this project."""

import subprocess
from importlib import metadata
from typing import TypedDict

import torch

from configs.tree import PROJECT

LIBRARIES = ("transformers", "trl", "peft")
"""Beside torch, the libraries whose versions can change a figure: they hold the models, the update and the adapters."""


class Provenance(TypedDict):
    """The part of ``meta`` in results that says what code made them."""

    versions: dict[str, str | None]
    """The versions of torch, transformers, trl and peft, and of ``shorthand``. None where one is not installed as a
    package, as Shorthand is not where it runs from a checkout alone."""

    commit: str | None
    """The commit of the checkout. None where Shorthand is installed away from one, or git is missing."""


def provenance() -> Provenance:
    """What runs now."""
    packages = {name: _version(name) for name in (*LIBRARIES, "shorthand")}
    return {"versions": {"torch": torch.__version__, **packages}, "commit": _commit()}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    # Without this, a package installed below somebody's repository would get the commit of that repository.
    if not (PROJECT / ".git").exists():
        return None
    command = ["git", "-C", str(PROJECT), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
