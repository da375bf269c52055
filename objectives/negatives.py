"""The contexts each message is scored under: its own, and negatives of the kinds and numbers asked for.

The choice is a pure function of the seed and the strings: the same sample gets the same negatives wherever it stands in
the batch and however many processes share it.
"""

import dataclasses
import hashlib
import random
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

RUN_SHARE = 0.25
"""The share of a text that a random part is meant to be: large enough to take facts along, small enough that the rest
still reads like the document."""

SMALLEST_RUN_SHARE = 0.125
"""The least share of a text that a random part may be: half of the share it is meant to be, since pieces are whole."""

LARGEST_SHARE = 0.5
"""The largest share of a text that goes in whole paragraphs or sentences; where more would go, pieces get finer."""

_PARAGRAPH = re.compile(r".+?(?:\n\s*|\Z)", re.DOTALL)
_SENTENCE = re.compile(r".+?(?:[.!?][\"')\]]*\s+|\n\s*|\Z)", re.DOTALL)
_WORD = re.compile(r"\s*\S+\s*")

Span = tuple[int, int]
"""The first character of a passage, and the one after its last."""


@dataclass(frozen=True)
class Columns:
    """The columns of a log-prob matrix.

    Attributes:
        contexts: every context to read, each once.
        own: the column of each sample's own context.
        valid: the columns each sample's messages are compared over: its own and its negatives.
    """

    contexts: tuple[str, ...]
    own: Int[Tensor, " samples"]
    valid: Bool[Tensor, "samples contexts"]


@dataclass(frozen=True)
class NegativeCounts:
    """How many negatives of each kind a message is compared with, where that many exist.

    Attributes:
        counterfactual: the same document with only the answer-bearing facts changed, as its task made it.
        same_document: the same document with a part removed.
        neighbour: other documents of the same patient, company, paper or user.
        batch: other documents.
        twins: the same document with what the question's answer rests on removed, replaced or changed in a value.

    Raises:
        ValueError: a count is negative.
    """

    counterfactual: int = 0
    same_document: int = 0
    neighbour: int = 0
    batch: int = 0
    twins: int = 0

    def __post_init__(self) -> None:
        """Refuse negative counts."""
        if negative := {name: count for name, count in dataclasses.asdict(self).items() if count < 0}:
            raise ValueError(f"numbers of negatives must not be negative, got {negative}")


@dataclass(frozen=True)
class Candidates:
    """The contexts that the negatives of one sample are drawn from, by kind (see `NegativeCounts`).

    ``own`` is the sample's own context.
    """

    own: str
    counterfactual: Sequence[str] = ()
    same_document: Sequence[str] = ()
    neighbour: Sequence[str] = ()
    batch: Sequence[str] = ()
    twins: Sequence[str] = ()


def choose_columns(candidates: Sequence[Candidates], counts: NegativeCounts, seed: int) -> Columns:
    """Draw each sample's negatives, at most as many of each kind as ``counts`` says, and number the columns.

    Equal strings are one context, so pass contexts as the scorer will read them, truncation included. A context equal
    to a sample's own is never its negative, and a context drawn as one kind is not drawn as another. A sample with
    fewer candidates than asked for has fewer columns: the rows of ``valid`` say how many.

    Args:
        candidates: one entry a sample.
        counts: how many of each kind.
        seed: changes the choice; the same seed and strings give the same choice.

    Raises:
        ValueError: a sample is left without any negative.
    """
    negatives_of_samples = [_negatives(sample, counts, seed) for sample in candidates]
    for number, negatives in enumerate(negatives_of_samples):
        if not negatives:
            raise ValueError(
                f"sample {number} has no negative context ({counts}): it needs a candidate that differs from its own"
            )
    return _as_columns([sample.own for sample in candidates], negatives_of_samples)


def parts_removed(context: str, evidence: Sequence[str], count: int, seed: int) -> list[str]:
    """Up to ``count`` versions of a context with a part removed: the answer-bearing one first, then random ones.

    Args:
        context: the own context.
        evidence: passages the answer rests on.
        count: how many versions to make; equal ones count once, so there may be fewer, and none of a text too short.
        seed: changes the random parts.
    """
    key = hashlib.sha256(context.encode("utf-8", "surrogatepass")).hexdigest()
    generator = random.Random(f"{seed}/{key}")
    removed: dict[str, None] = {}
    for number in range(count):
        with suppress(ValueError):  # nothing would be left
            removed[part_removed(context, evidence if number == 0 else (), generator)] = None
    return list(removed)


def part_removed(text: str, evidence: Sequence[str], generator: random.Random) -> str:
    """The same context without the part that holds the evidence, or without a random quarter of it.

    The part consists of whole paragraphs, else of sentences, else of words: the coarsest pieces that take away at most
    ``LARGEST_SHARE`` of the text, and at least ``SMALLEST_RUN_SHARE`` where the part is random. Words may take away
    more, where the evidence itself is more. Evidence that does not occur in the text is ignored; where none occurs, a
    random run of pieces is removed. ``evidence_spans`` tells which case it is.

    Args:
        text: the context.
        evidence: passages of it that the answer rests on.
        generator: draws the random run; unused where evidence is found.

    Raises:
        ValueError: removing a part would leave nothing.
    """
    spans = evidence_spans(text, evidence)
    smallest = 0.0 if spans else SMALLEST_RUN_SHARE * len(text)
    for pattern in (_PARAGRAPH, _SENTENCE, _WORD):
        pieces = [match.span() for match in pattern.finditer(text)]
        removed = _overlapping(pieces, spans) if spans else _random_run(pieces, len(text), generator)
        remaining = "".join(text[start:end] for start, end in pieces if (start, end) not in removed).rstrip()
        fits = smallest <= sum(end - start for start, end in removed) <= LARGEST_SHARE * len(text)
        if remaining and (fits or pattern is _WORD):
            return remaining
    raise ValueError(f"no part of the context can be removed without leaving nothing: {text[:60]!r}")


def evidence_spans(text: str, evidence: Sequence[str]) -> list[Span]:
    """Every occurrence of the passages in a text, as (start, end) characters; any white space matches any other."""
    patterns = (r"\s+".join(map(re.escape, passage.split())) for passage in evidence)
    return sorted(match.span() for pattern in patterns if pattern for match in re.finditer(pattern, text))


def _negatives(candidates: Candidates, counts: NegativeCounts, seed: int) -> list[str]:
    """A sample's negatives, each once, in the order of the kinds."""
    negatives: list[str] = []
    for kind, count in dataclasses.asdict(counts).items():
        contexts: dict[str, None] = dict.fromkeys(getattr(candidates, kind))
        eligible = [context for context in contexts if context != candidates.own and context not in negatives]
        negatives += _draw(eligible, candidates.own, count, seed)
    return negatives


def _draw(candidates: Sequence[str], own: str, count: int, seed: int) -> list[str]:
    """A uniform draw without replacement that depends on the strings alone, not on their order (rendezvous hashing)."""

    def rank(candidate: str) -> bytes:
        key = "\0".join((str(seed), own, candidate))
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

    return sorted(candidates, key=rank)[:count]


def _as_columns(own: Sequence[str], negatives_of_samples: Sequence[Sequence[str]]) -> Columns:
    """Number the contexts by first appearance, own contexts first."""
    drawn_contexts = (context for negatives in negatives_of_samples for context in negatives)
    contexts = tuple(dict.fromkeys([*own, *drawn_contexts]))
    column = {context: number for number, context in enumerate(contexts)}
    valid = torch.zeros(len(own), len(contexts), dtype=torch.bool)
    for sample, negatives in enumerate(negatives_of_samples):
        valid[sample, [column[own[sample]], *(column[context] for context in negatives)]] = True
    return Columns(contexts, torch.tensor([column[context] for context in own], dtype=torch.long), valid)


def _overlapping(pieces: Sequence[Span], spans: Sequence[Span]) -> set[Span]:
    """The pieces that share a character with one of the spans."""
    return {(start, end) for start, end in pieces if any(start < stop and begin < end for begin, stop in spans)}


def _random_run(pieces: Sequence[Span], length: int, generator: random.Random) -> set[Span]:
    """Neighbouring pieces, from a random one onward, that make about a quarter of the text; at least one piece.

    Empty where the text has no pieces.
    """
    size = RUN_SHARE * length
    firsts = [number for number, (start, _) in enumerate(pieces) if length - start >= size]
    if not firsts:
        return set()
    first = generator.choice(firsts)
    begin = pieces[first][0]
    return {pieces[first]} | {(start, end) for start, end in pieces[first:] if (start + end) / 2 - begin <= size}
