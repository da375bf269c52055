"""Attention computed in pieces of queries and keys, merged exactly by the log-sum-exp of their scores.

Where different queries see different keys, one mask over all of them makes the kernel compute what is masked out as
well. Here every piece goes to the fused kernel by itself, and pieces over the same queries are weighted by
exp(lse_piece - lse) (Milakov and Gimelshein 2018; the backward pass, each piece with the merged output and log-sum-exp,
is that of ring attention, Liu et al. 2023). The CPU's fused kernel returns its log-sum-exp.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

HIDDEN = -1e30
"""In a mask, what must not be seen; finite, so that a query which sees nothing of a piece gives it no weight."""


class Piece(NamedTuple):
    """Some queries and some of the keys they attend to.

    Attributes:
        queries: a run of columns.
        keys: a run of columns.
        mask: 0 where a query sees a key, `HIDDEN` elsewhere, broadcast over rows and heads.
        causal: the first query sees the first key alone, the next one two, and so on; without a mask only.
    """

    queries: slice
    keys: slice
    mask: Float[Tensor, "#rows 1 #queries keys"] | None = None
    causal: bool = False


def merged_attention(
    query: Float[Tensor, "rows heads columns size"],
    key: Float[Tensor, "rows heads columns size"],
    value: Float[Tensor, "rows heads columns size"],
    pieces: Sequence[Piece],
    scale: float | None = None,
) -> Float[Tensor, "rows heads columns size"]:
    """Attention of every query over the keys of all pieces it is part of; differentiable once, on a CPU.

    Args:
        query: one for each column.
        key: with as many heads as the query has.
        value: with as many heads as the key.
        pieces: together they cover every query, and no query meets a key twice. A piece that begins before the end of
            an earlier one holds a part of the queries that earlier ones cover.
        scale: multiplies the scores; one over the root of ``size`` without it.
    """
    return _MergedAttention.apply(query, key, value, tuple(pieces), scale)  # type: ignore[no-any-return]


class _MergedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float | None
    ) -> Tensor:
        # In a model's tensors the columns of one head lie a power of two apart: the kernel takes longer on them.
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        merged = torch.empty_like(query)
        merged_lse = query.new_full(query.shape[:-1], -torch.inf, dtype=torch.float32)
        covered = 0
        for piece in pieces:
            parts = (x[:, :, run] for x, run in ((query, piece.queries), (key, piece.keys), (value, piece.keys)))
            out, lse = _forward(*parts, 0.0, piece.causal, attn_mask=piece.mask, scale=scale)
            if piece.queries.start >= covered:
                merged[:, :, piece.queries], merged_lse[:, :, piece.queries] = out, lse
                covered = piece.queries.stop
            else:
                _merge(merged[:, :, piece.queries], merged_lse[:, :, piece.queries], out, lse)
        ctx.save_for_backward(query, key, value, merged, merged_lse)
        ctx.pieces, ctx.scale = pieces, scale
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, merged, lse = ctx.saved_tensors
        gradient = gradient.contiguous()
        gradients = tuple(torch.zeros_like(x) for x in (query, key, value))
        for piece in ctx.pieces:
            runs = (piece.queries, piece.keys, piece.keys)
            parts = _backward(
                gradient[:, :, piece.queries],
                *(x[:, :, run] for x, run in zip((query, key, value), runs, strict=True)),
                merged[:, :, piece.queries],
                lse[:, :, piece.queries].contiguous(),
                0.0,
                piece.causal,
                attn_mask=piece.mask,
                scale=ctx.scale,
            )
            for total, run, part in zip(gradients, runs, parts, strict=True):
                total[:, :, run] += part
        return *gradients, None, None


def _merge(merged: Tensor, merged_lse: Tensor, out: Tensor, lse: Tensor) -> None:
    """Add a piece to what earlier ones gave, in place: its weight is its share of the common normaliser."""
    merged.lerp_(out, (lse - merged_lse).sigmoid()[..., None].to(merged.dtype))
    merged_lse.copy_(torch.logaddexp(merged_lse, lse))
