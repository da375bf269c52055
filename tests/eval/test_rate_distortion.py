"""The rate-distortion fit against curves with known parameters."""

import numpy as np
import pytest

from eval.analysis.rate_distortion import fit

RATES = np.linspace(0.1, 3.0, 12)


def test_points_on_a_curve_give_its_parameters_back() -> None:
    found = fit(RATES.tolist(), (0.6 * np.exp(-1.7 * RATES) + 0.15).tolist())
    assert found.curve is not None
    assert (found.curve.scale, found.curve.decay, found.curve.floor) == pytest.approx((0.6, 1.7, 0.15), rel=1e-4)
    assert found.curve.residual == pytest.approx(0, abs=1e-6)


def test_noise_moves_the_parameters_little_and_shows_in_the_residual() -> None:
    noise = np.random.default_rng(0).normal(0, 0.02, len(RATES))
    found = fit(RATES.tolist(), (0.6 * np.exp(-1.7 * RATES) + 0.15 + noise).tolist())
    assert found.curve is not None
    assert found.curve.decay == pytest.approx(1.7, rel=0.3)
    assert 0.01 < found.curve.residual < 0.03


def test_three_different_rates_are_too_few_and_it_says_so() -> None:
    found = fit([0.1, 0.2, 0.2, 0.3], [0.5, 0.4, 0.41, 0.3])
    assert found.curve is None
    assert "3 different rates" in found.statement


def test_two_clusters_of_points_tell_no_shape_and_it_says_so() -> None:
    rates = [0.044, 0.05, 0.055, 0.061, 0.07, 0.35, 0.38, 0.4, 0.42, 0.45]
    found = fit(rates, [0.3 - 0.5 * rate for rate in rates])
    assert found.curve is None
    assert found.statement.startswith("No curve: no point lies between 0.07 and 0.35 bits per token, 69% of the way")
    between = [*rates, 0.15, 0.25]
    assert fit(between, [0.3 - 0.5 * rate for rate in between]).curve is not None


def test_no_points_are_too_few() -> None:
    assert fit([], []).curve is None


@pytest.mark.parametrize("distortion", [np.full(12, 0.3), 0.1 + 0.1 * RATES])
def test_distortion_that_does_not_fall_gives_no_curve(distortion: np.ndarray) -> None:
    found = fit(RATES.tolist(), distortion.tolist())
    assert found.curve is None
    assert "does not fall" in found.statement


def test_the_floor_is_never_below_zero_distortion() -> None:
    found = fit(RATES.tolist(), (0.9 - 0.3 * RATES).tolist())
    assert found.curve is not None
    assert found.curve.floor >= 0


def test_as_many_rates_as_distortions_are_needed() -> None:
    with pytest.raises(ValueError, match="2 rates for 1 distortions"):
        fit([0.1, 0.2], [0.3])
