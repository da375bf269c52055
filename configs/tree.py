"""How a configuration is read: a frozen, typed tree from YAML and dotted overrides, checked at load.

A mistake is one `ConfigError` line that names the key, its value and what would be right, before any model is loaded.
Which sections a recipe consists of is declared elsewhere: see `configs.sections`.
"""

import difflib
import json
import os
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from configs.errors import ConfigError, shown
from configs.yaml_values import read_yaml
from data.errors import did_you_mean, one_line

CONFIGS = Path(__file__).resolve().parent
"""The folder of the recipes."""

PROJECT = CONFIGS.parent
"""The checkout, or where the packages are installed."""

_EXPECTATIONS = {
    "model_type": "should be a section with keys of its own",
    "tuple_type": "should be a list",
    "too_short": "should have at least one item",
    "string_pattern_mismatch": "should be letters, digits, '.', '_' and '-' alone, a letter or digit first",
    "invalid_key": "should be a word",
}
"""What would be right, by pydantic's type of error, where its own words speak of Python's types."""


class Section(BaseModel):
    """A part of the tree: immutable, without room for unknown keys, and strict about types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


Root = TypeVar("Root", bound=Section)


def load(root: type[Root], path: str, overrides: Sequence[str] = ()) -> Root:
    """The configuration in a YAML file, changed by overrides, and checked as far as the file itself tells.

    Args:
        root: the type of the whole tree.
        path: a file as given, else a file of that name in the project's ``configs`` folder.
        overrides: ``dotted.key=value`` each; the value is read as YAML and list items go by number
            (``tasks.0.source=papers.json``).

    Raises:
        ConfigError: the file, a key, a value or a combination of values is wrong.
    """
    file = find_config(path)
    return parse(root, {"name": file.stem, **_read_file(file)}, overrides)


def parse(root: type[Root], tree: dict[str, Any], overrides: Sequence[str] = ()) -> Root:
    """The configuration in a tree of plain values, changed by overrides, and checked as `load` does.

    Args:
        root: the type of the whole tree.
        tree: sections as dicts; the overrides are written into it.
        overrides: ``dotted.key=value`` each.

    Raises:
        ConfigError: a key, a value or a combination of values is wrong.
    """
    for override in overrides:
        _apply(override, tree)
    try:
        return root.model_validate(tree)
    except ValidationError as error:
        raise refusal(error, root) from None


def refusal(error: ValidationError, root: type[Section]) -> ConfigError:
    """What pydantic refuses in a tree of a type, in the words of its keys."""
    return ConfigError(*_mistakes(error.errors(include_url=False), root))


def find_config(path: str) -> Path:
    """The file that a ``--config`` argument names.

    Raises:
        ConfigError: neither the path nor ``configs/`` has it.
    """
    for file in (Path(path), CONFIGS / path):
        if os.path.isfile(file):  # pathlib raises at names that no disk takes
            return file
    names = sorted(file.name for file in CONFIGS.glob("*.yaml"))
    raise ConfigError(f"config {shown(path)}: no such file here or in configs/, which has {', '.join(names) or 'none'}")


def to_yaml(config: Section) -> str:
    """The whole tree as YAML; `load` reads the same configuration back from it."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe(root: type[Section], first: Sequence[str] = (), width: int = 100) -> str:
    """Every key with its type and its default, and what it means on the lines below; by section, each under a heading.

    Args:
        root: the type of the whole tree.
        first: names of the sections that come first; the keys of the root itself follow, then the other sections.
        width: columns of a line.
    """
    groups: dict[str, list[str]] = {name: [] for name in (*first, "")}
    for key, annotation, default, meaning in _leaves(root):
        lines = groups.setdefault(key.partition(".")[0] if "." in key else "", [])
        lines += textwrap.wrap(f"{key}: {_type_name(annotation)} {default}", width, subsequent_indent=" " * 8)
        lines += textwrap.wrap(meaning, width, initial_indent=" " * 4, subsequent_indent=" " * 4)
    parts = ("\n".join([_heading(root, name, width), *lines]) for name, lines in groups.items() if lines)
    return "\n\n".join(parts)


def _heading(root: type[Section], name: str, width: int) -> str:
    """A heading for the keys of a section, or of the root itself."""
    meaning = root.model_fields[name].description if name else "What the run is called, and what it starts from."
    title = f"--- {name or 'the run'}: {' '.join((meaning or '').replace('``', chr(39)).split())}"
    return "\n".join(textwrap.wrap(title, width, subsequent_indent=" " * 4))


def _read_file(file: Path) -> dict[str, Any]:
    subject = f"config {shown(str(file))}"
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{subject} cannot be read: {one_line(error)}") from None
    tree = read_yaml(text, f"{subject}, ")
    if not isinstance(tree, dict):
        raise ConfigError(f"{subject} should hold keys and values, it holds {shown(tree)}")
    return tree


def _apply(override: str, tree: dict[str, Any]) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {shown(override)} should be key=value, such as train.steps=10")
    value = read_yaml(text, f"override {shown(override)}, value is not YAML: ")
    *parents, last = key.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        node = _child(node, part, ".".join(parents[: depth + 1]))
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    else:
        node[last] = value


def _child(node: Any, part: str, key: str) -> Any:
    """The section at ``part`` of ``node``, made where it is absent; a bare task name becomes a section."""
    if isinstance(node, list):
        index = _index(node, part, key)
        child = node[index]
        if isinstance(child, str):
            child = node[index] = {"name": child}
    else:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
    if not isinstance(child, dict | list):
        raise ConfigError(f"{one_line(key)} = {shown(child)}: has no keys below it")
    return child


def _index(items: list[Any], part: str, key: str) -> int:
    # Compared as text: of thousands of digits Python makes no number.
    if part not in map(str, range(len(items))):
        numbers = f"the number of an item, from 0 to {len(items) - 1}" if items else "left out, for the list is empty"
        raise ConfigError(f"{one_line(key)}: {shown(part)} should be {numbers}")
    return int(part)


def _mistakes(errors: list[ErrorDetails], root: type[Section]) -> Iterator[str]:
    """Each wrong key on one line, once; unknown keys first, as they cause the others."""
    told: set[str] = set()
    listed: set[str] = set()
    for error in sorted(errors, key=lambda error: error["type"] != "extra_forbidden"):
        key = _key(error["loc"], root)
        # A list whose item is wrong is itself reported as wrong: what contains a mistake is not another one.
        if not any(f"{earlier}.".startswith(f"{key}.") for earlier in told):
            told.add(key)
            yield from _describe_error(error, root, listed)


def _describe_error(error: ErrorDetails, root: type[Section], listed: set[str]) -> Sequence[str]:
    """The mistakes of an error; ``listed`` are the sections whose keys a mistake before has told, and is added to."""
    key = _key(error["loc"], root)
    if error["type"] == "extra_forbidden":
        return [f"{one_line(key, 100)}: unknown key{_nearest_key(key, root, listed)}"]
    if error["type"] == "missing":
        return [f"{key}: is missing{_meaning(key, root)}"]
    if error["type"] == "value_error" and isinstance(cause := error.get("ctx", {}).get("error"), ConfigError):
        return cause.mistakes  # of keys together, which they name themselves
    if error["type"] == "value_error" and not key:
        return [error["msg"].removeprefix("Value error, ")]
    return [f"{key} = {shown(error['input'])}: {_expectation(error)}"]


def _expectation(error: ErrorDetails) -> str:
    if error["type"] in _EXPECTATIONS:
        return _EXPECTATIONS[error["type"]]
    text = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    expected = re.findall(r"'([^']*)'", error.get("ctx", {}).get("expected", ""))
    return text + (did_you_mean(error["input"], expected) if isinstance(error["input"], str) else "")


def _key(location: tuple[int | str, ...], root: type[Section]) -> str:
    """The dotted key an error stands at, without the parts that name the members of a union type."""
    parts: list[str] = []
    section: Any = root
    for part in location:
        if isinstance(part, str) and section is None:
            break
        parts.append(str(part))
        if isinstance(part, str):
            field = section.model_fields.get(part)
            section = _section_of(field.annotation) if field else None
    return ".".join(parts)


def _section_of(annotation: Any) -> type[Section] | None:
    """The section type an annotation holds: itself, or the items of its list."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((section for part in typing.get_args(annotation) if (section := _section_of(part))), None)


def _is_list(annotation: Any) -> bool:
    """Whether an annotation holds its section as the items of a list, and not as itself or null."""
    return typing.get_origin(annotation) is tuple or any(map(_is_list, typing.get_args(annotation)))


def _leaves(section: type[Section], prefix: str = "") -> Iterator[tuple[str, Any, str, str]]:
    """Key, type, default and meaning of every value of the tree; N stands for the number of a list's item."""
    for name, field in section.model_fields.items():
        subsection = _section_of(field.annotation)
        if subsection is not None:
            item = ".N" if _is_list(field.annotation) else ""
            if prefix and not item and field.get_default() is None:
                yield prefix + name, field.annotation, "= null", _words(field.description)
            yield from _leaves(subsection, f"{prefix}{name}{item}.")
            continue
        default = (
            "(required)" if field.is_required() else f"= {json.dumps(field.get_default(call_default_factory=True))}"
        )
        yield prefix + name, field.annotation, default, _words(field.description)


def _words(description: str | None) -> str:
    """A docstring on one line."""
    return " ".join((description or "").replace("``", "'").split())


def _type_name(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " | ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type_name(argument) for argument in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"section of {_type_name(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "section"
    return "null" if annotation is type(None) else annotation.__name__


def _meaning(key: str, root: type[Section]) -> str:
    pattern = re.sub(r"\.\d+", ".N", key)
    texts: Mapping[str, str] = {name: text for name, _, _, text in _leaves(root)}
    return f" ({texts[pattern].rstrip('.')})" if pattern in texts else ""


def _nearest_key(key: str, root: type[Section], listed: set[str]) -> str:
    """The key that was probably meant: a similar name in the same section, else the same name in another section.

    Else all keys of the section, once for all mistakes of a configuration.
    """
    pattern = re.sub(r"\.\d+", ".N", key)
    section, _, name = pattern.rpartition(".")
    keys = {".".join(leaf.split(".")[:depth]) for leaf, *_ in _leaves(root) for depth in range(1, 5)}
    siblings = {known.rpartition(".")[2]: known for known in keys if known.rpartition(".")[0] == section}
    if close := difflib.get_close_matches(name, siblings, n=1):
        return f"; did you mean {key[: len(key) - len(name)]}{close[0]}?"
    namesakes = sorted(known for known in keys if known.rpartition(".")[2] == name)
    if namesakes:
        return f"; did you mean {namesakes[0]}?"
    if section in listed:
        return ""
    listed.add(section)
    return f"; {section or 'the configuration'} has {', '.join(sorted(set(siblings) - {'N'}))}"
