"""Attention over packed rows: a prefix, branches of it, and many continuations that do not see each other.

One row holds ``[prefix, padding, branch 1, its continuations ..., branch 2, its continuations ..., padding]``. The
prefix attends causally to itself, a branch to the prefix and causally to itself, a continuation to the prefix, its
branch and causally to itself, each at the positions it would have if it stood alone. So a model reads a prefix once for
all that follows it, forward and backward, and no key or value of a context is copied for each message.

Registered with transformers as the attention implementation ``shared_prefix``; a forward pass without a ``layout``
behaves as ``sdpa`` does.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "shared_prefix"
LAYER_TYPES = {"full_attention", "sliding_attention"}
_LEAST_BLOCK = 256


class Block(NamedTuple):
    """Columns ``begin`` to ``end`` of the tail, which attend to none of it before ``first``."""

    begin: int
    end: int
    first: int


@dataclass(frozen=True, eq=False)
class Layout:
    """Where the parts of packed rows lie.

    Attributes:
        prefix_width: columns of the prefix, its padding on the right included.
        prefix_lengths: tokens of each row's prefix.
        starts: for every column behind the prefix, where its branch or continuation starts, counted from the
            prefix's end; padding is a continuation of its own.
        branch_starts: where the branch starts that a continuation continues; elsewhere the same as ``starts``.
        branch_ends: where that branch ends; elsewhere the same as ``starts``, as there is none.
    """

    prefix_width: int
    prefix_lengths: Int[Tensor, " rows"]
    starts: Int[Tensor, "rows tail"]
    branch_starts: Int[Tensor, "rows tail"]
    branch_ends: Int[Tensor, "rows tail"]
    masks: dict[Any, Tensor] = field(default_factory=dict, repr=False)
    """Built once for all layers of one kind."""

    pieces: list["Block"] = field(default_factory=list, repr=False)
    """What ``blocks`` found."""

    def position_ids(self) -> Int[Tensor, "rows columns"]:
        """The position of every column in the sequence it belongs to."""
        rows, tail = self.starts.shape
        device = self.starts.device
        prefix = torch.arange(self.prefix_width, device=device).expand(rows, -1)
        offsets = torch.arange(tail, device=device) - self.starts + self.branch_ends - self.branch_starts
        return torch.cat([prefix, self.prefix_lengths[:, None] + offsets], dim=1)

    def prefix_mask(self, window: int) -> Bool[Tensor, "columns columns"]:
        """Causal, over a sliding window."""
        key = ("prefix", window)
        if key not in self.masks:
            at = torch.arange(self.prefix_width, device=self.starts.device)
            behind = at[:, None] - at
            self.masks[key] = (behind >= 0) & (behind < window)
        return self.masks[key]

    def blocks(self) -> list["Block"]:
        """The tail in pieces: continuations do not see each other, so a piece needs few columns beside the prefix.

        A tail longer than its prefix would otherwise cost the square of the number of continuations.
        """
        if self.pieces:
            return self.pieces
        tail = self.starts.shape[1]
        size = tail if tail <= max(self.prefix_width, _LEAST_BLOCK) else max(self.prefix_width // 2, _LEAST_BLOCK)
        begins = range(0, tail, size)
        first = self.branch_starts[:, list(begins)].amin(dim=0).tolist()
        self.pieces.extend(Block(begin, min(begin + size, tail), at) for begin, at in zip(begins, first, strict=True))
        return self.pieces

    def tail_mask(
        self, block: "Block", window: int | None, dtype: torch.dtype
    ) -> Float[Tensor, "rows 1 queries columns"]:
        """What a block attends to: 0 for the prefix and what stands before in the continuation, -inf elsewhere."""
        key = (block, window, dtype)
        if key not in self.masks:
            positions = self.position_ids()
            tail = positions[:, self.prefix_width :]
            at = torch.arange(tail.shape[1], device=tail.device)
            queries, keys = slice(block.begin, block.end), slice(block.first, block.end)
            starts, begins, ends = (x[:, queries, None] for x in (self.starts, self.branch_starts, self.branch_ends))
            own = (at[keys] <= at[queries, None]) & (at[keys] >= starts)
            branch = (at[keys] >= begins) & (at[keys] < ends)
            prefix_at = torch.arange(self.prefix_width, device=tail.device)
            to_prefix = (prefix_at < self.prefix_lengths[:, None])[:, None].expand(-1, own.shape[1], -1)
            to_tail = own | branch
            if window is not None:
                asked = tail[:, queries, None]
                to_prefix = to_prefix & (asked - prefix_at < window)
                to_tail = to_tail & (asked - tail[:, None, keys] < window)
            allowed = torch.cat([to_prefix, to_tail], dim=2)[:, None]
            self.masks[key] = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(
                ~allowed, -torch.inf
            )
        return self.masks[key]


def shared_prefix_attention(
    module: nn.Module,
    query: Float[Tensor, "rows heads columns size"],
    key: Float[Tensor, "rows kv_heads columns size"],
    value: Float[Tensor, "rows kv_heads columns size"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    layout: Layout | None = None,
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
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    width = layout.prefix_width
    window = sliding_window if sliding_window is not None and sliding_window < width else None
    prefix = scaled_dot_product_attention(
        query[:, :, :width],
        key[:, :, :width],
        value[:, :, :width],
        attn_mask=None if window is None else layout.prefix_mask(window),
        dropout_p=dropout,
        scale=scaling,
        is_causal=window is None,
    )
    pieces = [prefix, *_tail_pieces(query, key, value, layout, sliding_window, dropout, scaling)]
    return torch.cat(pieces, dim=2).transpose(1, 2).contiguous(), None


def _tail_pieces(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    window: int | None,
    dropout: float,
    scaling: float | None,
) -> list[Float[Tensor, "rows heads piece size"]]:
    width = layout.prefix_width
    pieces = []
    for block in layout.blocks():
        keys, values = key, value
        if (block.begin, block.end) != (0, layout.starts.shape[1]):
            keys, values = (
                torch.cat([x[:, :, :width], x[:, :, width + block.first : width + block.end]], dim=2)
                for x in (key, value)
            )
        pieces.append(
            scaled_dot_product_attention(
                query[:, :, width + block.begin : width + block.end],
                keys,
                values,
                attn_mask=layout.tail_mask(block, window, query.dtype),
                dropout_p=dropout,
                scale=scaling,
            )
        )
    return pieces


AttentionInterface.register(IMPLEMENTATION, shared_prefix_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def share_prefixes(model: PreTrainedModel) -> None:
    """Let a model read packed rows; what it does otherwise is what ``sdpa`` does.

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
