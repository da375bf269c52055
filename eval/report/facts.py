"""How the figures of a run were made: what stands at the top of its page, and the rest at its end."""

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import yaml

from eval.report.formats import number, percent

SHORT_COMMIT = 10
"""Letters of a commit that are shown: enough to find it in any repository."""


def facts(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts for the top of the page, of what the results say: date, duration, models, seed, code, machine."""
    steps, messages = _at(meta, "config", "train", "steps"), _at(meta, "config", "train", "group_size")
    contexts = _at(meta, "config", "train", "contexts_per_step")
    found = (
        ("Date", _date(meta.get("date"))),
        ("Duration", _duration(meta.get("seconds"))),
        ("Compressor", _compressor(_at(meta, "config", "compressor"))),
        ("Predictor", _model(_at(meta, "config", "predictor"))),
        ("Scorer", _model(_at(meta, "config", "scorer"), "the compressor's base")),
        ("Training", f"{steps} steps of {contexts} contexts with {messages} messages" if steps and contexts else ""),
        ("Adapter", kept_text(meta.get("kept"))),
        ("Seed", _text(_at(meta, "config", "seed"))),
        ("Commit", _commit(meta)),
        ("Machine", _machine(meta.get("machine"))),
        ("Versions", _versions(meta.get("versions"))),
    )
    return [(name, text) for name, text in found if text]


def kept_text(kept: Any) -> str:
    """Which step an adapter is of, where a run has chosen it by held-out figures; empty where it has not."""
    step, steps, by, value = (_at(kept, key) for key in ("step", "steps", "by", "value"))
    if step is None:
        return ""
    return (
        f"step {step} of {steps}, the best by held-out {by} ({percent(value) if by == 'accuracy' else number(value)})"
    )


def kept_step(meta: Mapping[str, Any]) -> int | None:
    """The step whose adapter a run has left, where it has chosen one; else None."""
    step = _at(meta, "kept", "step")
    return step if isinstance(step, int) else None


def configuration(meta: Mapping[str, Any]) -> str:
    """The configuration as YAML; empty where the results hold none."""
    config = meta.get("config")
    if not isinstance(config, Mapping) or not config:
        return ""
    return yaml.safe_dump(json.loads(json.dumps(config)), sort_keys=False, allow_unicode=True, width=100)


def others(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Dotted names and texts of everything but the configuration, in its order."""
    rest = {name: value for name, value in meta.items() if name != "config" or not isinstance(value, Mapping)}
    return list(_flattened(rest))


def _flattened(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """An empty mapping has no entries."""
    if isinstance(value, Mapping) and (value or not name):
        for key, inner in value.items():
            yield from _flattened(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, float):
        yield name, number(value)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _at(value: Any, *keys: str) -> Any:
    """What lies under the keys, None where something else than a mapping is on the way."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _date(value: Any) -> str:
    try:
        return f"{datetime.fromisoformat(value):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError):
        return ""


def _duration(seconds: Any) -> str:
    """The whole, and what took it."""
    if not isinstance(seconds, Mapping):
        return ""
    parts = {name: float(value) for name, value in seconds.items() if isinstance(value, int | float)}
    if not parts:
        return ""
    whole = _time(sum(parts.values()))
    return whole if len(parts) == 1 else f"{whole} ({', '.join(f'{name} {_time(s)}' for name, s in parts.items())})"


def _time(seconds: float) -> str:
    """A duration by its two largest units, such as 3 min 27 s."""
    whole = round(seconds)
    for size, unit, smaller, small in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {small}"
    return f"{whole} s"


def _compressor(config: Any) -> str:
    model, adapter, budget = (_at(config, key) for key in ("model", "adapter", "budget_tokens"))
    if model is None:
        return ""
    adapted = f" with {adapter}" if adapter else ""
    return f"{model}{adapted}" + (f", at most {budget} tokens a message" if budget else "")


def _model(config: Any, default: str = "") -> str:
    if not isinstance(config, Mapping):
        return ""
    served = ", on a server" if config.get("endpoint") else ""
    return f"{config.get('model') or default}{served}"


def _commit(meta: Mapping[str, Any]) -> str:
    commit = meta.get("commit")
    if not isinstance(commit, str):
        return ""
    return f"{commit[:SHORT_COMMIT]}{' and changes that are in no commit' if meta.get('modified') else ''}"


def _machine(machine: Any) -> str:
    cpu, cores, accelerators = (_at(machine, key) for key in ("cpu", "cores", "accelerators"))
    if cpu is None:
        return ""
    processes = _at(machine, "processes")
    used = [*(accelerators or ()), f"{cpu}, {cores} core{'' if cores == 1 else 's'}"]
    return "; ".join(used) + (f"; {processes} processes" if isinstance(processes, int) and processes > 1 else "")


def _versions(versions: Any) -> str:
    if not isinstance(versions, Mapping):
        return ""
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)
