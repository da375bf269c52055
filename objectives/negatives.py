"""The contexts each message is scored under: its own, hard negatives made from it, and other contexts of the batch.

Choices are a pure function of the seed and the strings: the same sample gets the same negatives wherever it stands in
the batch and however many processes share it.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

RUN_SHARE = 0.25
SMALLEST_RUN_SHARE = 0.125
LARGEST_SHARE = 0.5

_PARAGRAPH = re.compile(r".+?(?:\n\s*|\Z)", re.DOTALL)
_SENTENCE = re.compile(r".+?(?:[.!?][\"')\]]*\s+|\n\s*|\Z)", re.DOTALL)
_WORD = re.compile(r"\s*\S+\s*")

Span = tuple[int, int]


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


def choose_columns(
    own: Sequence[str],
    hard: Sequence[Sequence[str]],
    n_hard: int,
    n_batch: int,
    seed: int,
    batch: Sequence[str] | None = None,
) -> Columns:
    """At most ``n_hard`` hard negatives and ``n_batch`` contexts of the batch for each sample, and their columns.

    Equal strings are one context, so pass contexts as the scorer will read them, truncation included. A context equal
    to a sample's own is never its negative. Where there are fewer candidates than asked for, a sample has fewer
    columns: the rows of ``valid`` say how many.

    Args:
        own: each sample's own context.
        hard: each sample's hard negatives.
        n_hard: hard negatives per sample.
        n_batch: negatives per sample from the batch.
        seed: changes the choice; the same seed and strings give the same choice.
        batch: the contexts to draw from, over all processes; None means ``own``.

    Raises:
        ValueError: lengths disagree, a count is negative, or a sample is left without any negative.
    """
    if len(own) != len(hard):
        raise ValueError(f"hard must hold one sequence for each of {len(own)} samples, got {len(hard)}")
    if n_hard < 0 or n_batch < 0:
        raise ValueError(f"n_hard and n_batch must not be negative, got {n_hard} and {n_batch}")
    pool = tuple(dict.fromkeys(own if batch is None else batch))
    chosen = [
        _negatives(context, harder, pool, n_hard, n_batch, seed) for context, harder in zip(own, hard, strict=True)
    ]
    for sample, negatives in enumerate(chosen):
        if not negatives:
            raise ValueError(
                f"sample {sample} has no negative context (n_hard={n_hard}, n_batch={n_batch}): "
                "give it a hard negative, or a batch with another context, that differs from its own"
            )
    return _as_columns(own, chosen)


def hard_contexts(context: str, given: Sequence[str], evidence: Sequence[str], count: int, seed: int) -> list[str]:
    """Hard negatives of one context: those its task made, else the context with the answer-bearing part removed.

    Args:
        context: the own context.
        given: counterfactual versions made by the task.
        evidence: passages the answer rests on, looked for where nothing is given.
        count: how many to make at most; equal ones count once, so there may be fewer.
        seed: of the random parts.
    """
    if given:
        return list(dict.fromkeys(given))[:count]
    key = hashlib.sha256(context.encode("utf-8", "surrogatepass")).hexdigest()
    generator = random.Random(f"{seed}/{key}")
    removed = [part_removed(context, evidence if number == 0 else (), generator) for number in range(count)]
    return list(dict.fromkeys(removed))


def part_removed(text: str, evidence: Sequence[str], generator: random.Random) -> str:
    """The same context without the part that holds the evidence, or without a random quarter of it.

    Whole paragraphs go, or sentences, or at last words: the coarsest pieces with which at most half of the text goes,
    and at least an eighth where the part is random (words may take more, where the evidence itself is more). Evidence
    that does not occur in the text is ignored; where none occurs, a random run of pieces goes. ``evidence_spans`` tells
    which case it is.

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
    """Where passages occur in a text, every time they do, as (start, end) characters; white space matches any other."""
    patterns = (r"\s+".join(map(re.escape, passage.split())) for passage in evidence)
    return sorted(match.span() for pattern in patterns if pattern for match in re.finditer(pattern, text))


def _negatives(own: str, hard: Sequence[str], pool: Sequence[str], n_hard: int, n_batch: int, seed: int) -> list[str]:
    """A sample's negatives, each once; what is a hard negative is not drawn a second time from the batch."""
    harder = _drawn([context for context in dict.fromkeys(hard) if context != own], own, n_hard, seed)
    others = [context for context in pool if context != own and context not in harder]
    return harder + _drawn(others, own, n_batch, seed)


def _drawn(candidates: Sequence[str], own: str, count: int, seed: int) -> list[str]:
    """A uniform draw without replacement that depends on the strings alone, not on their order (rendezvous hashing)."""

    def rank(candidate: str) -> bytes:
        key = "\0".join((str(seed), own, candidate))
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()

    return sorted(candidates, key=rank)[:count]


def _as_columns(own: Sequence[str], chosen: Sequence[Sequence[str]]) -> Columns:
    """Number the contexts by first appearance, own contexts first."""
    contexts = tuple(dict.fromkeys([*own, *(context for negatives in chosen for context in negatives)]))
    column = {context: number for number, context in enumerate(contexts)}
    valid = torch.zeros(len(own), len(contexts), dtype=torch.bool)
    for sample, negatives in enumerate(chosen):
        valid[sample, [column[own[sample]], *(column[context] for context in negatives)]] = True
    return Columns(contexts, torch.tensor([column[context] for context in own], dtype=torch.long), valid)


def _overlapping(pieces: Sequence[Span], spans: Sequence[Span]) -> set[Span]:
    return {(start, end) for start, end in pieces if any(start < stop and begin < end for begin, stop in spans)}


def _random_run(pieces: Sequence[Span], length: int, generator: random.Random) -> set[Span]:
    """Neighbouring pieces, from a random one onward, that make about a quarter of the text; at least one."""
    wanted = RUN_SHARE * length
    firsts = [number for number, (start, _) in enumerate(pieces) if length - start >= wanted]
    if not firsts:
        return set()
    first = generator.choice(firsts)
    begin = pieces[first][0]
    return {pieces[first]} | {(start, end) for start, end in pieces[first:] if (start + end) / 2 - begin <= wanted}
