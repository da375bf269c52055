"""The rate-distortion curve D(R) = C exp(-b R) + D0, with R in bits per token and D = 1 - accuracy.

Fitted by non-linear least squares, as the study of compressors and predictors does (He et al., arXiv 2512.21720).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import curve_fit

FEWEST_RATES = 4
"""Three parameters go through any three rates exactly; a fourth is the first that can disagree."""

WIDEST_GAP = 0.5
"""The largest part of the way from the lowest rate to the highest without a point: two clusters have any shape between
them."""


@dataclass(frozen=True)
class Curve:
    """A fitted curve.

    Attributes:
        scale: C, the distortion that rate can remove.
        decay: b, per bit per token.
        floor: D0, the distortion no rate removes.
        residual: root mean square distance of the points from the curve, in distortion.
    """

    scale: float
    decay: float
    floor: float
    residual: float

    def distortion(self, rates: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """D(R) at the given rates, in bits per token."""
        return _distortion(rates, self.scale, self.decay, self.floor)


@dataclass(frozen=True)
class Fit:
    """A curve, or none, and the sentence that says what was fitted or why nothing was."""

    curve: Curve | None
    statement: str


def fit(rates: Sequence[float], distortions: Sequence[float]) -> Fit:
    """Fit D(R) = C exp(-b R) + D0 with C, b >= 0 and 0 <= D0 <= 1.

    Args:
        rates: bits per token, one a point.
        distortions: 1 - accuracy, one a point.

    Returns:
        The fit; without a curve where there are fewer than four different rates, where they leave out half of the way
        between the lowest and the highest, or where distortion does not fall with rate.

    Raises:
        ValueError: as many rates as distortions are needed.
    """
    if len(rates) != len(distortions):
        raise ValueError(f"{len(rates)} rates for {len(distortions)} distortions: one of each a point is needed")
    rate, distortion = np.asarray(rates, dtype=float), np.asarray(distortions, dtype=float)
    distinct = len(np.unique(rate))
    if distinct < FEWEST_RATES:
        return Fit(
            None, f"No curve: {distinct} different rates, and its three parameters need at least {FEWEST_RATES}."
        )
    if gap := _gap(rate):
        return Fit(None, gap)
    try:
        curve = _least_squares(rate, distortion)
    except RuntimeError as error:
        return Fit(None, f"No curve: the fit did not converge ({error}).")
    if _is_flat(curve, rate):
        return Fit(None, "No curve: in these points distortion does not fall as the rate grows.")
    return Fit(
        curve,
        f"Fitted to {len(rate)} points: D(R) = {curve.scale:.3g} exp(-{curve.decay:.3g} R) + {curve.floor:.3f}, "
        f"points on average {curve.residual:.3f} off the curve (root mean square).",
    )


def _gap(rate: Float[np.ndarray, " points"]) -> str:
    """Why the rates cannot tell the shape of a curve; empty where they can."""
    ordered = np.unique(rate)
    gaps = np.diff(ordered)
    widest, share = int(gaps.argmax()), float(gaps.max() / np.ptp(ordered))
    if share <= WIDEST_GAP:
        return ""
    low, high = ordered[widest], ordered[widest + 1]
    return (
        f"No curve: no point lies between {low:.3g} and {high:.3g} bits per token, {100 * share:.0f}% of the way from "
        "the lowest rate to the highest, so nothing tells its shape."
    )


def _distortion(rate: Float[np.ndarray, " points"], scale: float, decay: float, floor: float) -> np.ndarray:
    return scale * np.exp(-decay * rate) + floor


def _least_squares(rate: Float[np.ndarray, " points"], distortion: Float[np.ndarray, " points"]) -> Curve:
    spread = float(np.ptp(rate))
    start = (max(float(np.ptp(distortion)), 1e-3), 1 / spread, min(max(float(distortion.min()), 0.0), 1.0))
    # Decays past these bounds are a straight line or a step between neighbouring points: nothing the points can tell.
    bounds = ([0.0, 1e-3 / spread, 0.0], [np.inf, 50 / spread, 1.0])
    # A step of length nothing, where the points are already met, divides by zero in scipy and is then not taken.
    with np.errstate(divide="ignore", invalid="ignore"):
        parameters, _ = curve_fit(_distortion, rate, distortion, p0=start, bounds=bounds, max_nfev=5000)
    scale, decay, floor = (float(parameter) for parameter in parameters)
    residual = float(np.sqrt(np.mean((_distortion(rate, scale, decay, floor) - distortion) ** 2)))
    return Curve(scale, decay, floor, residual)


def _is_flat(curve: Curve, rate: Float[np.ndarray, " points"]) -> bool:
    """Whether the curve falls by less than a thousandth over the points."""
    ends = curve.distortion(np.array([rate.min(), rate.max()]))
    return bool(ends[0] - ends[1] < 1e-3)
