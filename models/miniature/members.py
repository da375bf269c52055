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


Role = Literal["pair", "scorer"]
"""What a member is trained to be: compressor and predictor in one, or what scores their messages."""


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
        curriculum_tokens: tokens after which the curriculum ends, mastered or not; None waits until it is mastered. For
            members too small to: they are to have read as much as the others.
        grown_from: the member that it starts as a copy of, wider or as it is. Lookup is there then: only the last phase
            is left.
        released: it starts from that member's shipped weights, rather than from its checkpoint.
        role: what it is trained to be.
        qualified: whether it reads documents in which facts share keys, too (``models.miniature.corpus.QUALIFIED``).
        style: how far its messages follow the question (``models.miniature.corpus.Style``).
        last_tokens: tokens of the last phase; None takes those of the family.
        seed: seed of the weights and of the documents.
    """

    architecture: Literal["qwen2", "llama"]
    width: int
    layers: int
    heads: int
    feed_forward: int
    learning_rate: float = 1e-3
    more_facts: int = 2
    curriculum_tokens: float | None = None
    grown_from: str | None = None
    released: bool = False
    role: Role = "pair"
    qualified: bool = False
    style: Literal["wordy", "leading"] = "wordy"
    last_tokens: float | None = None
    seed: int = 0


MEMBERS = {
    "qwen2-shallow": Member("qwen2", 48, 1, 4, 96, learning_rate=2e-3, curriculum_tokens=6.2e6),
    "qwen2-tiny": Member("qwen2", 48, 2, 4, 96, learning_rate=2e-3, curriculum_tokens=6.2e6),
    "qwen2-small": Member("qwen2", 128, 2, 4, 256),
    "llama-medium": Member("llama", 192, 2, 6, 512, learning_rate=6e-4, more_facts=4),
    "qwen2-large": Member("qwen2", 256, 2, 8, 800, learning_rate=5e-4, grown_from="qwen2-small"),
    "qwen2-tiny-qualified": Member(
        "qwen2", 48, 2, 4, 96, 2e-3, grown_from="qwen2-tiny", released=True, qualified=True, last_tokens=3e6
    ),
    "qwen2-small-qualified": Member(
        "qwen2", 128, 2, 4, 256, grown_from="qwen2-small", released=True, qualified=True, last_tokens=3e6
    ),
    "qwen2-leading": Member(
        "qwen2", 128, 2, 4, 256, grown_from="qwen2-small", released=True, style="leading", last_tokens=1.5e6
    ),
    "qwen2-scorer": Member(
        "qwen2", 128, 2, 4, 256, grown_from="qwen2-small", released=True, role="scorer", last_tokens=4e6
    ),
}
"""The family: five sizes, smallest first, of which the first has one layer, too few to look anything up; two of these
trained on to tell apart facts that share a key; and two that `qwen2-small` was trained on to: one whose messages do not
follow the question, and one that scores messages of any wording."""
