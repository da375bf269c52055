"""What the figures of a study's member depend on: resolved configurations, and how two of them differ."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from configs.errors import shown
from configs.servers import PATIENCE
from data.registry import TASKS
from eval.config import EvaluationConfig
from eval.record import SCHEMA_VERSION
from models.naming import WEIGHTS_FILE, ModelError, adapter_folder
from train.config import Config
from train.run_folder import FREE

PLACE: dict[str, Any] = {"name": True, "run_folder": True}
"""Keys that say where a run lies, on which no figure depends."""

OF_TRAINING = {**FREE, **PLACE, "eval": True}
"""Keys that the adapter of a training run does not depend on."""

OF_EVALUATION = {**PLACE, "tracking": True, "predictor": set(PATIENCE)}
"""Keys that the figures of an evaluation do not depend on."""

FILES = "files"
"""The key of what is known of adapters and sources that a configuration names: under the same name others may lie."""

MOST_NAMED = 3
"""The most keys that are named where two configurations differ: enough to see what was changed."""


@dataclass(frozen=True)
class Depends:
    """Everything that figures depend on.

    Attributes:
        keys: whole configurations by what they configure, defaults included; plain values.
        given: of these what is not a default. A key that is new since and at its default changes nothing.
    """

    keys: Mapping[str, Any]
    given: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """Sixteen hexadecimal digits of the keys, wherever they are read: files may be there or not."""
        return hash_of(_without_files(self.keys))

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """In what stored keys differ from these, each as ``key = value then, value now``; and files that have changed.

        Of a file that is not there now, or was not looked at then, nothing is said.
        """
        then, now = stored.get(FILES, {}), self.keys.get(FILES, {})
        changed = [f"{path} has changed since" for path in sorted(now) if then.get(path, now[path]) != now[path]]
        return [*_differences(_without_files(stored), _without_files(self.keys), self.given, ""), *changed]


def hash_of(keys: Mapping[str, Any]) -> str:
    """Sixteen hexadecimal digits that go with these keys and no others."""
    return hashlib.sha256(json.dumps(keys, sort_keys=True).encode()).hexdigest()[:16]


def depends_on(**configs: Config | EvaluationConfig | None) -> Depends:
    """What comes of these configurations depends on them, on the tasks' versions and on the records'.

    Args:
        configs: by what they configure; None where there is nothing of the kind.
    """
    keys: dict[str, Any] = {}
    given: dict[str, Any] = {}
    tasks: dict[str, int] = {}
    files: dict[str, str] = {}
    for name, config in configs.items():
        if config is None:
            keys[name] = given[name] = None
            continue
        exclude = OF_TRAINING if isinstance(config, Config) else OF_EVALUATION
        keys[name] = config.model_dump(mode="json", exclude=exclude)
        given[name] = config.model_dump(mode="json", exclude=exclude, exclude_defaults=True)
        tasks |= {task.name: TASKS[task.name].version for task in config.tasks}
        files |= _files(config)
    versions = {"versions": {"records": SCHEMA_VERSION, "tasks": tasks}}
    return Depends({**keys, **versions, FILES: files}, {**given, **versions})


def _files(config: Config | EvaluationConfig) -> dict[str, str]:
    """What tells the adapters and sources of a configuration from others of the same name, of those that are there.

    Weights go by their SHA-256, sources by how many files they have and how large these are together: texts may be far
    too many to read at every start.
    """
    adapters = [config.compressor.adapter, config.predictor.adapter]
    if isinstance(config, EvaluationConfig):
        adapters += [reader.adapter for reader in config.readers]
    found = {adapter: _weights(adapter) for adapter in adapters if adapter is not None}
    found |= {source: _size(source) for task in config.tasks for source in (task.source, task.eval_source) if source}
    return {path: known for path, known in found.items() if known is not None}


def _weights(adapter: str) -> str | None:
    """The beginning of the SHA-256 of an adapter's weights; None where there are none, which the run itself tells."""
    try:
        path = adapter_folder(adapter) / WEIGHTS_FILE
        stat = path.stat()
        return _hash_of_file(str(path), stat.st_mtime_ns, stat.st_size)
    except (ModelError, OSError):
        return None


@lru_cache(maxsize=256)
def _hash_of_file(path: str, changed: int, size: int) -> str:
    """The hash of a file, read once for all members."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _size(source: str) -> str | None:
    """The number of files of a source and their bytes; None where there is none."""
    path = Path(os.path.expanduser(source))
    try:
        return _size_of(path, path.stat().st_mtime_ns)
    except OSError:
        return None


@lru_cache(maxsize=256)
def _size_of(path: Path, changed: int) -> str:
    """The number of files and bytes of a path, counted once for all members."""
    sizes = [file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return f"{len(sizes)} files of {sum(sizes)} bytes"


def _without_files(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if name != FILES}


def told(differences: Sequence[str]) -> str:
    """Differences on one line, the first of them alone where there are many."""
    more = len(differences) - MOST_NAMED
    return "; ".join([*differences[:MOST_NAMED], *([f"and {more} more"] if more > 0 else [])])


def _differences(then: Any, now: Any, given: Any, key: str) -> Iterator[str]:
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in sorted({*then, *now}):
            below = f"{key}.{name}".lstrip(".")
            if name not in now:
                yield f"{below} = {shown(then[name])} then, no such key now"
            elif name in then:
                yield from _differences(then[name], now[name], _part(given, name), below)
            elif _part(given, name) is not None:
                yield f"{below} = {shown(now[name])} now, no such key then"
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        for number, (one, other) in enumerate(zip(then, now, strict=True)):
            yield from _differences(one, other, _part(given, number), f"{key}.{number}")
    elif then != now:
        yield f"{key} = {shown(then)} then, {shown(now)} now"


def _part(tree: Any, name: Any) -> Any:
    """A part of a tree of what is given; None where it is left to its default."""
    if isinstance(tree, Mapping):
        return tree.get(name)
    return tree[name] if isinstance(tree, list) and name < len(tree) else None
