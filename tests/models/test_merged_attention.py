"""Attention in pieces equals attention under one mask, forward and backward."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from models.shared_prefix.attention import _masked_attention
from models.shared_prefix.layout import Layout
from models.shared_prefix.merged_attention import HIDDEN, Piece, merged_attention
from models.shared_prefix.token_tree import Leaf, Pass, lay_out

COLUMNS = 12


def tensors(columns: int, heads: int = 2, size: int = 8) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, columns, size, requires_grad=True) for _ in range(3)]


def dense_mask(one: Pass, window: int | None) -> torch.Tensor:
    """By definition: every column sees what stands before it in the sequences it belongs to."""
    mask = torch.zeros(len(one.ids), len(one.ids), dtype=torch.bool)
    positions = torch.cat([torch.arange(s.position, s.position + s.end - s.begin) for s in one.segments])
    for index, segment in enumerate(one.segments):
        above = index
        while above >= 0:
            mask[segment.begin : segment.end, one.segments[above].begin : one.segments[above].end] = True
            above = one.segments[above].parent
        own = slice(segment.begin, segment.end)
        mask[own, own] = torch.ones(segment.end - segment.begin, segment.end - segment.begin).tril().bool()
    if window is not None:
        mask &= positions[:, None] - positions < window
    return mask


def a_pass() -> Pass:
    """Two trees: versions of a document with questions and messages, short and longer than a block, and a small one."""
    generator = torch.Generator().manual_seed(1)

    def tokens(length: int) -> list[int]:
        return torch.randint(0, 50, (length,), generator=generator).tolist()

    document = tokens(300)
    versions = [document, [*document[:200], 99, *document[201:]]]
    questions = [tokens(20), tokens(15)]
    stems = [[*version, *question] for version in versions for question in questions] + [tokens(30)]
    leaves = [
        (stem, Leaf((n, m), tokens(length))) for n, stem in enumerate(stems) for m, length in enumerate((1, 90, 130))
    ]
    (one,) = lay_out(leaves, 10_000)
    return one


@pytest.mark.parametrize("window", [None, 1000, 120, 7])
@pytest.mark.parametrize("attend", ["merged", "masked"])
def test_a_forest_is_attended_to_as_under_its_mask(window: int | None, attend: str) -> None:
    one = a_pass()
    query, key, value = tensors(len(one.ids))
    layout = Layout(one.segments, torch.device("cpu"))
    expected = scaled_dot_product_attention(query, key, value, attn_mask=dense_mask(one, window))
    if attend == "merged":
        found = merged_attention(query, key, value, layout.pieces(window, torch.float32))
    else:
        found = _masked_attention(query, key, value, layout, window, 0.0, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    weights = torch.randn_like(expected)
    wanted = torch.autograd.grad((expected * weights).sum(), [query, key, value])
    for gradient, right in zip(torch.autograd.grad((found * weights).sum(), [query, key, value]), wanted, strict=True):
        torch.testing.assert_close(gradient, right, atol=1e-4, rtol=1e-4)


def test_a_piece_that_a_query_sees_nothing_of_has_no_weight() -> None:
    query, key, value = tensors(COLUMNS)
    half = COLUMNS // 2
    first, second = slice(0, half), slice(half, COLUMNS)
    hidden = torch.full((1, 1, half, half), HIDDEN)
    pieces = [Piece(first, first, causal=True), Piece(second, first, hidden), Piece(second, second, causal=True)]
    found = merged_attention(query, key, value, pieces)
    expected = merged_attention(query, key, value, [pieces[0], pieces[2]])
    torch.testing.assert_close(found, expected)


def test_what_is_not_a_number_in_one_tree_reaches_no_other() -> None:
    one = a_pass()
    query, key, value = (tensor.detach().clone() for tensor in tensors(len(one.ids)))
    begin = next(segment.begin for segment in one.segments[1:] if segment.parent < 0)
    key[:, :, begin:] = torch.nan
    layout = Layout(one.segments, torch.device("cpu"))
    found = merged_attention(query, key, value, layout.pieces(None, torch.float32))
    assert found[:, :, :begin].isfinite().all()
    assert found[:, :, begin:].isnan().all()
