"""A configuration that cannot be run: the error, how a value is shown in it, how several mistakes become one line."""

import json
import reprlib
from collections.abc import Callable
from typing import Any

from data.errors import InputError

MOST_MISTAKES = 20
"""The most mistakes that one line names: more come from a file of another kind, whose first ones tell as much."""

_SHOWN_CHARACTERS = 100
"""Characters of a refused value that a message shows, so that the message stays readable."""

_REPR = reprlib.Repr()
# As much as a message shows, and no more: with aliases, a few lines of YAML make a value of any size.
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother, _REPR.maxlong = 3, 400, 400, 400
_REPR.maxdict = _REPR.maxlist = _REPR.maxtuple = _REPR.maxset = 20


class ConfigError(InputError):
    """A configuration that cannot be run; the message is one line that names the key, its value and what is right.

    Attributes:
        mistakes: a line each; the message numbers them where there are several.
    """

    def __init__(self, *mistakes: str) -> None:
        """At least one mistake."""
        self.mistakes = tuple(" ".join(mistake.split()) for mistake in mistakes)
        super().__init__(_joined(self.mistakes))


def check_all(*checks: Callable[[], object]) -> None:
    """Make checks that do not depend on each other, so that everything wrong is named at once.

    Raises:
        ConfigError: at least one check raised one.
    """
    mistakes: list[str] = []
    for check in checks:
        try:
            check()
        except ConfigError as error:
            mistakes += error.mistakes
    if mistakes:
        raise ConfigError(*dict.fromkeys(mistakes))


def shown(value: Any) -> str:
    """A value as YAML writes it, shortened."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else _REPR.repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _joined(mistakes: tuple[str, ...]) -> str:
    if len(mistakes) < 2:
        return "".join(mistakes)
    named = " ".join(f"({number}) {mistake}" for number, mistake in enumerate(mistakes[:MOST_MISTAKES], start=1))
    further = f" ... and {len(mistakes) - MOST_MISTAKES} more" if len(mistakes) > MOST_MISTAKES else ""
    return f"{len(mistakes)} mistakes: {named}{further}"
