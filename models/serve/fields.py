"""The fields of a request, each of the right type and size or refused by name."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from data.errors import did_you_mean, one_line
from data.reading import shown
from models.serve.refusal import Refusal

Fields = Mapping[str, Any]
"""The body of a request."""


def parse(content: bytes) -> Fields:
    """The JSON object that a body holds.

    Raises:
        Refusal: it is none: broken, not UTF-8, with numbers that JSON does not know, or nested too deeply.
    """
    try:
        body = json.loads(content.decode("utf-8"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise Refusal(f"the body is not UTF-8 text (byte {error.start})", code="invalid_json") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise Refusal(f"the body is no JSON: {error.msg} ({where})", code="invalid_json") from None
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the body cannot be read as JSON ({one_line(error)})", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Refusal(f"the body should be an object, it is {shown(body)}", code="invalid_json")
    return body


def text(fields: Fields, name: str, *, empty: bool = False) -> str | None:
    """A text; None where it is missing or null.

    Raises:
        Refusal: it is none, is blank though ``empty`` does not allow it, or holds half of a character.
    """
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong(name, "text", value)
    check_characters(name, value)
    if not empty and not value.strip():
        raise Refusal(f"{name!r} should not be empty, it is {shown(value)}", param=name, code="invalid_value")
    return value


def check_characters(name: str, value: str) -> None:
    """Refuse a text that no UTF-8 can hold.

    Raises:
        Refusal: it holds half of a character.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise Refusal(
            f"{name!r} holds half of a character (a lone surrogate)", param=name, code="invalid_value"
        ) from None


def whole_number(fields: Fields, name: str, least: int, most: int) -> int | None:
    """A whole number; None where it is missing or null.

    Raises:
        Refusal: it is none, or out of range.
    """
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong(name, "a whole number", value)
    if not least <= value <= most:
        raise Refusal(
            f"{name!r} should be between {least} and {most}, it is {one_line(value, 40)}",
            param=name,
            code="invalid_value",
        )
    return value


def number(fields: Fields, name: str, least: float, most: float) -> float | None:
    """A number; None where it is missing or null.

    Raises:
        Refusal: it is none, or out of range.
    """
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong(name, "a number", value)
    if not (math.isfinite(value) if isinstance(value, float) else True) or not least <= value <= most:
        raise Refusal(
            f"{name!r} should be between {least:g} and {most:g}, it is {one_line(value, 40)}",
            param=name,
            code="invalid_value",
        )
    return float(value)


def truth(fields: Fields, name: str, default: bool) -> bool:
    """True or false.

    Raises:
        Refusal: it is neither.
    """
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, bool):
        raise wrong(name, "true or false", value)
    return value


def check_known(fields: Fields, known: Sequence[str]) -> None:
    """Refuse fields that are not known, with the name that may have been meant.

    Raises:
        Refusal: naming one.
    """
    for name in fields:
        if name not in known:
            check_characters("a field's name", name)
            hint = did_you_mean(name, known) if len(name) < 60 else ""
            raise Refusal(
                f"{one_line(repr(name), 60)}: no such field{hint}",
                param=one_line(name, 60),
                code="unknown_parameter",
            )


def wrong(name: str, expected: str, value: Any) -> Refusal:
    """A refusal of a value of the wrong type."""
    return Refusal(f"{name!r} should be {expected}, it is {shown(value)}", param=name, code="invalid_type")


def _no_number(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
