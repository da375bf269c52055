"""Names, numbers and dates of a text with their types, found by rules, so that one can be exchanged for another.

What stands for a value everywhere in a text has one key: a number of three digits or more is the same wherever it
stands (``$35,842`` and ``35,842``), a shorter one only with the same unit (``12%`` and ``12 months`` are two values).
"""

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache

from data.sentences import sentences

MONTHS = tuple("January February March April May June July August September October November December".split())
WEEKDAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
UNITS = tuple("two three four five six seven eight nine ten eleven twelve".split())
TEENS = tuple("thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split())
TENS = tuple("twenty thirty forty fifty sixty seventy eighty ninety".split())
CLOSED = (MONTHS, WEEKDAYS, UNITS, TEENS, TENS)
"""Words that are exchanged for each other; ``one`` is left out, which is a pronoun as often."""

SCALES = "hundred|thousand|million|billion|trillion|dozen"
CURRENCIES = "dollars?|euros?|pounds|yen|yuan|USD|EUR|GBP|cents?"

DISTINCTIVE_DIGITS = 3
"""Digits from which on a number means the same wherever it stands in a text."""

EARLIEST_YEAR, LATEST_YEAR = 1400, 2099
"""What four bare digits have to lie between to be read as a year."""

MOST_NAME_WORDS = 5
"""Words of the longest name: more capitals in a row are a heading or a list."""

LONGEST_ACRONYM, LONGEST_PLAIN_ACRONYM = 10, 6
"""Characters of the longest word in capitals that is read as an acronym, with and without digits and hyphens."""

MOST_HEADING_WORDS = 12
"""Words of the longest line without a full stop that is read as a heading, whose capitals are no names."""

_NUMBER = re.compile(
    rf"""
      (?P<skipped>\bhttps?://\S+|\b10\.\d{{4,}}/\S+|\bdoi:?\s?\S+
        |\b(?:table|figure|fig|section|note|chapter|equation|eq|part|step|appendix|item|ref|version)s?\.?\s+\(?\d+(?:\.\d+)*
        |\[\d[\d,;\s–-]*\]|(?<=\w)\(\d\))
    | (?<![\w.-])(?P<date>\d{{4}}-\d\d-\d\d)(?![\w-])
    | (?<![\w.])(?P<clock>\d{{1,2}}:\d\d)(?![\d:])
    | (?<![\w.])(?<!\d,)(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?)
      (?P<suffix>st|nd|rd|th|s)?(?![^\W_])(?![.,]\d)
    | \b(?P<spelled>{"|".join((*UNITS, *TEENS, *TENS))})\b
    | \b(?P<month>{"|".join(MONTHS)})\b
    | \b(?P<weekday>{"|".join(WEEKDAYS)})\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNIT = re.compile(rf"\s?%|\)\s?%|\s?(?:{SCALES})\b(?:\s\w+)?|[-\s]?[^\W\d_]+", re.IGNORECASE)
_PERCENT = re.compile(r"\s?\)?\s?%|\s?per\s?cent\b", re.IGNORECASE)
_MONEY_BEFORE = re.compile(r"(?:[$€£¥₹]|\b(?:USD|EUR|GBP|Rs\.?))\s?\(?$")
_MONEY_AFTER = re.compile(rf"\s(?:(?:{SCALES})\s)?(?:{CURRENCIES})\b", re.IGNORECASE)
_MONTH_NEAR = re.compile(rf"(?:^|\W)({'|'.join(MONTHS)})\W*$", re.IGNORECASE)
_MONTH_NEXT = re.compile(rf"(?:st|nd|rd|th)?\s(?:of\s)?({'|'.join(MONTHS)})\b", re.IGNORECASE)
_OF_A_MONTH = re.compile(r"\W{1,2}\d|\sof\s\d|\sand\b")
_BEFORE_A_MONTH = re.compile(
    r"(?:\d(?:st|nd|rd|th)?|\b(?:in|since|of|until|till|by|early|late|mid|last|next|from|to|during))\W$", re.IGNORECASE
)

_WORD = re.compile(r"[^\W\d_](?:[\w'’]*\w)?(?:[-&/][^\W_](?:[\w'’]*\w)?)*")
_JOINT = re.compile(r"[ ]|[ ](?:of|de|da|del|der|den|van|von|al|bin|la|le)[ ](?:the[ ])?")
_NO_NAMES = frozenset(
    "I A An The This That These Those He She It We They You His Her Its Our Their My Your If In On At Of And Or But As "
    "Yes No Not What When Where Who Which Why How Mr Mrs Ms Dr Table Figure Fig Section Note Chapter Appendix Text "
    "Abstract Methods Results Background Conclusion Conclusions Objective Introduction Also However Please Thanks Wow "
    "Hey Hi Hello OK".split()
)
_PLACE_BEFORE = re.compile(r"\b(?:in|at|near|across|throughout|outside)\s(?:the\s)?$")
_PERSON_BEFORE = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Professor|President|King|Queen|Sir|Saint|St|Lord|Pope|Emperor)\b\.?\s"
    r"|\b(?:Hey|Hi|Hello|Thanks|Thank you|Congrats|Yeah|Wow),?\s)$"
)
_PERSON_AFTER = re.compile(r"\s(?:said|says|told|wrote|argued|thinks|died|was born|et al)\b")
_SPEAKER_AFTER = re.compile(r":\s")
_ORGANISATION = re.compile(
    r"\b(?:Inc|Corp|Ltd|LLC|University|College|Institute|Company|Group|Party|Church|Association|Council|Army|Bank)\b"
)


_PEOPLE = re.compile(r"\w{3,}(?:ese|ian|ish|ean|can)s?")


@dataclass(frozen=True)
class Value:
    """An occurrence of a name, a number or a date.

    Attributes:
        kind: its type: year, day, month, weekday, date, clock, percent, money, count, decimal, ordinal, decade,
            spelled, or a kind of name (acronym, person, people, place, organisation, name).
        key: what all occurrences of the same value have in common.
        text: the characters that are exchanged, without the unit.
        start: the first character.
        end: the one after the last.
    """

    kind: str
    key: str
    text: str
    start: int
    end: int


@lru_cache(maxsize=4096)
def values(text: str) -> tuple[Value, ...]:
    """Every value of a text in its order; each name wherever it occurs, also at the beginning of a sentence."""
    numbers = [value for match in _NUMBER.finditer(text) if (value := _number(text, match)) is not None]
    taken = {at for value in numbers if value.kind in ("month", "weekday") for at in range(value.start, value.end)}
    names = [value for value in _names(text) if value.start not in taken]
    return tuple(sorted(numbers + names, key=lambda value: (value.start, value.end)))


def exchanged(text: str, key: str, new: str, begin: int = 0) -> str:
    """The text with another value in the place of every occurrence of one; a capital stays a capital.

    The last word of a name of several words, where it stands for the whole, is exchanged for the other's last word.
    What stands before the character ``begin`` stays as it is.
    """
    found = [value for value in values(text) if value.key == key and value.start >= begin]
    pieces, at = [], 0
    for value in found:
        pieces += [text[at : value.start], cased(new, value.text)]
        at = value.end
    changed = "".join([*pieces, text[at:]])
    whole, other = (found[0].text.split() if found else []), new.split()
    if len(whole) == len(other) > 1 and found[0].kind in NAMES:
        short, replacement = _key("name", whole[-1]), other[-1]
        if any(value.key == short and value.start >= begin for value in values(text)):
            return exchanged(changed, short, replacement, begin)
    return changed


NAMES = frozenset(["acronym", "person", "people", "place", "organisation", "name"])
"""Kinds of values that are names."""


def _key(kind: str, text: str, unit: str = "") -> str:
    return f"{'name' if kind in NAMES else kind} {text} {unit}".strip()


def cased(new: str, old: str) -> str:
    """A word or phrase that begins with a capital where the old one does: Two, two."""
    return new[:1].upper() + new[1:] if old[:1].isupper() else new


def _number(text: str, match: re.Match[str]) -> Value | None:
    """A number, date or number word; None for what only looks like one, such as the number of a table."""
    group = match.lastgroup
    if group == "suffix":
        group = "digits"
    if group is None or group == "skipped":
        return None
    start, end = match.span(group)
    found, before, after = match[group], text[max(0, start - 20) : start], text[match.end() : match.end() + 40]
    if group in ("clock", "date"):
        return Value(group, _key(group, found), found, start, end)
    if group in ("month", "weekday"):
        certain = found[:1].isupper() and (
            group == "weekday" or bool(_OF_A_MONTH.match(after) or _BEFORE_A_MONTH.search(before))
        )
        return Value(group, _key(group, found), found, start, end) if certain else None
    unit = _UNIT.match(after)
    if group == "spelled":
        return Value(group, _key(group, found.lower(), unit[0].lower() if unit else ""), found, start, end)
    kind, unit_text = _kind(found, match["suffix"] or "", before, after)
    digits = sum(character.isdigit() for character in found)
    if kind in ("count", "decimal", "money", "percent", "year") and digits >= DISTINCTIVE_DIGITS:
        return Value(kind, _key("number", found), found, start, end)
    return Value(kind, _key(kind, found, unit_text or (unit[0].strip().lower() if unit else "")), found, start, end)


def _kind(found: str, suffix: str, before: str, after: str) -> tuple[str, str]:
    """The type of a number in digits, and what tells it from another of the same digits, where the type says so."""
    near = _MONTH_NEAR.search(before) or _MONTH_NEXT.match(suffix + after)
    if near and len(found) <= 2 and 1 <= int(found) <= 31:
        return "day", near[1].lower()
    if suffix == "s":
        return "decade", "s"
    if suffix:
        return "ordinal", suffix
    if _PERCENT.match(after):
        return "percent", "%"
    if _MONEY_BEFORE.search(before) or _MONEY_AFTER.match(after):
        return "money", "$"
    if "." in found:
        return "decimal", ""
    if len(found) == 4 and found.isascii() and EARLIEST_YEAR <= int(found) <= LATEST_YEAR:
        return "year", ""
    return "count", ""


def _names(text: str) -> list[Value]:
    """Every occurrence of the names that a text has inside a sentence; the longest where one is part of another.

    A word that the text has in small letters as well is no name.
    """
    common = {word for word in map(re.Match.group, _WORD.finditer(text)) if word.islower()}
    names = {
        sentence[start:end]
        for sentence in sentences(text)
        if not _heading(sentence)
        for start, end in _capitalised(sentence)
        if sentence[start:end].lower() not in common and not _ORGANISATION.fullmatch(sentence[start:end])
    }
    found = _found(text, names)
    kinds: dict[str, Counter[str]] = {}
    for name, start in found:
        kinds.setdefault(name, Counter()).update(_signs(text, start, start + len(name)))
    return [Value(_name_kind(name, kinds[name]), _key("name", name), name, at, at + len(name)) for name, at in found]


def _found(text: str, names: Collection[str]) -> list[tuple[str, int]]:
    """Where names occur as whole words; of names that begin alike the longest."""
    words = [match.span() for match in _WORD.finditer(text)]
    firsts = {match[0] for name in names if (match := _WORD.match(name))}
    found, end = [], 0
    for number, (start, stop) in enumerate(words):
        if start < end or _unowned(text[start:stop]) not in firsts:
            continue
        stops = [stop for _, stop in words[number : number + MOST_NAME_WORDS]]
        name = next((name for stop in reversed(stops) if (name := _unowned(text[start:stop])) in names), None)
        if name is not None:
            found.append((name, start))
            end = start + len(name)
    return found


def _unowned(word: str) -> str:
    """A word or name without the ending of its owner's: Iqbal's, Iqbal."""
    return word[:-2] if word.endswith(("'s", "’s")) else word


def _capitalised(sentence: str) -> list[tuple[int, int]]:
    """Runs of words with a capital, joined by single spaces or small words, without the sentence's first word."""
    words = [match.span() for match in _WORD.finditer(sentence)]
    runs: list[tuple[int, int, int]] = []
    for number, (start, end) in enumerate(words):
        word = _unowned(sentence[start:end])
        begins = number == 0 or re.search(r"[:•|\"“(]\s*$", sentence[max(0, start - 3) : start]) is not None
        contracted = word[1:2] in ("", "'", "’")
        if not word[:1].isupper() or (begins and not _acronym(word)) or contracted:
            continue
        if word in _NO_NAMES or (word.isupper() and not _acronym(word)):
            continue
        end = start + len(word)
        if runs and _JOINT.fullmatch(sentence, runs[-1][1], start) and number - runs[-1][2] <= 3:
            runs[-1] = (runs[-1][0], end, number)
        else:
            runs.append((start, end, number))
    return [(start, end) for start, end, _ in runs if len(sentence[start:end].split()) <= MOST_NAME_WORDS]


def _acronym(word: str) -> bool:
    longest = LONGEST_ACRONYM if re.search(r"[\d/&-]", word) else LONGEST_PLAIN_ACRONYM
    return 2 <= len(word) <= longest and word.isupper()


def _signs(text: str, start: int, end: int) -> list[str]:
    """What the neighbours of a name say of its type."""
    before, after = text[max(0, start - 24) : start], text[end : end + 12]
    speaks = _SPEAKER_AFTER.match(after) and (not before or before.endswith("\n"))
    person = speaks or _PERSON_BEFORE.search(before) or _PERSON_AFTER.match(after)
    return (["person"] if person else []) + (["place"] if _PLACE_BEFORE.search(before) else [])


def _name_kind(name: str, signs: Counter[str]) -> str:
    """A name's type, from its form and the signs of all its occurrences; name where neither tells."""
    if _acronym(name):
        return "acronym"
    if _ORGANISATION.search(name):
        return "organisation"
    if _PEOPLE.fullmatch(name):
        return "people"
    return max(sorted(signs), key=lambda kind: signs[kind], default="name")


def _heading(sentence: str) -> bool:
    """Whether capitals say nothing in a line, as in a heading or a row of a table."""
    line = sentence.strip()
    return (
        " | " in line
        or (not re.search(r"[.!?:;|,\"”]", line) and len(line.split()) <= MOST_HEADING_WORDS)
        or line.isupper()
    )


def within(found: tuple[Value, ...], start: int, end: int) -> tuple[Value, ...]:
    """The values, sorted as `values` gives them, that begin between two characters."""
    first = bisect_right(found, start - 1, key=lambda value: value.start)
    last = bisect_right(found, end - 1, key=lambda value: value.start)
    return found[first:last]
