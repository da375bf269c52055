"""Sentences of a text: where they end, and how many there are."""

import itertools
import re

_SENTENCE_END = re.compile(
    r"""
      \n\s*                                                # a line's end: paragraphs, list items, rows of a table
    | (?<![。！？])[。！？]++[」』”’）]*+\s*                  # full-width marks, which no space follows
    | (?P<mark>(?<![.!?…؟।])[.!?…؟।]++["'”’»)\]]*+)[^\S\n]++(?!\n)  # other marks and a space
    | (?<=\s)(?=[•‣▪◦]\s)                                  # a bullet within a line
    """,
    re.VERBOSE,
)

_LIST_LABEL = re.compile(r"(?:^|\n)[^\S\n]*(?:\d{1,3}|[^\W\d_])$")

_ABBREVIATIONS = frozenset("Dr Mr Mrs Ms Prof St Fig Eq Sec Tab".split())


def sentences(text: str) -> list[str]:
    """A text cut into sentences, list items and lines; joined together they are the text again.

    A mark in front of a lower-case letter ends no sentence. Neither does a full stop after a single capital letter, a
    title or the label of a list item.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if _ends_sentence(text, match)]
    cuts = [0, *(end for end in dict.fromkeys(ends) if end < len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(cuts)]
    # White space at the beginning of a text is no sentence of its own.
    if len(pieces) > 1 and not pieces[0].strip():
        pieces[:2] = ["".join(pieces[:2])]
    return [piece for piece in pieces if piece]


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    if match["mark"] is None:
        return True
    before = text[max(0, match.start() - 12) : match.start()]
    word = re.split(r"[\W\d_]", before)[-1]
    abbreviated = word in _ABBREVIATIONS or (len(word) == 1 and word.isupper()) or _LIST_LABEL.search(before)
    goes_on = text[match.end() : match.end() + 1].islower()
    return not goes_on and not (match["mark"] == "." and abbreviated)


def count_sentences(text: str) -> int:
    """The number of sentences, list items and lines, as `sentences` cuts a text; 0 for one of white space alone."""
    return sum(bool(piece.strip()) for piece in sentences(text))
