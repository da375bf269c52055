"""Attention in pieces equals attention over all of their keys at once."""

import torch
from torch.nn.functional import scaled_dot_product_attention

from models.shared_prefix.layout import Layout
from models.shared_prefix.merged_attention import HIDDEN, Piece, merged_attention
from tests.models.shared_prefix.forest import forest

COLUMNS = 12
HALF = COLUMNS // 2
FIRST, SECOND = slice(0, HALF), slice(HALF, COLUMNS)


def tensors(columns: int, heads: int = 2, size: int = 8) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(1, heads, columns, size, requires_grad=True) for _ in range(3)]


def test_pieces_over_the_same_queries_are_merged_forward_and_backward() -> None:
    query, key, value = tensors(COLUMNS)
    pieces = [Piece(FIRST, FIRST, causal=True), Piece(SECOND, SECOND, causal=True), Piece(SECOND, FIRST)]
    merged = merged_attention(query, key, value, pieces, scale=0.3)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=0)
    weights = torch.randn_like(expected)
    references = torch.autograd.grad((expected * weights).sum(), [query, key, value])
    gradients = torch.autograd.grad((merged * weights).sum(), [query, key, value])
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-5, rtol=1e-5)


def test_a_piece_that_a_query_sees_nothing_of_has_no_weight() -> None:
    query, key, value = tensors(COLUMNS)
    hidden = torch.full((1, 1, HALF, HALF), HIDDEN)
    pieces = [Piece(FIRST, FIRST, causal=True), Piece(SECOND, FIRST, hidden), Piece(SECOND, SECOND, causal=True)]
    merged = merged_attention(query, key, value, pieces)
    expected = merged_attention(query, key, value, [pieces[0], pieces[2]])
    torch.testing.assert_close(merged, expected)


def test_what_is_not_a_number_in_one_tree_reaches_no_other() -> None:
    tree_pass = forest()
    query, key, value = (tensor.detach().clone() for tensor in tensors(len(tree_pass.ids)))
    begin = next(segment.begin for segment in tree_pass.segments[1:] if segment.parent < 0)
    key[:, :, begin:] = torch.nan
    layout = Layout(tree_pass.segments, torch.device("cpu"))
    merged = merged_attention(query, key, value, layout.pieces(None, torch.float32))
    assert merged[:, :, :begin].isfinite().all()
    assert merged[:, :, begin:].isnan().all()
