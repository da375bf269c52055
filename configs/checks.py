"""Checks of what a configuration names on the disk: models, adapters and sources, before anything is loaded."""

import os
from collections.abc import Sequence

from configs.errors import ConfigError, shown
from configs.sections import TaskConfig
from data import records
from data.errors import did_you_mean
from models.gguf_header import read_header
from models.model_folder import check_weights, module_paths, read_config
from models.naming import ModelError, adapter_folder, gguf_file, model_folder


def check_sources(tasks: Sequence[TaskConfig]) -> None:
    """Refuse sources that are not on the disk.

    Raises:
        ConfigError: naming each of them.
    """
    sources = [
        (f"tasks.{number}.{key}", source)
        for number, task in enumerate(tasks)
        for key, source in (("source", task.source), ("eval_source", task.eval_source))
    ]
    absent = [
        (key, source) for key, source in sources if any(not os.path.exists(path) for path in records.paths(source))
    ]
    if absent:
        raise ConfigError(*(f"{key} = {shown(source)}: no such file or folder" for key, source in absent))


def check_model(key: str, model: str, tokens: int, named: str) -> None:
    """Refuse a model that is not there, or whose window leaves no room for ``tokens``.

    Args:
        key: the key that names the model.
        model: its name; a model on the hub is not looked at.
        tokens: what it has to read and write together.
        named: the keys and values whose sum ``tokens`` is, for the message.

    Raises:
        ConfigError: naming the key.
    """
    subject = f"{key} = {shown(model)}"
    try:
        window = _window(model, subject)
    except ModelError as error:
        raise ConfigError(str(error)) from None
    if isinstance(window, int) and tokens >= window:
        raise ConfigError(
            f"{named}: {tokens} tokens leave no room in the window of {window} of {key} = {shown(model)}; choose fewer"
        )


def _window(model: str, subject: str) -> object:
    """The window that a model's files give; None where they do not, and for a model on the hub.

    Raises:
        ModelError: no such model, or files that cannot be used.
    """
    if (file := gguf_file(model, subject)) is not None:
        return read_header(file, subject).window
    if (folder := model_folder(model, subject)) is None:
        return None
    window = read_config(folder, subject).get("max_position_embeddings")
    check_weights(folder, subject)
    return window


def check_target_modules(key: str, model: str, names: Sequence[str]) -> None:
    """Refuse names of modules that a model has no weights of, as far as its folder tells.

    Args:
        key: the key that names the modules.
        model: the model's name; one on the hub or in a GGUF file, whose modules have other names, is not looked at.
        names: the last parts of modules' paths.

    Raises:
        ConfigError: naming each of them.
    """
    try:
        folder = model_folder(model)
    except ModelError:
        return  # told by check_model
    if folder is None or not (paths := module_paths(folder)):
        return
    # A head that is tied to the embedding has no weights of its own.
    unknown = [
        name for name in names if name != "lm_head" and not any(f".{path}".endswith(f".{name}") for path in paths)
    ]
    if unknown:
        known = sorted({path.rpartition(".")[2] for path in paths})
        raise ConfigError(
            *(f"{key}: {shown(model)} has no module {shown(name)}{did_you_mean(name, known)}" for name in unknown)
        )


def check_adapter(key: str, adapter: str) -> None:
    """Refuse an adapter that is not there; what it holds is checked when it is loaded.

    Raises:
        ConfigError: naming the key; a run folder is told from the adapter in it.
    """
    try:
        adapter_folder(adapter, f"{key} = {shown(adapter)}")
    except ModelError as error:
        raise ConfigError(str(error)) from None
