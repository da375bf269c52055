"""What a program that runs an exported model is asked, whichever program it is."""

from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Runtime(Protocol):
    """A program with a model in it.

    Attributes:
        name: what it is called, with its version, such as ``llama.cpp (xllamacpp 2026.10)``.
    """

    name: str

    def greedy(self, prompt_ids: Sequence[int], count: int, end_token_id: int | None = None) -> list[int]:
        """The ``count`` most likely tokens after a prompt, each after those before.

        Args:
            prompt_ids: the prompt.
            count: the most tokens.
            end_token_id: the token that ends them, which is then the last; None writes on whatever comes.
        """
        ...

    def next_log_probs(self, prompt_ids: Sequence[int]) -> Float[Tensor, " vocabulary"]:
        """log p of every token after a prompt, nats, float32."""
        ...

    def close(self) -> None:
        """Give back its memory, and whatever runs."""
        ...
