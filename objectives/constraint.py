"""A constraint in the place of a weight: one figure is held, and the multiplier that holds it is learned.

To minimise tokens while accuracy stays at a floor is to find the saddle point of

    shortness + multiplier * (accuracy - floor),

in the messages, which the reward takes care of, and in the multiplier, which rises while the floor is missed and falls
while it is exceeded (Lagrangian relaxation with dual ascent). The multiplier moves by factors, so that it stays
positive and finds its order of magnitude by itself: the exponentiated gradient of Kivinen and Warmuth (1997).

A policy answers to a weight only over many steps. A multiplier that goes by the sum of the violations alone rises as
long as the figure is on its way, and then far too far: it swings. So the violation is read ahead of time along its
trend, and what the figure weighs goes by how large it is as well as by the sum: the three terms of a PID controller, as
in Stooke et al. (2020), here in logarithms.
"""

import math
from dataclasses import dataclass, replace

LEAST, MOST = 1e-3, 1e3
"""Bounds of a multiplier: beyond, the other components of the reward have no say."""

SMOOTHING = 0.7
"""What the steps before count in a smoothed value: a step has few messages, and its figure is noisy."""

DAMPING = 2.0
"""Logarithm of what a violation of 1 multiplies the weight by, beside what violations have added up to."""


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


@dataclass(frozen=True)
class Multiplier:
    """The state of a multiplier.

    Attributes:
        level: what the violations so far have added up to; above 0.
        violation: that of the last steps, the latest counting most, in [-1, 1]; NaN before the first.
        trend: by how much it has changed a step, smoothed likewise.

    Raises:
        ValueError: a level that is not positive and finite.
    """

    level: float
    violation: float = math.nan
    trend: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a level that no product can get away from."""
        if not 0 < self.level < math.inf:
            raise ValueError(f"a multiplier must be positive and finite, got {self.level}")

    def weight(self, ahead: float) -> float:
        """What the held figure weighs in the next step: more than its level while the constraint is missed.

        Args:
            ahead: see `after`.
        """
        return _bounded(self.level * math.exp(DAMPING * self._expected(ahead)))

    def after(self, violation: float, rate: float, ahead: float) -> "Multiplier":
        """The multiplier after a step: its level is larger by ``exp(rate * expected violation)``.

        Args:
            violation: by how much the constraint was missed in the step: see `floor_missed` and `ceiling_exceeded`.
                NaN, where nothing was measured, leaves the multiplier as it is.
            rate: how fast the level moves.
            ahead: how many steps on along its trend the violation is expected: as many as a policy takes to follow.

        Raises:
            ValueError: a rate that is not positive and finite.
        """
        if not 0 < rate < math.inf:
            raise ValueError(f"a rate must be positive and finite, got {rate}")
        if math.isnan(violation):
            return self
        smoothed, trend = min(max(violation, -1.0), 1.0), 0.0
        if not math.isnan(self.violation):
            smoothed = SMOOTHING * self.violation + (1 - SMOOTHING) * smoothed
            trend = SMOOTHING * self.trend + (1 - SMOOTHING) * (smoothed - self.violation)
        moved = replace(self, violation=smoothed, trend=trend)
        return replace(moved, level=_bounded(self.level * math.exp(rate * moved._expected(ahead))))

    def _expected(self, ahead: float) -> float:
        """The violation so many steps on, in [-1, 1]; 0 before the first step."""
        if math.isnan(self.violation):
            return 0.0
        return min(max(self.violation + ahead * self.trend, -1.0), 1.0)


def _bounded(value: float) -> float:
    return min(max(value, LEAST), MOST)
