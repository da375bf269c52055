"""Packs conversations into rows of tokens, with loss weights that single out the tokens of values."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from data.miniature.values import FIRST_SYLLABLES
from models.miniature.corpus import Turn

IGNORED = -100
"""The label of a token that the loss leaves out, as in transformers."""

Row = tuple[list[int], list[int]]
"""The token ids of a conversation, and the label of each."""


class Packer:
    """Turns conversations into token rows, and knows which of their tokens belong to values."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Find the tokens that open a value and those that cannot continue one."""
        self.encode = tokenizer.backend_tokenizer.encode_batch
        self.user, self.assistant, self.end, self.pad = (
            tokenizer.vocab[token] for token in ("<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")
        )
        size = len(tokenizer)
        self.opens_value = torch.zeros(size, dtype=torch.bool)
        self.ends_value = torch.zeros(size, dtype=torch.bool)
        for index in range(size):
            text = str(tokenizer.decode([index]))
            number = len(text.strip()) == 2 and text.strip().isdigit()
            name = len(text) >= 3 and text[0] == " " and any(s.startswith(text[1:]) for s in FIRST_SYLLABLES)
            self.opens_value[index] = number or name or text.strip() in ("yes", "no")
            self.ends_value[index] = text in (".", " million", "<|end|>", ";", ":")

    def row(self, turns: list[Turn]) -> Row:
        """The tokens of a conversation; a label is ``IGNORED`` outside the replies."""
        encoded = self.encode([part for turn in turns for part in (turn.prompt, turn.reply)], add_special_tokens=False)
        ids: list[int] = []
        labels: list[int] = []
        for prompt, reply in zip(encoded[::2], encoded[1::2], strict=True):
            ids += [self.user, *prompt.ids, self.end, self.assistant, *reply.ids, self.end]
            labels += [IGNORED] * (len(prompt.ids) + 3) + [*reply.ids, self.end]
        return ids, labels

    def batch(self, rows: list[Row]) -> tuple[Int[Tensor, "rows tokens"], Int[Tensor, "rows tokens"]]:
        """Right-padded ids and labels; causal attention needs no mask for them."""
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([ids + [self.pad] * (longest - len(ids)) for ids, _ in rows])
        labels = torch.tensor([labels + [IGNORED] * (longest - len(labels)) for _, labels in rows])
        return ids, labels

    def weights(self, targets: Int[Tensor, " targets"], rest_weight: float) -> Float[Tensor, " targets"]:
        """Loss weights: 1 for the first two tokens of each value, ``rest_weight`` elsewhere."""
        opens = self.opens_value[targets]
        second = torch.zeros_like(opens)
        second[1:] = opens[:-1] & ~self.ends_value[targets[1:]]
        return torch.where(opens | second, 1.0, rest_weight)
