"""The length reward: what it orders before what."""

import math
from typing import Any

import pytest
import torch

from objectives.length import length_reward


def test_the_reward_is_success_times_the_unused_share_of_the_budget() -> None:
    rewards = length_reward(torch.tensor([0, 16, 64, 16]), torch.tensor([1.0, 1.0, 1.0, 0.5]), 64)
    assert rewards.tolist() == [1.0, 0.75, 0.0, 0.375]


def test_failing_never_pays_however_short_the_message() -> None:
    rewards = length_reward(torch.tensor([0, 5, 63]), torch.tensor([0.0, 0.0, 1.0]), 64)
    assert rewards[0] == rewards[1] == 0.0
    assert rewards[2] > rewards[0]


def test_beyond_the_budget_the_reward_is_zero_and_not_negative() -> None:
    assert length_reward(torch.tensor([65, 1000]), torch.ones(2), 64).tolist() == [0.0, 0.0]


def test_the_group_gate_is_the_pass_rate_of_the_own_group() -> None:
    tokens, success = torch.tensor([32, 0, 0, 0]), torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert length_reward(tokens, success, 64, gate="group", group_size=2).tolist() == [0.25, 0.5, 0.0, 0.0]


def test_a_missing_success_is_missing_under_the_own_gate_and_left_out_of_the_pass_rate() -> None:
    tokens, success = torch.zeros(4, dtype=torch.long), torch.tensor([1.0, math.nan, math.nan, math.nan])
    assert length_reward(tokens, success, 64).isnan().tolist() == [False, True, True, True]
    by_group = length_reward(tokens, success, 64, gate="group", group_size=2)
    assert by_group[:2].tolist() == [1.0, 1.0] and by_group[2:].isnan().all()


@pytest.mark.parametrize(
    ("tokens", "success", "keywords", "line"),
    [
        ([1], [1.0], {"budget": 0}, "budget must be at least 1 token, got 0"),
        ([1, 2], [1.0], {"budget": 8}, "one success a length"),
        ([-1], [1.0], {"budget": 8}, "cannot have -1 tokens"),
        ([1], [1.5], {"budget": 8}, r"success must lie in \[0, 1\], got 1.5"),
        ([1], [1.0], {"budget": 8, "gate": "batch"}, "unknown gate 'batch'"),
        ([1, 1, 1], [1.0] * 3, {"budget": 8, "gate": "group", "group_size": 2}, "must divide the 3 messages, got 2"),
        ([1], [1.0], {"budget": 8, "gate": "group"}, "must divide the 1 messages, got None"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tokens: list[int], success: list[float], keywords: dict[str, Any], line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        length_reward(torch.tensor(tokens), torch.tensor(success), **keywords)
