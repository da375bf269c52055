"""The multiplier of a constraint: it finds the weight at which the held figure is where it should be."""

import math
import random

import pytest

from objectives.constraint import DAMPING, LEAST, MOST, SMOOTHING, Multiplier, ceiling_exceeded, floor_missed


def test_it_rises_while_the_constraint_is_missed_and_falls_while_it_is_exceeded() -> None:
    missed = Multiplier(2.0).after(floor_missed(0.7, 0.9), 0.5, 10)
    assert missed.violation == pytest.approx(0.2) and missed.level == pytest.approx(2 * math.exp(0.1))
    assert missed.weight(10) == pytest.approx(missed.level * math.exp(0.2 * DAMPING))
    assert Multiplier(2.0).after(floor_missed(1.0, 0.9), 0.5, 10).weight(10) < 2.0
    assert Multiplier(2.0).after(ceiling_exceeded(15.0, 10.0), 1.0, 0).level == pytest.approx(2 * math.exp(0.5))
    met = Multiplier(2.0).after(ceiling_exceeded(10.0, 10.0), 1.0, 10)
    assert (met.level, met.weight(10)) == (2.0, 2.0) and Multiplier(2.0).weight(10) == 2.0


def test_it_is_read_ahead_along_its_trend() -> None:
    before = Multiplier(1.0, violation=0.5, trend=0.0)
    after = before.after(0.2, 1.0, 10)
    fresh = 1 - SMOOTHING
    assert after.violation == pytest.approx(0.5 - 0.3 * fresh) and after.trend == pytest.approx(-0.3 * fresh**2)
    assert after.level == pytest.approx(math.exp(after.violation + 10 * after.trend))
    assert after.weight(10) < after.weight(0)


@pytest.mark.parametrize("start", [0.01, 1.0, 100.0])
def test_it_finds_the_saddle_point_of_a_problem_with_a_known_one(start: float) -> None:
    """A message of t tokens succeeds with probability 1 - exp(-t / 5); shortness costs 0.01 a token.

    The best response to a multiplier m is t = 5 log(20 m), so that an accuracy of 0.9 is held at m = 0.5.
    """
    multiplier, accuracy = Multiplier(start), 0.0
    for _ in range(400):
        tokens = 5 * math.log(max(20 * multiplier.weight(10), 1.0))
        accuracy = 1 - math.exp(-tokens / 5)
        multiplier = multiplier.after(floor_missed(accuracy, 0.9), 0.5, 10)
    assert accuracy == pytest.approx(0.9, abs=1e-3) and multiplier.weight(10) == pytest.approx(0.5, rel=1e-2)


def lengths(ahead: float, lag: float, seed: int) -> list[float]:
    """The lengths of a policy that follows the multiplier late, a share ``lag`` of the way in a step, and noisily.

    At a weight w it tends to 40 / (1 + 4 w) tokens, so that a ceiling of 12 is held at a weight of 0.58.
    """
    generator, multiplier, tokens, seen = random.Random(seed), Multiplier(1.0), 40.0, []
    for _ in range(120):
        tokens += lag * (40 / (1 + 4 * multiplier.weight(ahead)) - tokens)
        measured = tokens * (1 + 0.1 * generator.gauss(0, 1))
        multiplier = multiplier.after(ceiling_exceeded(measured, 12.0), 0.2, ahead)
        seen.append(tokens)
    return seen


@pytest.mark.parametrize("lag", [0.05, 0.15])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_policy_that_follows_late_is_held_without_swinging_far(lag: float, seed: int) -> None:
    held, plain = lengths(10, lag, seed), lengths(0, lag, seed)
    assert min(held) > 2 / 3 * 12 and sum(held[-20:]) / 20 == pytest.approx(12, rel=0.1)
    assert min(plain) < 0.75 * min(held)


def test_it_stays_within_its_bounds_and_one_step_changes_it_by_a_limited_factor() -> None:
    assert Multiplier(MOST).after(1.0, 5.0, 0).level == MOST and Multiplier(LEAST).after(-1.0, 5.0, 0).level == LEAST
    assert Multiplier(MOST, 1.0).weight(10) == MOST
    assert Multiplier(1.0).after(ceiling_exceeded(900.0, 1.0), 1.0, 10).violation == 1


def test_nothing_measured_changes_nothing() -> None:
    assert Multiplier(3.0, 0.2).after(math.nan, 0.5, 10) == Multiplier(3.0, 0.2)


@pytest.mark.parametrize(("level", "rate"), [(0.0, 1.0), (-1.0, 1.0), (1.0, 0.0), (math.inf, 1.0), (1.0, math.nan)])
def test_numbers_that_make_no_sense_are_refused(level: float, rate: float) -> None:
    with pytest.raises(ValueError, match="must be positive and finite"):
        Multiplier(level).after(0.1, rate, 10)
    with pytest.raises(ValueError, match="a ceiling must be above 0"):
        ceiling_exceeded(1.0, 0.0)
