"""Sequences that begin alike as trees, laid out in passes in which every token of a tree is read once.

A stem is what messages follow: a context with a question. Stems that begin with the same tokens, as questions about one
document and versions of it do, are branches of one tree, and messages are its leaves.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

LEAST_SHARED = 8
"""Tokens that stems must go on with in common to share a branch: every branch costs attention a few more kernel calls
in each layer, more than reading a few tokens twice."""


class Leaf(NamedTuple):
    """A message.

    Attributes:
        key: the number of its prefix, and its number among the continuations of that prefix.
        ids: its tokens.
    """

    key: tuple[int, int]
    ids: Sequence[int]


@dataclass
class Node:
    """A run of tokens, the messages that follow it, and the nodes that go on from it."""

    ids: Sequence[int]
    leaves: list[Leaf] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)


class Segment(NamedTuple):
    """Some columns of a pass, read as the continuation of another segment.

    Attributes:
        begin: the first column.
        end: the column after the last.
        parent: the index of the segment it goes on from; -1 where it begins a tree.
        position: the position of its first token in the sequence it belongs to.
    """

    begin: int
    end: int
    parent: int
    position: int


@dataclass
class Pass:
    """One sequence for a model to read: trees in depth-first order.

    Attributes:
        ids: the tokens.
        segments: how they hang together.
        kept: the columns that message tokens are predicted from, message by message.
        leaves: the messages.
        opened: the index of the segment of each node that was read, by the node's identity.
    """

    ids: list[int] = field(default_factory=list)
    segments: list[Segment] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    leaves: list[Leaf] = field(default_factory=list)
    opened: dict[int, int] = field(default_factory=dict, repr=False)

    def needed(self, path: Sequence[Node], leaf: Leaf) -> int:
        """How many tokens a message after these nodes would add."""
        return sum(len(node.ids) for node in path if id(node) not in self.opened) + len(leaf.ids) - 1

    def add(self, path: Sequence[Node], leaf: Leaf) -> None:
        """Read a message after these nodes, and those of them that are not read yet."""
        parent = -1
        for node in path:
            if id(node) not in self.opened:
                self.opened[id(node)] = self._append(node.ids, parent)
            parent = self.opened[id(node)]
        self.kept.append(self.segments[parent].end - 1)
        self.leaves.append(leaf)
        # The last token predicts nothing that is asked for, so it is not read.
        if len(leaf.ids) > 1:
            segment = self.segments[self._append(leaf.ids[:-1], parent)]
            self.kept.extend(range(segment.begin, segment.end))

    def _append(self, ids: Sequence[int], parent: int) -> int:
        begin = len(self.ids)
        parent_segment = self.segments[parent] if parent >= 0 else None
        position = parent_segment.position + parent_segment.end - parent_segment.begin if parent_segment else 0
        self.ids.extend(ids)
        self.segments.append(Segment(begin, begin + len(ids), parent, position))
        return len(self.segments) - 1


def lay_out(stems: Sequence[tuple[Sequence[int], Leaf]], max_tokens: int) -> list[Pass]:
    """Passes in which every message is read once and every stem as seldom as ``max_tokens`` allows.

    Args:
        stems: for each message what it follows, at least one token, and the message, at least one token.
        max_tokens: bound on the tokens of a pass. A stem is followed by one message at least, and by as many as make up
            its own length, so that reading a long stem again at most doubles what is read.
    """
    by_stem: dict[tuple[int, ...], list[Leaf]] = {}
    for ids, leaf in stems:
        by_stem.setdefault(tuple(ids), []).append(leaf)
    passes: list[Pass] = []
    for path, leaf in _messages(_trees(sorted(by_stem), by_stem, 0), []):
        limit = max(max_tokens, 2 * sum(len(node.ids) for node in path))
        if not passes or len(passes[-1].ids) + passes[-1].needed(path, leaf) > limit:
            passes.append(Pass())
        passes[-1].add(path, leaf)
    return passes


def _trees(stems: Sequence[tuple[int, ...]], leaves: dict[tuple[int, ...], list[Leaf]], depth: int) -> list[Node]:
    """What sorted stems go on with after the ``depth`` tokens they all have in common, shared where it is worth it."""
    nodes = []
    for group in _alike(stems, depth):
        shared = min(map(len, group)) if len(group) == 1 else common_length(group[0], group[-1])
        node = Node(group[0][depth:shared], leaves[group[0]] if len(group[0]) == shared else [])
        node.children = _trees(group[len(node.leaves) > 0 :], leaves, shared) if len(group) > 1 else []
        nodes.append(node)
    return nodes


def _alike(stems: Sequence[tuple[int, ...]], depth: int) -> Iterator[Sequence[tuple[int, ...]]]:
    """Neighbours that go on with at least `LEAST_SHARED` tokens in common, group by group."""
    begin = 0
    for at in range(1, len(stems) + 1):
        if at == len(stems) or common_length(stems[at - 1], stems[at]) < depth + LEAST_SHARED:
            yield stems[begin:at]
            begin = at


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common, by bisection over comparisons of whole runs."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _messages(nodes: Sequence[Node], above: Sequence[Node]) -> Iterator[tuple[list[Node], Leaf]]:
    """Every message with the path of nodes it follows, depth first."""
    for node in nodes:
        path = [*above, node]
        yield from ((path, leaf) for leaf in node.leaves)
        yield from _messages(node.children, path)
