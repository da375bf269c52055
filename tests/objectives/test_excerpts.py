"""Runs of a message's words: every proper one can be drawn, none twice, and the seed decides."""

from collections import Counter

import pytest

from objectives.excerpts import word_runs


def test_every_proper_run_is_drawn_equally_often() -> None:
    drawn = Counter(run for seed in range(3000) for run in word_runs(3, 1, seed))
    assert set(drawn) == {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}
    assert all(500 < count < 700 for count in drawn.values())


def test_no_run_is_drawn_twice_and_a_short_message_has_few() -> None:
    assert sorted(word_runs(3, 99, 0)) == [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)]
    assert len(set(word_runs(20, 12, 5))) == 12
    assert word_runs(1, 4, 0) == word_runs(0, 4, 0) == word_runs(9, 0, 0) == []


def test_the_seed_decides() -> None:
    assert word_runs(30, 5, 1) == word_runs(30, 5, 1) != word_runs(30, 5, 2)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1 and 2"):
        word_runs(-1, 2, 0)
