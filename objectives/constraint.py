"""A constraint in the place of a weight: one figure is held, and the multiplier that holds it is learned.

To minimise tokens while accuracy stays at a floor is to find the saddle point of

    shortness + multiplier * (accuracy - floor),

in the messages, which the reward takes care of, and in the multiplier, which rises while the floor is missed and falls
while it is exceeded (Lagrangian relaxation with dual ascent). The multiplier moves by factors, so that it stays
positive and finds its order of magnitude by itself: the exponentiated gradient of Kivinen and Warmuth (1997).
"""

import math

LEAST, MOST = 1e-3, 1e3
"""Bounds of a multiplier: beyond, the other components of the reward have no say."""


def floor_missed(mean: float, floor: float) -> float:
    """By how much a mean is too small: positive below the floor, in the figure's own unit, a share for accuracy."""
    return floor - mean


def ceiling_exceeded(mean: float, ceiling: float) -> float:
    """By how much a mean is too large, as a share of the ceiling: positive above it.

    Raises:
        ValueError: the ceiling is not positive.
    """
    if not ceiling > 0:
        raise ValueError(f"a ceiling must be above 0, got {ceiling}")
    return mean / ceiling - 1


def next_multiplier(multiplier: float, violation: float, rate: float) -> float:
    """The multiplier after a step: larger by ``exp(rate * violation)``.

    Args:
        multiplier: above 0.
        violation: by how much the constraint was missed in the step: see `floor_missed` and `ceiling_exceeded`. NaN,
            where nothing was measured, leaves the multiplier as it is.
        rate: how fast it moves.

    Raises:
        ValueError: a multiplier or a rate that is not positive and finite.
    """
    if not (0 < multiplier < math.inf and 0 < rate < math.inf):
        raise ValueError(f"multiplier and rate must be positive and finite, got {multiplier} and {rate}")
    if math.isnan(violation):
        return multiplier
    return min(max(multiplier * math.exp(rate * min(max(violation, -1.0), 1.0)), LEAST), MOST)
