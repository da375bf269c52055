"""The multiplier of a constraint: it finds the weight at which the held figure is where it should be."""

import math

import pytest

from objectives.constraint import LEAST, MOST, ceiling_exceeded, floor_missed, next_multiplier


def test_it_rises_while_the_constraint_is_missed_and_falls_while_it_is_exceeded() -> None:
    assert next_multiplier(2.0, floor_missed(0.7, 0.9), 0.5) == pytest.approx(2.0 * math.exp(0.1))
    assert next_multiplier(2.0, floor_missed(1.0, 0.9), 0.5) == pytest.approx(2.0 * math.exp(-0.05))
    assert next_multiplier(2.0, ceiling_exceeded(15.0, 10.0), 1.0) == pytest.approx(2.0 * math.exp(0.5))
    assert next_multiplier(2.0, ceiling_exceeded(10.0, 10.0), 1.0) == 2.0


@pytest.mark.parametrize("start", [0.01, 1.0, 100.0])
def test_it_finds_the_saddle_point_of_a_problem_with_a_known_one(start: float) -> None:
    """A message of t tokens succeeds with probability 1 - exp(-t / 5); shortness costs 0.01 a token.

    The best response to a multiplier m is t = 5 log(20 m), so that an accuracy of 0.9 is held at m = 0.5.
    """
    multiplier, accuracy = start, 0.0
    for _ in range(400):
        tokens = 5 * math.log(max(20 * multiplier, 1.0))
        accuracy = 1 - math.exp(-tokens / 5)
        multiplier = next_multiplier(multiplier, floor_missed(accuracy, 0.9), 0.5)
    assert accuracy == pytest.approx(0.9, abs=1e-3) and multiplier == pytest.approx(0.5, rel=1e-2)


def test_it_stays_within_its_bounds_and_one_step_changes_it_by_a_limited_factor() -> None:
    assert next_multiplier(MOST, 1.0, 5.0) == MOST and next_multiplier(LEAST, -1.0, 5.0) == LEAST
    assert next_multiplier(1.0, ceiling_exceeded(900.0, 1.0), 1.0) == pytest.approx(math.e)


def test_nothing_measured_changes_nothing() -> None:
    assert next_multiplier(3.0, math.nan, 0.5) == 3.0


@pytest.mark.parametrize(
    ("multiplier", "rate"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (1.0, math.nan)]
)
def test_numbers_that_make_no_sense_are_refused(multiplier: float, rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        next_multiplier(multiplier, 0.1, rate)
    with pytest.raises(ValueError, match="a ceiling must be above 0"):
        ceiling_exceeded(1.0, 0.0)
