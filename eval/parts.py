"""Documents that are compressed in parts: taken apart, and put together again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from data.sample import Document, Sample
from models.compressor import Message

PART_SEPARATOR = "\n\n"
"""Stands between the messages of the parts of one document."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Pieces:
    """What is compressed by itself: the parts of documents, or whole documents; most samples are one piece.

    Attributes:
        samples: for every piece, its text with the question of the sample it belongs to.
        owners: for every piece, the number of the sample it belongs to.
        count: how many samples there are.
    """

    samples: list[Sample]
    owners: list[int]
    count: int

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Pieces":
        """The pieces of samples, in their order."""
        parts = [
            (replace(sample, document=document), owner)
            for owner, sample in enumerate(samples)
            for document in parts_of([sample.document])
        ]
        return cls([piece for piece, _ in parts], [owner for _, owner in parts], len(samples))

    def by_sample(self, values: Sequence[Value]) -> list[list[Value]]:
        """Values of the pieces, by the sample they belong to."""
        groups: list[list[Value]] = [[] for _ in range(self.count)]
        for owner, value in zip(self.owners, values, strict=True):
            groups[owner].append(value)
        return groups

    def totals(self, terms: Float[Tensor, " pieces"]) -> list[float]:
        """Sums by sample, whose messages are independent given their contexts; NaN stays."""
        sums = torch.zeros(self.count, dtype=torch.float64)
        return sums.index_add_(0, torch.tensor(self.owners), terms.double()).tolist()


def parts_of(documents: Sequence[Document]) -> list[Document]:
    """Each part as a document of its own, whose neighbours are the others of its group; whole documents as they are."""
    return [part for document in documents for part in _parts(document) or [document]]


def _parts(document: Document) -> list[Document]:
    return [
        replace(document, id=f"{document.id}/part {number}", text=text, parts=())
        for number, text in enumerate(document.parts, start=1)
    ]


def joined(messages: Sequence[Message]) -> Message:
    """The messages of the parts of one document as one; every end token counts."""
    if len(messages) == 1:
        return messages[0]
    return Message(
        text=PART_SEPARATOR.join(message.text for message in messages if message.text),
        # Between two of them stands one end token, of which the count alone matters here.
        token_ids=[0] * (sum(message.tokens for message in messages) - all(message.ended for message in messages)),
        ended=all(message.ended for message in messages),
        log_probs=[],
        truncated_tokens=sum(message.truncated_tokens for message in messages),
    )
