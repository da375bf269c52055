"""Other values of the same type and format: for names those of other documents, for numbers also nearby ones."""

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from data.typed_values import CLOSED, NAMES, Value, values

MOST_FROM_POOL = 64
"""Values of other documents that are tried, drawn at random: enough for any number of versions that is asked for."""

MOST_TRIES = 64
"""Numbers that are drawn in search of new ones, before there are taken to be no more."""

FURTHEST_YEARS = 12
"""Years between a date and what it is exchanged for."""

Pools = Mapping[tuple[str, str], Sequence[str]]
"""Values by type and format, sorted, each once."""


def pools_of(texts: Iterable[str]) -> dict[tuple[str, str], list[str]]:
    """The values of texts, by type and format."""
    pools: dict[tuple[str, str], set[str]] = {}
    for text in texts:
        for value in values(text):
            pools.setdefault((value.kind, form(value)), set()).add(value.text)
    return {key: sorted(texts) for key, texts in sorted(pools.items())}


def form(value: Value) -> str:
    """What values that can stand for each other have in common beside their type: digits and separators, or words."""
    if value.kind in NAMES:
        # Of genes, viruses and codes none is named as a person or a place is.
        coded = any(character.isdigit() for character in value.text) or re.search(r"[^\W\d_A-Z][A-Z]", value.text)
        return f"{min(len(value.text.split()), 3)} words{', coded' if coded else ''}"
    return re.sub(r"\d", "0", value.text)


def others(value: Value, text: str, pools: Pools, generator: random.Random) -> Iterator[str]:
    """Values that can stand in the place of one, each once, none of which the text has.

    Args:
        value: what is exchanged.
        text: where it is exchanged.
        pools: the values of documents of the task.
        generator: draws the order.
    """
    given = {value.text.lower()}
    present = {other.text.lower() for other in values(text) if other.kind == value.kind}
    candidates = _closed(value, generator) or (*_pooled(value, pools, generator), *_computed(value, generator))
    for candidate in candidates:
        lowered = candidate.lower()
        known = lowered in present or (value.kind in NAMES and candidate in text)
        if lowered not in given and not known:
            given.add(lowered)
            yield candidate


def _closed(value: Value, generator: random.Random) -> list[str]:
    """The other words of a closed class, such as months."""
    for words in CLOSED:
        if value.text.lower() in [word.lower() for word in words]:
            return generator.sample(words, len(words))
    return []


def _pooled(value: Value, pools: Pools, generator: random.Random) -> list[str]:
    pool = [text for text in pools.get((value.kind, form(value)), ()) if _near(value, text)]
    return generator.sample(pool, min(len(pool), MOST_FROM_POOL))


def _near(value: Value, text: str) -> bool:
    """Whether a value of another document is plausible in this place: a number of the same order, another name."""
    if value.kind in NAMES:
        return not set(text.split()) & set(value.text.split())
    if value.kind in ("clock", "date"):
        return True
    own, other = (float(number.replace(",", "")) for number in (value.text, text))
    if value.kind in ("year", "decade"):
        return abs(own - other) <= FURTHEST_YEARS
    return own / 2 <= other <= own * 2 and (own > 100 or other <= 100)


def _computed(value: Value, generator: random.Random) -> Iterator[str]:
    """Numbers of the same digits, decimals and separators, between half and twice the value; round ones stay round."""
    if value.kind in (*NAMES, "date") or not value.text.isascii():
        return
    if value.kind == "clock":
        for _ in range(MOST_TRIES):
            yield f"{generator.randint(1, 12)}:{generator.randrange(0, 60, 5):02d}"
        return
    digits = re.sub(r"\D", "", value.text)
    own, width = int(digits), len(digits)
    rounded = own and "." not in value.text and value.kind not in ("year", "day")
    step = 10 ** (len(digits) - len(digits.rstrip("0"))) if rounded else 1
    low, high = _bounds(value, own, width)
    for _ in range(MOST_TRIES):
        number = generator.randint(-(-low // step), max(high // step, -(-low // step))) * step
        if number != own and low <= number <= high:
            yield _as_written(f"{number:0{width}d}", value.text)


def _bounds(value: Value, own: int, width: int) -> tuple[int, int]:
    """The least and the largest number, its decimal point left out, that can stand for one of so many digits."""
    if value.kind == "day":
        return 1 if width == 1 else 10, 9 if width == 1 else 28
    if value.kind in ("year", "decade"):
        return own - FURTHEST_YEARS, own + FURTHEST_YEARS
    whole_digits = len(re.split(r"\.", value.text)[0].replace(",", ""))
    smallest = 10 ** (width - 1) if whole_digits > 1 and value.text[0] != "0" else 1
    low, high = max(smallest, own // 2), min(10**width - 1, max(2 * own, own + 4))
    if value.kind == "percent":
        hundred = 10 ** (width - whole_digits) * 100
        high = min(high, hundred) if own <= hundred else high
    if value.kind == "ordinal" and own <= 21:
        high = min(high, 21)
    return low, high


def _as_written(digits: str, like: str) -> str:
    """Digits with the separators of another number, which has as many."""
    remaining = iter(digits)
    return "".join(next(remaining) if character.isdigit() else character for character in like)
