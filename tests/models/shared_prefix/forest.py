"""A pass over several trees, and what its columns may see, by definition."""

import torch
from jaxtyping import Bool
from torch import Tensor

from models.shared_prefix.token_tree import Leaf, Pass, lay_out


def forest() -> Pass:
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
    (tree_pass,) = lay_out(leaves, 10_000)
    return tree_pass


def seen_columns(tree_pass: Pass, window: int | None) -> Bool[Tensor, "columns columns"]:
    """What every column sees: all that stands before it in its own sequence, as far as the window reaches."""
    segments = tree_pass.segments
    seen = torch.zeros(len(tree_pass.ids), len(tree_pass.ids), dtype=torch.bool)
    positions = torch.cat([torch.arange(s.position, s.position + s.end - s.begin) for s in segments])
    for index, segment in enumerate(segments):
        ancestor = index
        while ancestor >= 0:
            seen[segment.begin : segment.end, segments[ancestor].begin : segments[ancestor].end] = True
            ancestor = segments[ancestor].parent
        columns = slice(segment.begin, segment.end)
        seen[columns, columns] = torch.ones(segment.end - segment.begin, segment.end - segment.begin).tril().bool()
    if window is not None:
        seen &= positions[:, None] - positions < window
    return seen
