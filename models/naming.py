"""Models and adapters by name, resolved without loading anything: an embedded member, a folder, or an id on the hub.

A configuration is refused by this module before any heavy library is loaded, so it imports the standard library alone.
"""

import os
import re
from pathlib import Path

from data.errors import InputError, did_you_mean

MINIATURE = "miniature/"
"""What the names of embedded models begin with."""

MINIATURE_WEIGHTS = Path(__file__).parent / "miniature" / "weights"
"""The folder that holds a folder for each embedded model."""

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's file that makes a folder an adapter."""

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class ModelError(InputError):
    """A model or an adapter that cannot be loaded or used as asked; the message is one line that names it."""


class NonFiniteError(ModelError):
    """A model whose logits are NaN or infinite, as after a training that diverged."""


def miniature_members() -> list[str]:
    """Names of the embedded models, each loadable as ``miniature/<name>``."""
    return sorted(config.parent.name for config in MINIATURE_WEIGHTS.glob("*/config.json"))


def model_folder(name: str, subject: str | None = None) -> Path | None:
    """The folder of an embedded or local model; None for a model on the hub, of which nothing is asked here.

    Args:
        name: ``miniature/<member>``, a folder, or a hub id, ``owner/name``.
        subject: how a refusal begins; ``model 'name'`` without it.

    Raises:
        ModelError: no such member, or no such folder and not a hub id.
    """
    subject = subject or f"model {name!r}"
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
