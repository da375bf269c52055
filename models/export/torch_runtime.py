"""transformers as a runtime: a folder of a merged model, or of an adapter on its base, loaded as others load it."""

from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from models.adapters import load_adapter, read_adapter
from models.loading import load_model


class Torch:
    """A model in transformers, in float32 on the CPU.

    Attributes:
        name: what it is, with its version.
    """

    def __init__(self, model: Any) -> None:
        """Take a loaded model; `of_adapter` and `of_model` load one."""
        self.model: Any = model
        self.name = f"transformers {metadata.version('transformers')}"

    @classmethod
    def of_adapter(cls, base: str, folder: Path) -> "Torch":
        """An adapter's folder on its base.

        Raises:
            ModelError: one of them cannot be loaded.
        """
        plain, _ = load_model(base)
        return cls(load_adapter(plain, read_adapter(folder), base))

    @classmethod
    def of_model(cls, folder: Path) -> "Torch":
        """A merged model's folder.

        Raises:
            ModelError: it cannot be loaded.
        """
        return cls(load_model(str(folder))[0])

    @torch.no_grad()
    def greedy(self, prompt_ids: Sequence[int], count: int, end_token_id: int | None = None) -> list[int]:
        """See `models.export.runtime.Runtime`."""
        ids = torch.tensor([list(prompt_ids)])
        written: list[int] = []
        cache = None
        while len(written) < count and not (written and written[-1] == end_token_id):
            output = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache, ids = output.past_key_values, output.logits[:, -1].argmax(dim=-1, keepdim=True)
            written.append(int(ids))
        return written

    @torch.no_grad()
    def next_log_probs(self, prompt_ids: Sequence[int]) -> Float[Tensor, " vocabulary"]:
        """See `models.export.runtime.Runtime`."""
        return self.model(input_ids=torch.tensor([list(prompt_ids)])).logits[0, -1].float().log_softmax(-1)

    def close(self) -> None:
        """Drop the model."""
        self.model = None
