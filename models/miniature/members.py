"""The members of the miniature family: their sizes, and how each is trained. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Literal

WINDOW = 2048
"""Tokens that a member reads: its longest documents fit in it, with a question and a message."""

TOKENIZER = "tokenizer"
"""The folder of the family's tokenizer, beside the members' own."""

CHECKPOINT = "checkpoint.pt"
"""The file of a member in training: weights, optimizer state and progress."""

LOG = "log.jsonl"
"""The file of a member's losses: one line every hundred steps."""


@dataclass(frozen=True)
class Member:
    """One model of the family and how it is trained.

    Attributes:
        architecture: the transformers model it is an instance of.
        width: hidden units.
        layers: transformer layers.
        heads: attention heads a layer.
        feed_forward: feed-forward units a layer.
        learning_rate: AdamW's, before it falls.
        more_facts: facts by which the curriculum's documents grow at a time.
        grown_from: the member that it starts as a wider copy of. Lookup is there then: only the wordy phase is left.
        seed: seed of the weights and of the documents.
    """

    architecture: Literal["qwen2", "llama"]
    width: int
    layers: int
    heads: int
    feed_forward: int
    learning_rate: float = 1e-3
    more_facts: int = 2
    grown_from: str | None = None
    seed: int = 0


MEMBERS = {
    "qwen2-small": Member("qwen2", 128, 2, 4, 256),
    "llama-medium": Member("llama", 192, 2, 6, 512, learning_rate=6e-4, more_facts=4),
    "qwen2-large": Member("qwen2", 256, 2, 8, 800, learning_rate=5e-4, grown_from="qwen2-small"),
}
"""The family, smallest first."""
