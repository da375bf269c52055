"""From the last hidden states to logits, as the model itself does it."""

from collections.abc import Callable
from weakref import WeakSet

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from models.naming import ModelError, NonFiniteError

_checked: "WeakSet[PreTrainedModel]" = WeakSet()
"""Models whose logits were compared with those of their own forward pass."""


def projection(
    model: PreTrainedModel,
) -> Callable[[Float[Tensor, "positions width"]], Float[Tensor, "positions vocabulary"]]:
    """A function from last hidden states to logits; it is compared with the model's own forward pass once.

    Raises:
        ModelError: the model changes its logits in a way that is not known here.
        NonFiniteError: its logits are not finite.
    """
    head = model.get_output_embeddings()
    assert head is not None
    config = model.config.get_text_config()

    def finish(logits: Tensor) -> Tensor:
        if (scale := getattr(config, "logit_scale", None)) is not None:
            logits = logits * scale
        if (scaling := getattr(config, "logits_scaling", None)) is not None:
            logits = logits / scaling
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
            logits = torch.tanh(logits / cap) * cap
        return logits

    if model not in _checked:
        projected: list[Tensor] = []
        hook = head.register_forward_hook(lambda _, __, output: projected.append(output))
        try:
            with torch.no_grad():
                logits = model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=model.device)).logits
        finally:
            hook.remove()
        if not logits.isfinite().all():
            raise NonFiniteError(f"{config.model_type} has logits that are not finite: its weights have diverged")
        if not torch.allclose(finish(projected[-1]).float(), logits.float(), atol=1e-3, rtol=1e-3):
            raise ModelError(f"{config.model_type} changes its logits in a way that is not known here")
        _checked.add(model)
    return lambda hidden: finish(head(hidden))
