"""Attention in pieces of queries and keys, exactly that over all the keys that a query meets in any of them.

Where different queries see different keys, one mask over all of them makes a kernel compute what is masked out as
well, and torch's fused kernel for CPUs is slow on the way back. Here neighbouring queries that see the same pieces go
together, in blocks whose scores fit the processor's cache: matrix products, which run at the machine's own rate in
every type, and a pass over the scores each way, softmax and its derivative. The weights are computed again on the way
back (Dao et al. 2022), so that memory grows with the columns and not with their square.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

HIDDEN = -1e30
"""In a mask, what must not be seen; finite, so that a query which sees nothing of a piece gives it no weight."""

SCORES_PER_BLOCK = 1 << 18
"""Scores that are held at once: half a megabyte in bfloat16, one in float32, about the second cache of a core."""

LEAST_QUERIES = 32
"""Queries of a block, however many keys they see: products of fewer rows fall short of the machine's rate."""


class Piece(NamedTuple):
    """Some queries and some of the keys they attend to.

    Attributes:
        queries: a run of columns.
        keys: a run of columns.
        mask: 0 where a query sees a key, `HIDDEN` elsewhere, the same for all rows and heads.
        causal: the first query sees the first key alone, the next one two, and so on; without a mask only.
    """

    queries: slice
    keys: slice
    mask: Float[Tensor, "1 1 #queries keys"] | None = None
    causal: bool = False


class _Block(NamedTuple):
    """Neighbouring queries, and all they see.

    Attributes:
        queries: a run of columns.
        keys: runs of columns, which none of the queries meets twice.
        masks: what is added to some of the scores, and the number of their first key among all of ``keys``.
    """

    queries: slice
    keys: list[slice]
    masks: list[tuple[int, Tensor]]


def merged_attention(
    query: Float[Tensor, "rows heads columns size"],
    key: Float[Tensor, "rows kv_heads columns size"],
    value: Float[Tensor, "rows kv_heads columns size"],
    pieces: Sequence[Piece],
    scale: float | None = None,
) -> Float[Tensor, "rows heads columns size"]:
    """Attention of every query over the keys of all pieces it is part of; differentiable once.

    Args:
        query: one for each column.
        key: with a head for one or more heads of the query.
        value: with as many heads as the key.
        pieces: together they cover every query, and no query meets a key twice.
        scale: multiplies the scores; one over the root of ``size`` without it.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return _MergedAttention.apply(query, key, value, tuple(pieces), scale)  # type: ignore[no-any-return]


class _MergedAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: tuple[Piece, ...], scale: float) -> Tensor:
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        merged = torch.empty_like(query)
        blocks = list(_blocks(pieces, query.shape[1] // key.shape[1], query.dtype))
        for of_query, of_key, of_value, of_merged in _heads(key, query, key, value, merged):
            for block in blocks:
                weights = _weights(_joined(of_query, block.queries), _columns(of_key, block.keys), block, scale)
                _put(of_merged, block.queries, weights @ _columns(of_value, block.keys))
        ctx.save_for_backward(query, key, value)
        ctx.blocks, ctx.scale = blocks, scale
        return merged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value = ctx.saved_tensors
        to_query = torch.empty_like(query)
        # Sums over many blocks, which a type of few digits would round at each.
        to_key, to_value = (torch.zeros_like(x, dtype=torch.float32) for x in (key, value))
        given = (query, key, value, gradient.contiguous(), to_query, to_key, to_value)
        for of_query, of_key, of_value, outer, to_queries, to_keys, to_values in _heads(key, *given):
            for block in ctx.blocks:
                keys, values = _columns(of_key, block.keys), _columns(of_value, block.keys)
                queries, above = _joined(of_query, block.queries), _joined(outer, block.queries)
                weights = _weights(queries, keys, block, ctx.scale)
                _add(to_values, block.keys, weights.t() @ above)
                scores = torch.ops.aten._softmax_backward_data(above @ values.t(), weights, -1, weights.dtype)
                _put(to_queries, block.queries, _scaled_product(scores, keys, ctx.scale))
                _add(to_keys, block.keys, _scaled_product(scores.t(), queries, ctx.scale))
        return to_query, to_key.to(key.dtype), to_value.to(value.dtype), None, None


def _heads(key: Tensor, *tensors: Tensor) -> Iterator[tuple[Float[Tensor, "heads columns size"], ...]]:
    """The parts of tensors that belong to one head of the key, head by head of every row."""
    heads = key.shape[0] * key.shape[1]
    # One by one: the matrices of a batch would have to be copied next to each other for every block.
    return zip(*(x.view(heads, -1, *x.shape[2:]) for x in tensors), strict=True)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Float[Tensor, "m n"]:
    """The product of two matrices times a number, rounded once."""
    return torch.addmm(left.new_empty(1), left, right, beta=0, alpha=scale)


def _weights(
    queries: Float[Tensor, "queries size"], keys: Float[Tensor, "keys size"], block: _Block, scale: float
) -> Float[Tensor, "queries keys"]:
    """Softmax over the keys of a block, of all queries that share a head of the key."""
    scores = _scaled_product(queries, keys.t(), scale)
    by_head = scores.view(-1, block.queries.stop - block.queries.start, len(keys))
    for first, mask in block.masks:
        by_head[..., first : first + mask.shape[-1]] += mask
    return scores.softmax(-1)


def _joined(x: Float[Tensor, "heads columns size"], columns: slice) -> Float[Tensor, "queries size"]:
    """Some columns of all heads, those of one head after those of the other."""
    return x[:, columns].reshape(-1, x.shape[-1])


def _put(x: Float[Tensor, "heads columns size"], columns: slice, joined: Float[Tensor, "queries size"]) -> None:
    """Set what `_joined` takes."""
    x[:, columns] = joined.view(len(x), -1, x.shape[-1])


def _columns(x: Float[Tensor, "1 columns size"], runs: list[slice]) -> Float[Tensor, "keys size"]:
    """Some columns of a head of the key, without a copy where they are one run."""
    return x[0, runs[0]] if len(runs) == 1 else torch.cat([x[0, run] for run in runs])


def _add(total: Float[Tensor, "1 columns size"], runs: list[slice], part: Float[Tensor, "keys size"]) -> None:
    """Add to what `_columns` takes."""
    for run, summand in zip(runs, part.split([run.stop - run.start for run in runs]), strict=True):
        total[0, run] += summand


def _blocks(pieces: Sequence[Piece], shared: int, dtype: torch.dtype) -> Iterator[_Block]:
    """Cut the queries where a piece begins or ends, and between as often as `SCORES_PER_BLOCK` asks for.

    Args:
        pieces: see `merged_attention`.
        shared: heads of the query that share one of the key.
        dtype: the type of the scores.
    """
    cuts = sorted({end for piece in pieces for end in (piece.queries.start, piece.queries.stop)})
    for start, stop in pairwise(cuts):
        covering = [piece for piece in pieces if piece.queries.start <= start and stop <= piece.queries.stop]
        if not covering:
            continue
        covering.sort(key=lambda piece: piece.keys.start)
        most = sum(piece.keys.stop - piece.keys.start for piece in covering)
        blocks = max(1, min((stop - start) // LEAST_QUERIES, ceil((stop - start) * shared * most / SCORES_PER_BLOCK)))
        ends = [start + (stop - start) * number // blocks for number in range(blocks + 1)]
        yield from (_block(covering, slice(first, last), dtype) for first, last in pairwise(ends))


def _block(pieces: Sequence[Piece], queries: slice, dtype: torch.dtype) -> _Block:
    """What some queries see of the pieces that cover them."""
    keys: list[slice] = []
    masks: list[tuple[int, Tensor]] = []
    count = 0
    for piece in pieces:
        begin, end = piece.keys.start, piece.keys.stop
        rows = slice(queries.start - piece.queries.start, queries.stop - piece.queries.start)
        if piece.causal:
            end = begin + rows.stop
            masks.append((count + rows.start, _later(rows.stop - rows.start, dtype)))
        elif piece.mask is not None:
            masks.append((count, piece.mask[0, :, rows] if piece.mask.shape[2] > 1 else piece.mask[0]))
        if keys and keys[-1].stop == begin:
            keys[-1] = slice(keys[-1].start, end)
        else:
            keys.append(slice(begin, end))
        count += end - begin
    return _Block(queries, keys, masks)


def _later(size: int, dtype: torch.dtype) -> Float[Tensor, "size size"]:
    """A mask that hides each column that comes after its row."""
    return torch.full((size, size), max(HIDDEN, torch.finfo(dtype).min), dtype=dtype).triu_(1)
