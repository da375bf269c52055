"""Places to cut a message at: every one can be drawn, none twice, and the seed decides."""

from collections import Counter

import pytest

from objectives.cuts import cut_places


def test_every_place_is_drawn_equally_often() -> None:
    drawn = Counter(place for seed in range(3000) for place in cut_places(6, 1, seed))
    assert set(drawn) == {1, 2, 3, 4, 5}
    assert all(500 < count < 700 for count in drawn.values())


def test_no_place_is_drawn_twice_and_a_short_message_has_few() -> None:
    assert cut_places(4, 99, 0) == [1, 2, 3]
    assert len(set(cut_places(20, 12, 5))) == 12
    assert cut_places(1, 4, 0) == cut_places(0, 4, 0) == cut_places(9, 0, 0) == []


def test_the_seed_decides() -> None:
    assert cut_places(30, 5, 1) == cut_places(30, 5, 1) != cut_places(30, 5, 2)


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1 and 2"):
        cut_places(-1, 2, 0)
