"""Which token may attend to which, and at what position, in a sequence of shared prefixes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.shared_prefix.merged_attention import HIDDEN, Piece
from models.shared_prefix.token_tree import Segment

_BLOCK = 256
"""Columns of neighbouring small segments that attend to each other by a mask."""


class Run(NamedTuple):
    """Segments ``first`` to ``end``: one, or small ones that go on from the same segment or from each other."""

    first: int
    end: int


@dataclass(frozen=True, eq=False)
class Layout:
    """How the columns of one sequence hang together."""

    segments: Sequence[Segment]
    device: torch.device
    made: dict[Any, Any] = field(default_factory=dict, repr=False)
    """What follows from the segments, made once for all layers of one kind."""

    def position_ids(self) -> Int[Tensor, "1 columns"]:
        """The position of every column in the sequence it belongs to."""
        if "positions" not in self.made:
            parts = [torch.arange(s.position, s.position + s.end - s.begin) for s in self.segments]
            self.made["positions"] = torch.cat(parts).to(self.device)[None]
        return self.made["positions"]

    def runs(self) -> list[tuple[Run, slice]]:
        """The sequence in runs, each with the columns of all that goes on from it."""
        if "runs" not in self.made:
            self.made["runs"] = list(self._runs())
        return self.made["runs"]

    def pieces(self, window: int | None, dtype: torch.dtype) -> list[Piece]:
        """What `merged_attention` computes: each run on itself, and on it all that goes on from it."""
        key = ("pieces", window, dtype)
        if key not in self.made:
            found: list[Piece] = []
            for run, behind in self.runs():
                own = self._columns(run)
                mask = self._own_mask(run, window, dtype)
                found.append(Piece(own, own, mask, causal=mask is None))
                if behind.start < behind.stop and (piece := self._piece(behind, own, window, dtype)):
                    found.append(piece)
            self.made[key] = found
        return self.made[key]

    def masked(self, window: int | None, dtype: torch.dtype) -> list[tuple[slice, list[slice], Tensor | None]]:
        """Each run as queries, the runs of its keys, and a mask over these; causal without one."""
        key = ("masked", window, dtype)
        if key not in self.made:
            self.made[key] = [self._masked(run, window, dtype) for run, _ in self.runs()]
        return self.made[key]

    def _runs(self) -> Iterator[tuple[Run, slice]]:
        last = self._last_columns()
        at, count = 0, len(self.segments)
        while at < count:
            begin, parent = self.segments[at].begin, self.segments[at].parent
            end = at
            while end < count and self.segments[end].parent == parent and last[end] - begin <= _BLOCK:
                end = self._behind(end, last)
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
        """Where all that goes on from each segment ends."""
        last = [segment.end for segment in self.segments]
        for index in range(len(last) - 1, -1, -1):
            parent = self.segments[index].parent
            if parent >= 0:
                last[parent] = max(last[parent], last[index])
        return last

    def _behind(self, index: int, last: list[int]) -> int:
        """The first segment that does not go on from this one."""
        at = index + 1
        while at < len(self.segments) and self.segments[at].begin < last[index]:
            at += 1
        return at

    def _columns(self, run: Run) -> slice:
        return slice(self.segments[run.first].begin, self.segments[run.end - 1].end)

    def _ancestors(self, index: int) -> list[int]:
        """The segments that a segment goes on from, the first one first."""
        found: list[int] = []
        while (index := self.segments[index].parent) >= 0:
            found.insert(0, index)
        return found

    def _own_mask(self, run: Run, window: int | None, dtype: torch.dtype) -> Float[Tensor, "1 1 own own"] | None:
        """A run on itself; None is plainly causal."""
        own = self._columns(run)
        size = own.stop - own.start
        if run.end - run.first == 1 and (window is None or size <= window):
            return None
        seen = torch.zeros(size, size, dtype=torch.bool)
        causal = torch.ones(size, size, dtype=torch.bool).tril_()
        for index in range(run.first, run.end):
            segment = self.segments[index]
            rows = slice(segment.begin - own.start, segment.end - own.start)
            seen[rows, rows] = causal[rows, rows]
            for above in (self.segments[other] for other in self._ancestors(index) if other >= run.first):
                seen[rows, above.begin - own.start : above.end - own.start] = True
        seen = seen.to(self.device)
        return _as_mask(seen if window is None else seen & self._near(own, own, window), dtype)

    def _piece(self, queries: slice, keys: slice, window: int | None, dtype: torch.dtype) -> Piece | None:
        """What goes on from a run, on the run: all of it, or what the window reaches; None where it reaches nothing."""
        if window is None:
            return Piece(queries, keys)
        near = self._near(queries, keys, window)
        if not near.any():
            return None
        return Piece(queries, keys, None if near.all() else _as_mask(near, dtype))

    def _near(self, queries: slice, keys: slice, window: int | None) -> Bool[Tensor, "#queries #keys"]:
        positions = self.position_ids()[0]
        if window is None:
            return torch.ones(1, 1, dtype=torch.bool, device=self.device)
        return positions[queries, None] - positions[keys] < window

    def _masked(self, run: Run, window: int | None, dtype: torch.dtype) -> tuple[slice, list[slice], Tensor | None]:
        own = self._columns(run)
        above = [slice(self.segments[i].begin, self.segments[i].end) for i in self._ancestors(run.first)]
        mask = self._own_mask(run, window, dtype)
        if not above:
            return own, [own], mask
        size = own.stop - own.start
        if mask is None:
            mask = _as_mask(torch.ones(size, size, dtype=torch.bool, device=self.device).tril(), dtype)
        parts = [
            _as_mask(self._near(own, keys, window), dtype).expand(1, 1, size, keys.stop - keys.start) for keys in above
        ]
        return own, [*above, own], torch.cat([*parts, mask], dim=-1)


def _as_mask(allowed: Bool[Tensor, "queries keys"], dtype: torch.dtype) -> Float[Tensor, "1 1 queries keys"]:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill_(~allowed, HIDDEN)[None, None]
