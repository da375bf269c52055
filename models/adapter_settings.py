"""What an adapter was trained with, in ``shorthand.json`` beside PEFT's files: its prompt, its limits and its base.

PEFT's own files say nothing of these, and under another prompt an adapter writes other messages. Nothing heavy is
imported here, so that a configuration can be read with them.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from data.errors import one_line
from data.writing import write_text
from models.naming import ModelError, names_gguf

SETTINGS_FILE = "shorthand.json"
"""The file's name."""

FORMAT = 1
"""Version of the file's format: raised when an earlier Shorthand would misread a later file."""

DtypeName = Literal["float32", "bfloat16", "float16"]
"""A floating-point type of torch that models are trained in."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


class Base(_Strict):
    """The model that an adapter was trained on."""

    model: str
    """``miniature/<member>``, a hub id, ``package:file.gguf``, or the last part of the path of a folder or file."""

    revision: str | None
    """Commit, tag or branch on the hub; None for a model that is not from there."""

    parameters: dict[DtypeName, str]
    """SHA-256 of its parameters, in the floating-point type of the training and in those with fewer digits."""


class AdapterSettings(_Strict):
    """What is needed to write messages as in training."""

    format: Literal[1]
    """Version of the file's format."""

    version: str | None
    """Version of Shorthand that trained the adapter; None where it is not installed as a package."""

    base: Base
    """The model that the adapter belongs to."""

    dtype: DtypeName
    """Floating-point type of the training."""

    instruction: str
    """Text that follows the question in the compressor's prompt; empty where there is none."""

    answer_instruction: str
    """Text that follows the question in the predictor's prompt; empty where there is none."""

    budget_tokens: PositiveInt
    """Maximum tokens of a message, its end token included."""

    max_context_tokens: PositiveInt | None
    """Maximum tokens of a context; None is what the model's window has room for."""


def write_settings(folder: Path, settings: AdapterSettings) -> None:
    """Write the settings beside an adapter's files.

    Raises:
        OSError: the folder cannot be written.
    """
    write_text(folder / SETTINGS_FILE, settings.model_dump_json(indent=1) + "\n")


def read_settings(folder: str | Path) -> AdapterSettings | None:
    """The settings of an adapter; None where it has none, as those of an earlier Shorthand and of other tools.

    Raises:
        ModelError: the file cannot be read, is damaged, is another program's, or comes from a later Shorthand.
    """
    subject = f"adapter {str(folder)!r}: {SETTINGS_FILE}"
    path = Path(os.path.expanduser(folder)) / SETTINGS_FILE
    if not os.path.exists(path):
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{subject} cannot be read: {one_line(error)}") from error
    try:
        return AdapterSettings.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f", {key}" for key in first["loc"])
        found = f", it is {one_line(first['input'], 40)}" if first["loc"] == ("format",) else ""
        hint = "; with the file deleted the adapter loads, and its prompt and limits have to be given"
        raise ModelError(f"{subject}{where}: {one_line(first['msg'])}{found}{hint}") from error


def portable_name(model: str) -> str:
    """A model's name without a path of this machine: of a folder or a file its last part, all others as they are."""
    folder = Path(os.path.expanduser(model))
    if names_gguf(model) and (":" not in model or os.path.exists(folder)):
        return folder.name
    if os.path.isdir(folder):
        return folder.resolve().name
    return folder.name if model.startswith(("/", "~", ".")) else model
