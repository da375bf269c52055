"""Documents that are compressed in parts: taken apart, and put together again."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.sample import Document, Sample
from models.compressor import Message

PART_SEPARATOR = "\n\n"
"""Between the messages of a document that is compressed in parts."""


def in_parts(samples: Sequence[Sample]) -> tuple[list[Sample], Int[Tensor, " pieces"]]:
    """What is compressed by itself, and the sample each piece belongs to; most documents are one piece."""
    pieces: list[Sample] = []
    owner: list[int] = []
    for number, sample in enumerate(samples):
        own = [replace(sample, document=document) for document in parts_of([sample.document])]
        pieces += own
        owner += [number] * len(own)
    return pieces, torch.tensor(owner)


def parts_of(documents: Sequence[Document]) -> list[Document]:
    """Each part as a document of its own, whose neighbours are the others of its group."""
    return [
        one
        for document in documents
        for one in (
            [
                replace(document, id=f"{document.id}/part {number}", text=text, parts=())
                for number, text in enumerate(document.parts, start=1)
            ]
            or [document]
        )
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


def totals_by_sample(
    terms: Float[Tensor, " pieces"], owner: Int[Tensor, " pieces"], samples: int
) -> Float[Tensor, " samples"]:
    """Sums over the pieces of each sample, whose messages are independent given their contexts; NaN stays."""
    return torch.zeros(samples, dtype=torch.float64).index_add_(0, owner, terms.double())
