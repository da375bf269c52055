"""A model's folder, looked at before anything is loaded from it: its configuration, and in what form its weights are.

Weights are read from safetensors alone. Other files of weights are pickles, which are code, or another program's. The
standard library is all that is imported, so that a configuration can be refused before any heavy library is loaded.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data.errors import one_line
from models.naming import GGUF, ModelError

CONFIG = "config.json"

MOST_LAYERS = 10_000
"""The most layers, or heads or experts of a layer, that a model is built with; a model of a billion is never built."""

LARGEST_SIZE = 1_000_000_000
"""The largest width, vocabulary or number of positions; the largest models have millions."""

LARGEST_HEADER = 100_000_000
"""The longest header of a safetensors file, bytes: what the format allows."""

FOREIGN = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack", ".ggml", ".onnx")
"""What the names of weights end with that are not read."""


def read_config(folder: Path, subject: str) -> dict[str, Any]:
    """The fields of ``config.json``.

    Args:
        folder: the model's.
        subject: how a refusal begins.

    Raises:
        ModelError: the file is missing, no JSON, no object, or gives sizes that no model has.
    """
    try:
        fields = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{subject}: the folder has no {CONFIG}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{subject}: the folder has no readable {CONFIG} ({one_line(error)})") from None
    if not isinstance(fields, dict):
        raise ModelError(f"{subject}: {CONFIG} should hold an object, it holds {one_line(json.dumps(fields), 40)}")
    for key, number in _numbers(fields):
        if number > (MOST_LAYERS if "num_" in key or "layers" in key else LARGEST_SIZE):
            raise ModelError(f"{subject}: {CONFIG}, {key} = {one_line(number, 40)}: no model is so large")
    return fields


def check_weights(folder: Path, subject: str) -> None:
    """Refuse a folder whose weights are in no form that is read.

    Args:
        folder: the model's.
        subject: how a refusal begins.

    Raises:
        ModelError: there are no weights, or they are pickles, another program's, or a GGUF file, which is named itself.
    """
    names = sorted(os.listdir(folder))
    if any(name.endswith((".safetensors", ".safetensors.index.json")) for name in names):
        return
    if files := [name for name in names if name.lower().endswith(GGUF)]:
        raise ModelError(
            f"{subject}: the folder has no weights but {files[0]!r}; name that file itself, {str(folder / files[0])!r}"
        )
    foreign = [name for name in names if name.lower().endswith(FOREIGN)]
    if foreign:
        raise ModelError(
            f"{subject}: its weights are in {foreign[0]!r}, which is not read, as such files may hold code or are "
            "another program's; convert them to safetensors"
        )
    raise ModelError(f"{subject}: the folder has no weights (model.safetensors)")


def module_paths(folder: Path) -> set[str]:
    """The modules that a folder has weights of, by their dotted paths; empty where its files cannot be read.

    Whatever is wrong with the files is told when they are loaded.
    """
    paths: set[str] = set()
    for file in folder.glob("*.safetensors"):
        try:
            with file.open("rb") as stream:
                header = json.loads(stream.read(min(int.from_bytes(stream.read(8), "little"), LARGEST_HEADER)))
            paths |= {name.rpartition(".")[0] for name in header if name != "__metadata__"}
        except (OSError, ValueError, RecursionError, TypeError):
            return set()
    return paths


def _numbers(fields: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, int]]:
    """The sizes and counts of a configuration and of its parts, by their keys."""
    for key, value in fields.items():
        if isinstance(value, dict) and depth < 3:
            yield from _numbers(value, depth + 1)
        elif isinstance(value, int) and any(word in key for word in ("num_", "layers", "size", "dim", "position")):
            yield key, value
