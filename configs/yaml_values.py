"""YAML as configurations write it, read into plain values; whatever cannot be read is one line that says where."""

import re
from typing import Any

import yaml

from configs.errors import ConfigError

_LARGEST_NUMBER_BITS = 1024
"""The longest whole number, as long as the largest float: Python does not even print one of 5,000 digits."""

_BAD_SCALARS = (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError)
"""What PyYAML's constructors raise at a scalar that is not of its tag (``!!int abc``), which they take for granted."""


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-4 is a number, a date is text, and a key may occur once."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except _BAD_SCALARS:
            kind = node.tag.rpartition(":")[2]
            raise yaml.constructor.ConstructorError(None, None, f"is no {kind}", node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > _LARGEST_NUMBER_BITS:
            raise yaml.constructor.ConstructorError(None, None, "the number is too long", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} occurs twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# No key takes a date, and a run may be called 2024-05-01.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str, subject: str) -> Any:
    """The value in a YAML text.

    Args:
        text: one document.
        subject: how a refusal begins.

    Raises:
        ConfigError: the text is no YAML, or nothing that a configuration could mean.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{subject}{_problem(error)}") from None
    except RecursionError:
        raise ConfigError(f"{subject}brackets or indents are nested too deeply") from None


def _problem(error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"line {mark.line + 1}" if mark else "somewhere"
    return " ".join(f"{where}: {problem or error}".split())
