"""What an adapter was trained with, in the place of keys that a configuration leaves out."""

from collections.abc import Sequence
from typing import Any, TypeVar

from configs.errors import ConfigError, shown
from configs.sections import TaskConfig, WriterConfig
from models.adapter_settings import AdapterSettings, read_settings
from models.naming import ModelError

REMEMBERED = ("budget_tokens", "max_context_tokens", "dtype", "question", "questions_together", "asked_budgets")
"""Keys of a compressor that its adapter remembers."""

Writer = TypeVar("Writer", bound=WriterConfig)


def as_trained(key: str, writer: Writer, adapter: str | None) -> Writer:
    """A compressor with what its adapter was trained with in the place of keys that are left out.

    Args:
        key: the key that names it in the configuration.
        writer: what stands under that key.
        adapter: the adapter's folder; None for a model without one.

    Raises:
        ConfigError: what the adapter was trained with cannot be read, or it is no compressor's.
    """
    settings = _settings(key, adapter)
    if settings is None:
        return writer
    if settings.role != "compressor":
        raise ConfigError(f"{key}.adapter = {shown(adapter)}: makes a {settings.role} of its model, not a compressor")
    trained: dict[str, Any] = settings.model_dump(include=set(REMEMBERED))
    if settings.base.model == writer.model:
        trained["revision"] = settings.base.revision
    left_out = {name: value for name, value in trained.items() if name not in writer.model_fields_set}
    return writer.model_copy(update=left_out)


def told_as_trained(key: str, tasks: Sequence[TaskConfig], adapter: str | None) -> tuple[TaskConfig, ...]:
    """Tasks with the instruction that an adapter was trained with, where their own is left out.

    What the predictor is told stays the task's: the metric needs answers of that form.

    Args:
        key: the key that names the compressor in the configuration.
        tasks: the tasks.
        adapter: the adapter's folder; None for a model without one.

    Raises:
        ConfigError: what the adapter was trained with cannot be read.
    """
    settings = _settings(key, adapter)
    if settings is None:
        return tuple(tasks)
    told = {"instruction": settings.instruction}
    return tuple(task if task.instruction is not None else task.model_copy(update=told) for task in tasks)


def _settings(key: str, adapter: str | None) -> AdapterSettings | None:
    try:
        return None if adapter is None else read_settings(adapter)
    except ModelError as error:
        raise ConfigError(f"{key}.adapter: {error}") from error
