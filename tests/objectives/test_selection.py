"""What best of n keeps: the best success of every group, and nothing where a group has nothing to teach."""

import math

import pytest
import torch

from objectives.selection import best_of_groups, selection_metrics, selection_sums


def kept(rewards: list[float], accuracy: list[float], group_size: int = 3) -> list[int]:
    """The places of kept messages."""
    chosen = best_of_groups(torch.tensor(rewards), torch.tensor(accuracy), group_size)
    return chosen.nonzero()[:, 0].tolist()


def test_the_best_success_of_every_group_is_kept() -> None:
    assert kept([0.1, 0.9, 0.3, 2.0, 1.0, 1.5], [1.0, 1.0, 0.0, 1.0, 0.0, 1.0]) == [1, 3]


def test_a_group_whose_best_message_fails_keeps_none() -> None:
    assert kept([0.1, 0.9, 0.3], [1.0, 0.0, 0.0]) == []
    assert kept([0.1, 0.9, 0.3], [0.0, 0.0, 0.0]) == []


def test_a_partial_success_is_one_and_a_missing_metric_is_none() -> None:
    assert kept([0.1, 0.9, 0.3], [0.0, 0.2, 1.0]) == [1]
    assert kept([0.1, 0.9, 0.3], [1.0, math.nan, 1.0]) == []


def test_a_message_is_learned_in_the_measure_of_its_gain_and_never_more_than_once() -> None:
    weights = best_of_groups(torch.tensor([0.1, 0.9, 2.0, 0.3]), torch.tensor([0.9, 0.25, 3.0, 0.5]), 2)
    assert weights.tolist() == [0, 0.25, 1, 0]


def test_a_group_of_equal_rewards_keeps_none() -> None:
    assert kept([1.0, 1.0, 1.0 + 1e-7], [1.0, 1.0, 1.0]) == []


def test_of_equal_best_messages_the_first_is_kept() -> None:
    assert kept([0.2, 0.7, 0.7], [1.0, 1.0, 1.0]) == [1]


def test_a_reward_that_is_not_finite_is_never_kept() -> None:
    assert kept([math.nan, 0.5, 0.4], [1.0, 1.0, 1.0]) == [1]
    assert kept([math.inf, 0.5, 0.4], [1.0, 1.0, 1.0]) == [1]
    assert kept([math.nan, math.nan, math.nan], [1.0, 1.0, 1.0]) == []


def test_messages_out_of_whole_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="whole groups of 2"):
        kept([0.1, 0.2, 0.3], [1.0, 1.0, 1.0], group_size=2)
    with pytest.raises(ValueError, match="whole groups"):
        kept([0.1, 0.2], [1.0], group_size=1)


def test_metrics_join_the_messages_of_all_processes() -> None:
    first = selection_sums(torch.tensor([True, False]), torch.tensor([2.0, 9.0]), torch.tensor([10, 99]), 2)
    second = selection_sums(
        torch.tensor([False, True, False, True]),
        torch.tensor([9.0, 1.0, 9.0, 0.0]),
        torch.tensor([99, 4, 99, 1]),
        2,
    )
    third = selection_sums(torch.tensor([False, False]), torch.tensor([1.0, 1.0]), torch.tensor([5, 5]), 2)
    metrics = selection_metrics(torch.stack([first, second, third]))
    assert metrics == {"kept/group_share": 0.75, "kept/reward": 1.0, "kept/tokens": 5.0}
    none = selection_metrics(third[None])
    assert none["kept/group_share"] == 0 and math.isnan(none["kept/reward"]) and math.isnan(none["kept/tokens"])
