"""Attention over trees: a context is read once for everything that goes on from it, forward and backward.

One sequence holds segments in depth-first order (`models.shared_prefix.token_tree`). Each attends to the segments it
goes on from and causally to itself, at the positions it would have if what it belongs to stood alone. No key or value
of a context is copied for each message, and only short blocks of small segments compute anything that a mask hides.

Registered with transformers as the attention implementation ``shared_prefix``; a forward pass without a ``layout``
behaves as ``sdpa`` does.
"""

from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from models.naming import ModelError
from models.shared_prefix.layout import Layout
from models.shared_prefix.merged_attention import merged_attention

IMPLEMENTATION = "shared_prefix"
"""Our name among transformers' attention implementations."""

LAYER_TYPES = {"full_attention", "sliding_attention"}
"""Layers that attend to what stands before a token, by transformers' names; others keep a state or cut a sequence into
chunks, and the tokens of a prefix would not be the same to all that goes on from it."""


class DecodingState(Protocol):
    """What replies are decoded from (`models.shared_prefix.decoding.Decoding`), which attends in its own way."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Float[Tensor, "rows heads tokens size"]:
        """Attention of the newest tokens of every row; ``scale`` multiplies the scores."""
        ...


def shared_prefix_attention(
    module: nn.Module,
    query: Float[Tensor, "rows heads columns size"],
    key: Float[Tensor, "rows kv_heads columns size"],
    value: Float[Tensor, "rows kv_heads columns size"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    layout: Layout | DecodingState | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "rows columns heads size"], None]:
    """What transformers calls in each layer; without a ``layout`` it is ``sdpa``.

    Args:
        module: the layer.
        query: one for each column that is read.
        key: with a head for one or more heads of the query.
        value: with as many heads as the key.
        attention_mask: applies without a layout alone.
        dropout: probability that an attention weight is dropped.
        scaling: multiplies the scores; one over the root of ``size`` without it.
        sliding_window: tokens that a query sees, itself included; None sees all before it.
        layout: how the columns hang together, or the state that replies are decoded from.
        options: whatever else the architecture passes on.

    Raises:
        ModelError: the layer caps its logits or keeps attention sinks, which no fused kernel here computes.
    """
    if layout is None:
        # sdpa leaves the window to the mask.
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if unknown:
        raise ModelError(f"{type(module).__name__} attends with {', '.join(unknown)}, which shared prefixes do not")
    if not isinstance(layout, Layout):
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        attended = layout.attend(cast(int, module.layer_idx), query, key, value, scale, sliding_window)
        return attended.transpose(1, 2).contiguous(), None
    layout.reached = True
    if query.device.type == "cpu" and not dropout:
        attended = merged_attention(query, key, value, layout.pieces(sliding_window, query.dtype), scaling)
    else:
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        attended = masked_attention(query, key, value, layout, sliding_window, dropout, scaling)
    return attended.transpose(1, 2).contiguous(), None


def masked_attention(
    query: Float[Tensor, "1 heads columns size"],
    key: Float[Tensor, "1 heads columns size"],
    value: Float[Tensor, "1 heads columns size"],
    layout: Layout,
    window: int | None,
    dropout: float,
    scaling: float | None,
) -> Float[Tensor, "1 heads columns size"]:
    """Each run in one kernel call on the keys of all it goes on from.

    For dropout, which pieces cannot be merged under, and for devices whose kernels do not return a log-sum-exp.
    """
    attended = [
        scaled_dot_product_attention(
            query[:, :, queries],
            *(torch.cat([x[:, :, columns] for columns in keys], dim=2) for x in (key, value)),
            attn_mask=mask,
            dropout_p=dropout,
            scale=scaling,
            is_causal=mask is None,
        )
        for queries, keys, mask in layout.masked(window, query.dtype)
    ]
    return torch.cat(attended, dim=2)


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def share_prefixes(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """Let a model read trees; what it does otherwise is what ``sdpa`` does.

    Returns:
        The model, without the wrapper of PEFT; its layers hold the adapters.

    Raises:
        ModelError: layers that attend in another way than fully or over a sliding window, or that do not attend.
    """
    plain = cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model
    config = plain.config.get_text_config()
    if config._attn_implementation != IMPLEMENTATION:
        strange = set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES
        if strange or getattr(config, "attention_chunk_size", None):
            kinds = ", ".join(sorted(strange)) or "chunked attention"
            raise ModelError(f"{config.model_type}: layers with {kinds} cannot share a prefix among continuations")
        plain.set_attn_implementation(IMPLEMENTATION)
    return plain
