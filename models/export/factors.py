"""The low-rank factors of an adapter as other programs take them: one scale for all, folded into the second factor.

PEFT scales each module by its own alpha over its own rank, or over the square root of it (rsLoRA, Kalajdzievski 2023).
llama.cpp and MLX know one scale a file and ignore patterns without a word, so that an adapter loads and computes
something else. What a low-rank product cannot say at all is refused by the name of the module.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.lora import Linear, LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from models.adapters import DEFAULT
from models.naming import ModelError


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to the weight of one linear layer: ``b @ a``.

    Attributes:
        module: the layer's path in the plain model, such as ``model.layers.0.self_attn.q_proj``.
        a: the first factor, float32 on the CPU.
        b: the second factor, the scale folded in, float32 on the CPU.
    """

    module: str
    a: Float[Tensor, "rank inputs"]
    b: Float[Tensor, "outputs rank"]

    @property
    def rank(self) -> int:
        """The width between the factors."""
        return self.a.shape[0]

    def of_rank(self, rank: int) -> "Factors":
        """The same product with zeros up to another rank, for programs that know one rank a file.

        Raises:
            ValueError: the rank is smaller than the factors have.
        """
        more = rank - self.rank
        if more < 0:
            raise ValueError(f"{self.module} has rank {self.rank}, which is more than {rank}")
        pad = nn.functional.pad
        return Factors(self.module, pad(self.a, (0, 0, 0, more)), pad(self.b, (0, more)))


def lora_factors(adapted: PeftModel, name: str = DEFAULT) -> list[Factors]:
    """The factors of every layer that an adapter changes, in the model's order.

    Args:
        adapted: a model with the adapter, as `models.adapters.load_adapter` gives it.
        name: which adapter of the model.

    Raises:
        ModelError: the adapter changes something that is no product of two factors added to a linear layer.
    """
    config = adapted.peft_config[name]
    if getattr(config, "bias", "none") != "none":
        raise ModelError(
            f"the adapter trains biases (bias = {getattr(config, 'bias', None)!r}), which no product holds"
        )
    if replication := getattr(config, "layer_replication", None):
        raise ModelError(
            f"the adapter repeats layers of its base (layer_replication = {replication}), which no file says"
        )
    found = [_factors(path, layer, name) for path, layer in _adapted_layers(adapted, name)]
    if not found:
        raise ModelError("the adapter changes no layer")
    return found


def _adapted_layers(adapted: PeftModel, name: str) -> Iterator[tuple[str, Linear]]:
    """The linear layers that an adapter changes, by their paths in the plain model; anything else is refused."""
    for path, module in cast(nn.Module, adapted.get_base_model()).named_modules():
        if isinstance(module, ModulesToSaveWrapper) or type(module).__name__ == "TrainableTokensWrapper":
            raise ModelError(
                f"the adapter replaces {path!r} whole (modules_to_save, or single tokens): merge it instead"
            )
        if not isinstance(module, LoraLayer) or not _has(module, name):
            continue
        if not isinstance(module, Linear):
            raise ModelError(f"the adapter changes {path!r}, which is no linear layer ({type(module).__name__})")
        yield path, module


def _has(layer: LoraLayer, name: str) -> bool:
    return name in layer.lora_A or name in layer.lora_embedding_A


def _factors(path: str, layer: Linear, name: str) -> Factors:
    if layer.lora_variant.get(name) is not None:
        kind = type(layer.lora_variant[name]).__name__.removesuffix("LinearVariant")
        raise ModelError(f"the adapter changes {path!r} by {kind}, which is more than a product of two factors")
    if layer.lora_bias.get(name):
        raise ModelError(f"the adapter adds a bias to {path!r} (lora_bias), which no product holds")
    if not isinstance(layer.get_base_layer(), nn.Linear):
        raise ModelError(f"the adapter changes {path!r}, whose weight is stored transposed or packed")
    a, b = (cast(Tensor, part[name].weight).detach().to("cpu", torch.float32) for part in (layer.lora_A, layer.lora_B))
    return Factors(path, a.clone(), b * layer.scaling[name])
