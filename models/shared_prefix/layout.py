"""Which token may attend to which, and at what position, in a sequence of shared prefixes."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.shared_prefix.merged_attention import HIDDEN, Piece
from models.shared_prefix.token_tree import Segment

BLOCK = 256
"""Columns of neighbouring small segments that attend to each other in one kernel call, by a mask. A wider block
computes more that the mask hides, a narrower one takes more calls."""


class Run(NamedTuple):
    """Segments ``first`` to ``end``: one, or small ones that go on from the same segment or from each other."""

    first: int
    end: int


class Masked(NamedTuple):
    """A run that attends to all of its keys at once.

    Attributes:
        queries: the columns of the run.
        keys: the columns of every segment it goes on from, then its own.
        mask: 0 where a query sees a key, `HIDDEN` elsewhere; None is plainly causal.
    """

    queries: slice
    keys: list[slice]
    mask: Float[Tensor, "1 1 queries keys"] | None


class Layout:
    """How the columns of one sequence hang together.

    What attention needs of it follows from the segments, and is computed once for all layers of one kind.

    Attributes:
        segments: the sequence, in depth-first order.
        device: where positions and masks are.
        reached: whether attention was computed by this layout; not so in a model that goes around transformers'
            attention interface.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        """Take the segments of a pass (see `models.shared_prefix.token_tree.lay_out`)."""
        self.segments = segments
        self.device = device
        self.reached = False
        self._pieces: dict[tuple[int | None, torch.dtype], list[Piece]] = {}
        self._masked: dict[tuple[int | None, torch.dtype], list[Masked]] = {}

    @cached_property
    def position_ids(self) -> Int[Tensor, "1 columns"]:
        """The position of every column in the sequence it belongs to."""
        parts = [torch.arange(s.position, s.position + s.end - s.begin) for s in self.segments]
        return torch.cat(parts).to(self.device)[None]

    @cached_property
    def runs(self) -> list[tuple[Run, slice]]:
        """The sequence in runs, each with the columns of all that goes on from it."""
        return list(self._runs())

    def pieces(self, window: int | None, dtype: torch.dtype) -> list[Piece]:
        """What `merged_attention` computes: each run on itself, and all that goes on from a run on that run.

        Args:
            window: tokens that a query sees, itself included; None sees all before it.
            dtype: the type of the masks, which is that of the queries.
        """
        key = (window, dtype)
        if key not in self._pieces:
            self._pieces[key] = list(self._make_pieces(window, dtype))
        return self._pieces[key]

    def masked(self, window: int | None, dtype: torch.dtype) -> list[Masked]:
        """What one kernel call for each run computes, with arguments as for `pieces`."""
        key = (window, dtype)
        if key not in self._masked:
            self._masked[key] = [self._mask_run(run, window, dtype) for run, _ in self.runs]
        return self._masked[key]

    def _runs(self) -> Iterator[tuple[Run, slice]]:
        last = self._last_columns()
        at, count = 0, len(self.segments)
        while at < count:
            begin, parent = self.segments[at].begin, self.segments[at].parent
            end = at
            while end < count and self.segments[end].parent == parent and last[end] - begin <= BLOCK:
                end = self._after(end, last)
                # Trees share nothing, not even a mask: what is not a number in one must not reach another.
                if parent < 0:
                    break
            if end > at:
                stop = self.segments[end - 1].end
                yield Run(at, end), slice(stop, stop)
                at = end
            else:
                yield Run(at, at + 1), slice(self.segments[at].end, last[at])
                at += 1

    def _last_columns(self) -> list[int]:
        """The column after all that goes on from each segment."""
        last = [segment.end for segment in self.segments]
        for index in range(len(last) - 1, -1, -1):
            parent = self.segments[index].parent
            if parent >= 0:
                last[parent] = max(last[parent], last[index])
        return last

    def _after(self, index: int, last: list[int]) -> int:
        """The first later segment that does not go on from this one."""
        at = index + 1
        while at < len(self.segments) and self.segments[at].begin < last[index]:
            at += 1
        return at

    def _columns(self, run: Run) -> slice:
        return slice(self.segments[run.first].begin, self.segments[run.end - 1].end)

    def _ancestors(self, index: int) -> list[int]:
        """The segments that a segment goes on from, the first one first."""
        ancestors: list[int] = []
        while (index := self.segments[index].parent) >= 0:
            ancestors.insert(0, index)
        return ancestors

    def _make_pieces(self, window: int | None, dtype: torch.dtype) -> Iterator[Piece]:
        for run, later in self.runs:
            columns = self._columns(run)
            mask = self._run_mask(run, window, dtype)
            yield Piece(columns, columns, mask, causal=mask is None)
            if later.start < later.stop and (piece := self._later_piece(later, columns, window, dtype)):
                yield piece

    def _later_piece(self, queries: slice, keys: slice, window: int | None, dtype: torch.dtype) -> Piece | None:
        """What goes on from a run, on the run: all of it, or what the window reaches; None where it reaches nothing."""
        if window is None:
            return Piece(queries, keys)
        near = self._near(queries, keys, window)
        if not near.any():
            return None
        return Piece(queries, keys, None if near.all() else _as_mask(near, dtype))

    def _run_mask(self, run: Run, window: int | None, dtype: torch.dtype) -> Float[Tensor, "1 1 run run"] | None:
        """The mask of a run on itself; None is plainly causal."""
        columns = self._columns(run)
        size = columns.stop - columns.start
        if run.end - run.first == 1 and (window is None or size <= window):
            return None
        seen = torch.zeros(size, size, dtype=torch.bool)
        causal = torch.ones(size, size, dtype=torch.bool).tril_()
        for index in range(run.first, run.end):
            segment = self.segments[index]
            rows = slice(segment.begin - columns.start, segment.end - columns.start)
            seen[rows, rows] = causal[rows, rows]
            for above in (self.segments[ancestor] for ancestor in self._ancestors(index) if ancestor >= run.first):
                seen[rows, above.begin - columns.start : above.end - columns.start] = True
        seen = seen.to(self.device)
        return _as_mask(seen if window is None else seen & self._near(columns, columns, window), dtype)

    def _near(self, queries: slice, keys: slice, window: int | None) -> Bool[Tensor, "#queries #keys"]:
        """Which keys a window reaches back to."""
        positions = self.position_ids[0]
        if window is None:
            return torch.ones(1, 1, dtype=torch.bool, device=self.device)
        return positions[queries, None] - positions[keys] < window

    def _mask_run(self, run: Run, window: int | None, dtype: torch.dtype) -> Masked:
        columns = self._columns(run)
        above = [slice(self.segments[i].begin, self.segments[i].end) for i in self._ancestors(run.first)]
        mask = self._run_mask(run, window, dtype)
        if not above:
            return Masked(columns, [columns], mask)
        size = columns.stop - columns.start
        if mask is None:
            mask = _as_mask(torch.ones(size, size, dtype=torch.bool, device=self.device).tril(), dtype)
        parts = [
            _as_mask(self._near(columns, keys, window), dtype).expand(1, 1, size, keys.stop - keys.start)
            for keys in above
        ]
        return Masked(columns, [*above, columns], torch.cat([*parts, mask], dim=-1))


def _as_mask(seen: Bool[Tensor, "queries keys"], dtype: torch.dtype) -> Float[Tensor, "1 1 queries keys"]:
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    # A type of less range takes the least number it has, which hides as well.
    return mask.masked_fill_(~seen, max(HIDDEN, torch.finfo(dtype).min))[None, None]
