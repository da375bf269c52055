"""What an adapter was trained with, in ``shorthand.json`` beside PEFT's files: its prompt, its limits and its base.

PEFT's own files say nothing of these, and under another prompt an adapter writes other messages. Nothing heavy is
imported here, so that a configuration can be read with them.
"""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from data.errors import one_line
from data.writing import write_text
from models.naming import ADAPTER_CONFIG, ModelError, adapter_folder, names_gguf

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

    role: Literal["compressor", "predictor"] = "compressor"
    """Which of the pair the adapter makes of its model."""

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

    question: Literal["shown", "hidden", "several"] = "shown"
    """What the compressor was told: the question, none, or several at once."""

    questions_together: PositiveInt = 4
    """Number of questions that it was told at once, where these were several."""

    asked_budgets: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()
    """Budgets, in tokens, that it was asked for in its prompt and trained to keep to; empty where it was told none."""


FLOAT32_MAX = (2 - 2**-23) * 2.0**127
"""The largest number of float32, in which an adapter's scale is applied: a larger one makes every weight infinite."""


def _in_float32(alpha: float) -> float:
    if abs(alpha) > FLOAT32_MAX:
        raise ValueError(f"{alpha:g} should be a number of float32, which end at {FLOAT32_MAX:.3g}")
    return alpha


Alpha = Annotated[float, AfterValidator(_in_float32)]
"""What a scale is made of: alpha over the rank, or over its square root."""


class LoraFields(BaseModel):
    """The fields of PEFT's configuration that are checked before PEFT reads it.

    PEFT itself replaces a missing rank by one of its own and multiplies by a scaling that is no number.
    """

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    peft_type: Literal["LORA"]
    r: PositiveInt
    rank_pattern: dict[str, PositiveInt] = {}
    lora_alpha: Alpha
    alpha_pattern: dict[str, Alpha] = {}
    target_modules: Any = None
    base_model_name_or_path: str | None = None


def read_lora_fields(folder: str | Path) -> LoraFields:
    """What PEFT's configuration says of an adapter.

    Raises:
        ModelError: no adapter there, or its configuration cannot be read, or is not a LoRA adapter's.
    """
    subject = f"adapter {str(folder)!r}"
    path = adapter_folder(str(folder)) / ADAPTER_CONFIG
    try:
        return LoraFields.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = "".join(f", {key}" for key in first["loc"])
        raise ModelError(f"{subject}: {path.name}{where}: {one_line(first['msg'])}") from error
    except OSError as error:
        raise ModelError(f"{subject}: {path.name} cannot be read: {one_line(error)}") from error


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
