"""Whether an adapter stays finite once its scale is applied: finite weights and a finite scale can make what is not."""

from collections.abc import Iterator
from typing import cast

from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from models.naming import ModelError


def check_scale(adapted: PeftModel, name: str, subject: str) -> None:
    """Refuse an adapter whose second factors, times its scale, are not finite in float32.

    Args:
        adapted: a model with the adapter.
        name: which adapter of the model.
        subject: what the adapter is called, for the message.

    Raises:
        ModelError: naming the module and the scale.
    """
    for path, layer in adapted.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        for factor in _second_factors(layer, name):
            scale = float(layer.scaling[name])
            if not (factor.detach().float() * scale).isfinite().all():
                module = path.removeprefix("base_model.model.")
                raise ModelError(f"{subject}: scaled by {scale:g}, it has values that are not finite, in {module!r}")


def _second_factors(layer: LoraLayer, name: str) -> Iterator[Tensor]:
    if name in layer.lora_B:
        yield cast(Tensor, layer.lora_B[name].weight)
    if name in layer.lora_embedding_B:
        yield layer.lora_embedding_B[name]
