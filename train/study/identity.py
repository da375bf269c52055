"""What the figures of a study's member depend on: resolved configurations, and how two of them differ."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from configs.errors import shown
from configs.servers import PATIENCE
from data.registry import TASKS
from eval.config import EvaluationConfig
from eval.record import SCHEMA_VERSION
from train.config import Config
from train.run_folder import FREE

PLACE: dict[str, Any] = {"name": True, "run_folder": True}
"""Keys that say where a run lies, on which no figure depends."""

OF_TRAINING = {**FREE, **PLACE, "eval": True}
"""Keys that the adapter of a training run does not depend on."""

OF_EVALUATION = {**PLACE, "tracking": True, "predictor": set(PATIENCE)}
"""Keys that the figures of an evaluation do not depend on."""

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
        """Sixteen hexadecimal digits of the keys."""
        return hash_of(self.keys)

    def differences(self, stored: Mapping[str, Any]) -> list[str]:
        """In what stored keys differ from these, each as ``key = value then, value now``."""
        return list(_differences(stored, self.keys, self.given, ""))


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
    for name, config in configs.items():
        if config is None:
            keys[name] = given[name] = None
            continue
        exclude = OF_TRAINING if isinstance(config, Config) else OF_EVALUATION
        keys[name] = config.model_dump(mode="json", exclude=exclude)
        given[name] = config.model_dump(mode="json", exclude=exclude, exclude_defaults=True)
        tasks |= {task.name: TASKS[task.name].version for task in config.tasks}
    versions = {"versions": {"records": SCHEMA_VERSION, "tasks": tasks}}
    return Depends({**keys, **versions}, {**given, **versions})


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
