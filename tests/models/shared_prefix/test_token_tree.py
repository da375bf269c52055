"""Trees of sequences: every message once, after its own stem, and what stems share as seldom as there is room for."""

import random

import pytest

from models.shared_prefix.token_tree import LEAST_SHARED, Leaf, Pass, common_length, lay_out


def stems_with_messages(seed: int) -> list[tuple[list[int], Leaf]]:
    """Stems that share tokens at several depths, some of them a beginning of others, with one to four messages."""
    generator = random.Random(seed)
    stems = [[generator.randrange(4) for _ in range(generator.randint(1, 40))] for _ in range(6)]
    for _ in range(12):
        stem = generator.choice(stems)
        stems.append([*stem[: generator.randint(1, len(stem))], *[generator.randrange(4) for _ in range(20)]])
    return [
        (stem, Leaf((number, message), [generator.randrange(4) for _ in range(generator.randint(1, 9))]))
        for number, stem in enumerate(stems)
        for message in range(generator.randint(1, 4))
    ]


def sequence_before(tree_pass: Pass, column: int) -> list[int]:
    """The tokens up to a column, by the segments it goes on from."""
    index = next(i for i, segment in enumerate(tree_pass.segments) if segment.begin <= column < segment.end)
    segments = tree_pass.segments
    ids = tree_pass.ids[segments[index].begin : column + 1]
    while (index := segments[index].parent) >= 0:
        ids = tree_pass.ids[segments[index].begin : segments[index].end] + ids
    return ids


@pytest.mark.parametrize("max_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_every_message_token_is_predicted_from_all_that_stands_before_it(seed: int, max_tokens: int) -> None:
    stems = stems_with_messages(seed)
    stem_of = {leaf.key: stem for stem, leaf in stems}
    keys = []
    for tree_pass in lay_out(stems, max_tokens):
        kept = iter(tree_pass.kept)
        for leaf in tree_pass.leaves:
            for length in range(len(leaf.ids)):
                assert sequence_before(tree_pass, next(kept)) == [*stem_of[leaf.key], *leaf.ids[:length]]
            keys.append(leaf.key)
        assert list(kept) == []
        for segment in tree_pass.segments:
            assert segment.position == len(sequence_before(tree_pass, segment.begin)) - 1
    assert sorted(keys) == sorted(leaf.key for _, leaf in stems)


def test_passes_keep_to_the_bound_but_for_a_long_stem() -> None:
    stems = stems_with_messages(0)
    longest = max(len(stem) + len(leaf.ids) for stem, leaf in stems)
    for max_tokens in (1, 50, 100):
        assert all(len(tree_pass.ids) <= max(max_tokens, 2 * longest) for tree_pass in lay_out(stems, max_tokens))


def test_segments_of_a_pass_are_in_depth_first_order() -> None:
    for tree_pass in lay_out(stems_with_messages(3), 10_000):
        for index, segment in enumerate(tree_pass.segments):
            assert segment.parent < index
            between = tree_pass.segments[segment.parent + 1 : index] if segment.parent >= 0 else []
            assert all(neighbour.parent >= segment.parent for neighbour in between)


def test_what_stems_share_is_read_once() -> None:
    shared, least = list(range(30)), LEAST_SHARED
    stems = [([*shared, *[40 + n] * least], Leaf((n, m), [1, 2])) for n in range(3) for m in range(2)]
    (tree_pass,) = lay_out(stems, 1000)
    assert len(tree_pass.ids) == 30 + 3 * least + 6


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [("", "", 0), ("a", "", 0), ("abc", "abd", 2), ("abc", "abc", 3), ("abc", "abcd", 3)],
)
def test_the_common_length_is_that_of_the_longest_common_beginning(first: str, second: str, expected: int) -> None:
    assert common_length([ord(letter) for letter in first], [ord(letter) for letter in second]) == expected
