"""Every column is offered the keys it may see, each once, whichever way attention is computed."""

import pytest
import torch

from models.shared_prefix.layout import BLOCK, Layout, Masked
from models.shared_prefix.merged_attention import Piece
from models.shared_prefix.token_tree import Segment
from tests.models.shared_prefix.forest import forest, seen_columns

CPU = torch.device("cpu")
WINDOWS = [None, 1000, 120, 7]


def visible(mask: torch.Tensor | None, queries: int, keys: int, causal: bool) -> torch.Tensor:
    if mask is not None:
        return (mask[0, 0] == 0).expand(queries, keys)
    everything = torch.ones(queries, keys, dtype=torch.bool)
    return everything.tril() if causal else everything


def count_piece(counts: torch.Tensor, piece: Piece) -> None:
    queries, keys = piece.queries.stop - piece.queries.start, piece.keys.stop - piece.keys.start
    counts[piece.queries, piece.keys] += visible(piece.mask, queries, keys, piece.causal)


def count_masked(counts: torch.Tensor, masked: Masked) -> None:
    columns = torch.cat([torch.arange(keys.start, keys.stop) for keys in masked.keys])
    queries = masked.queries.stop - masked.queries.start
    counts[masked.queries, columns] += visible(masked.mask, queries, len(columns), causal=masked.mask is None)


@pytest.mark.parametrize("window", WINDOWS)
def test_pieces_offer_every_key_that_a_query_may_see_exactly_once(window: int | None) -> None:
    tree_pass = forest()
    counts = torch.zeros(len(tree_pass.ids), len(tree_pass.ids), dtype=torch.int)
    for piece in Layout(tree_pass.segments, CPU).pieces(window, torch.float32):
        count_piece(counts, piece)
    assert torch.equal(counts, seen_columns(tree_pass, window).int())


@pytest.mark.parametrize("window", WINDOWS)
def test_masked_runs_offer_every_key_that_a_query_may_see_exactly_once(window: int | None) -> None:
    tree_pass = forest()
    counts = torch.zeros(len(tree_pass.ids), len(tree_pass.ids), dtype=torch.int)
    for masked in Layout(tree_pass.segments, CPU).masked(window, torch.float32):
        count_masked(counts, masked)
    assert torch.equal(counts, seen_columns(tree_pass, window).int())


def test_positions_go_on_where_the_parent_ends() -> None:
    segments = [Segment(0, 3, -1, 0), Segment(3, 5, 0, 3), Segment(5, 6, 0, 3), Segment(6, 8, -1, 0)]
    assert Layout(segments, CPU).position_ids.tolist() == [[0, 1, 2, 3, 4, 3, 0, 1]]


def test_small_neighbours_share_a_run_up_to_a_block_and_trees_share_none() -> None:
    half = BLOCK // 2
    widths = [BLOCK + 1, half, half, half, 5, 5]
    parents = [-1, 0, 0, 0, -1, -1]
    ends = [sum(widths[: index + 1]) for index in range(len(widths))]
    segments = [Segment(end - width, end, parent, 0) for width, end, parent in zip(widths, ends, parents, strict=True)]
    assert [tuple(run) for run, _ in Layout(segments, CPU).runs] == [(0, 1), (1, 3), (3, 4), (4, 5), (5, 6)]


def test_what_follows_from_the_segments_is_computed_once_for_all_layers_of_a_kind() -> None:
    layout = Layout(forest().segments, CPU)
    assert layout.pieces(None, torch.float32) is layout.pieces(None, torch.float32)
    assert layout.masked(7, torch.float32) is layout.masked(7, torch.float32)
    assert layout.pieces(7, torch.float32) is not layout.pieces(None, torch.float32)
    assert layout.position_ids is layout.position_ids and layout.runs is layout.runs
