"""How far one curve of accuracy against tokens lies above another."""

from typing import Any

import numpy as np
import pytest

from eval.analysis.curves import lead, weights


def point(accuracies: list[float | None], tokens: int) -> list[Any]:
    """Records of one point, a document each."""
    return [
        {"task": "t", "document_id": str(number), "accuracy": accuracy, "message_tokens": tokens}
        for number, accuracy in enumerate(accuracies)
    ]


def test_points_weigh_as_the_area_under_straight_lines_has_it() -> None:
    assert weights(np.array([30.0, 10.0, 20.0]), 10, 30) == pytest.approx([0.25, 0.25, 0.5], abs=0.01)
    assert weights(np.array([10.0, 20.0]), 12.5, 12.5) == pytest.approx([0.75, 0.25])
    assert weights(np.array([10.0, 10.0]), 10, 10).tolist() == [1.0, 0.0]


def test_a_point_is_compared_with_the_line_at_its_own_length() -> None:
    rival = [point([0.0] * 4, 10), point([1.0, 1.0, 0.0, 0.0], 30)]
    found = lead([point([1.0, 1.0, 1.0, 0.0], 20)], rival)
    assert found is not None and found["accuracy"]["value"] == pytest.approx(0.75 - 0.25)
    assert (found["from_tokens"], found["to_tokens"]) == (20, 20)
    assert found["accuracy"]["low"] < 0.5 < found["accuracy"]["high"]


def test_two_curves_are_compared_where_both_are() -> None:
    ours = [point([1.0, 0.0], 10), point([1.0, 1.0], 30)]
    rival = [point([0.0, 0.0], 20), point([1.0, 0.0], 40)]
    found = lead(ours, rival)
    assert found is not None and (found["from_tokens"], found["to_tokens"]) == (20, 30)
    assert found["accuracy"]["value"] == pytest.approx((0.75 + 1.0) / 2 - (0.0 + 0.25) / 2)


def test_without_a_common_length_or_an_accuracy_nothing_is_compared() -> None:
    assert lead([point([1.0], 9)], [point([1.0], 10)]) is None
    assert lead([point([None], 10)], [point([1.0], 10)]) is None
