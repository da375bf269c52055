"""Attention over trees: a context is read once for everything that goes on from it, forward and backward.

One sequence holds segments in depth-first order (`models.token_tree`). Each attends to the segments it goes on from and
causally to itself, at the positions it would have if what it belongs to stood alone. No key or value of a context is
copied for each message, and nothing is computed that a mask would hide, but in short blocks of small segments.

Registered with transformers as the attention implementation ``shared_prefix``; a forward pass without a ``layout``
behaves as ``sdpa`` does.
"""

from typing import Any, Protocol, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from models.shared_prefix.layout import Layout
from models.shared_prefix.merged_attention import merged_attention

IMPLEMENTATION = "shared_prefix"
LAYER_TYPES = {"full_attention", "sliding_attention"}


class State(Protocol):
    """What decodes from shared prefixes (`models.shared_decoding`) and attends in its own way."""

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None
    ) -> Float[Tensor, "rows heads tokens size"]:
        """Attention of the newest tokens of every row."""
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
    layout: Layout | State | None = None,
    **options: Any,
) -> tuple[Float[Tensor, "rows columns heads size"], None]:
    """What transformers calls in each layer; without a ``layout`` it is ``sdpa``.

    Raises:
        ValueError: the layer caps its logits or keeps attention sinks, which no fused kernel here computes.
    """
    if layout is None:
        # sdpa leaves the window to the mask.
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **options)
    unknown = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if unknown:
        raise ValueError(f"{type(module).__name__} attends with {', '.join(unknown)}, which shared prefixes do not")
    if not isinstance(layout, Layout):
        scale = scaling if scaling is not None else query.shape[-1] ** -0.5
        attended = layout.attend(cast(int, module.layer_idx), query, key, value, scale, sliding_window)
        return attended.transpose(1, 2).contiguous(), None
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    if query.device.type == "cpu" and not dropout:
        attended = merged_attention(query, key, value, layout.pieces(sliding_window, query.dtype), scaling)
    else:
        attended = _masked_attention(query, key, value, layout, sliding_window, dropout, scaling)
    return attended.transpose(1, 2).contiguous(), None


def _masked_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    window: int | None,
    dropout: float,
    scaling: float | None,
) -> Float[Tensor, "1 heads columns size"]:
    """Run by run on the keys of all it goes on from: dropout, and devices whose kernels do not merge."""
    attended = [
        scaled_dot_product_attention(
            query[:, :, queries],
            *(torch.cat([x[:, :, run] for run in keys], dim=2) for x in (key, value)),
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


def share_prefixes(model: PreTrainedModel) -> None:
    """Let a model read trees; what it does otherwise is what ``sdpa`` does.

    Raises:
        ValueError: layers that attend in another way than fully or over a sliding window, or that do not attend.
    """
    config = model.config.get_text_config()
    if config._attn_implementation == IMPLEMENTATION:
        return
    other = set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES
    if other or getattr(config, "attention_chunk_size", None):
        kinds = ", ".join(sorted(other)) or "chunked attention"
        raise ValueError(f"{config.model_type}: layers with {kinds} cannot share a prefix among continuations")
    model.set_attn_implementation(IMPLEMENTATION)
