"""The weighted sum of the rewards, its metrics, and what it refuses."""

import math
import statistics

import pytest
import torch

from objectives.reward import RewardWeights, combine, group_constant_share, token_credit

ACCURACY = torch.tensor([1.0, 0.0, 1.0, 1.0])
INFORMATION = torch.tensor([2.0, 1.0, 0.5, 0.5])
LENGTH = torch.tensor([0.5, 0.0, 0.25, 0.75])


def test_the_total_is_the_weighted_sum() -> None:
    components = {"accuracy": ACCURACY, "information": INFORMATION, "length": LENGTH}
    total, metrics = combine(components, RewardWeights(accuracy=1.0, information=0.5, length=2.0), group_size=2)
    assert total.tolist() == [3.0, 0.5, 1.75, 2.75]
    assert metrics["reward"] == 2.0
    assert metrics["reward_std"] == pytest.approx(statistics.pstdev([3.0, 0.5, 1.75, 2.75]))


def test_every_component_is_measured_by_itself_even_at_weight_zero() -> None:
    weights = RewardWeights(accuracy=1.0, information=0.0, length=0.0)
    total, metrics = combine({"accuracy": ACCURACY, "information": INFORMATION}, weights, group_size=2)
    assert torch.equal(total, ACCURACY.double())
    assert metrics["rewards/information/mean"] == 1.0
    assert metrics["rewards/information/std"] == pytest.approx(statistics.pstdev(INFORMATION.tolist()))
    assert metrics["rewards/accuracy/group_constant"] == metrics["rewards/information/group_constant"] == 0.5
    assert metrics["reward_group_constant"] == 0.5
    assert metrics["missing/accuracy"] == 0.0


def test_a_missing_value_becomes_the_mean_of_its_group_and_is_counted() -> None:
    accuracy = torch.tensor([1.0, math.nan, 0.0, 1.0, 1.0, math.nan])
    total, metrics = combine({"accuracy": accuracy}, RewardWeights(information=0.0, length=0.0), group_size=3)
    assert total.tolist() == [1.0, 0.5, 0.0, 1.0, 1.0, 1.0]
    assert metrics["missing/accuracy"] == 2.0
    assert metrics["rewards/accuracy/mean"] == 0.75
    assert metrics["rewards/accuracy/group_constant"] == 0.5


def test_a_missing_value_moves_no_other_advantage_and_has_none_itself() -> None:
    total, _ = combine(
        {"accuracy": torch.tensor([1.0, math.nan, 0.0])}, RewardWeights(information=0.0, length=0.0), group_size=3
    )
    assert (total - total.mean()).tolist() == pytest.approx([0.5, 0.0, -0.5])


def test_a_group_without_any_value_is_constant() -> None:
    accuracy = torch.tensor([math.nan, math.nan, 0.0, 1.0])
    total, metrics = combine({"accuracy": accuracy}, RewardWeights(information=0.0, length=0.0), group_size=2)
    assert total.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert metrics["rewards/accuracy/mean"] == 0.5
    assert metrics["rewards/accuracy/group_constant"] == 0.5


def test_saturated_terms_that_differ_by_rounding_are_constant() -> None:
    assert group_constant_share(torch.tensor([2.0794415416, 2.0794415417, 1.0, 1.1], dtype=torch.float64), 2) == 0.5


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
@pytest.mark.parametrize("name", ["accuracy", "information", "length", "task_information", "prior_rate", "readability"])
def test_a_weight_that_is_negative_or_not_finite_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"reward weight {name} must be finite and not negative"):
        RewardWeights(**{name: value})


def test_token_credit_favours_the_tokens_that_add_most_and_leaves_padding_alone() -> None:
    nan = math.nan
    terms = torch.tensor([[0.0, 2.0, nan], [1.0, nan, nan], [nan, nan, nan], [3.0, 3.0, 3.0]])
    credit = token_credit(terms, torch.full((4,), 2.0), group_size=2)
    # Shares 0, 1, 0.5 with mean 0.5 in the first group; a message has (2 + 1 + 0 + 3) / 4 = 1.5 tokens on average.
    assert torch.allclose(credit[:2], torch.tensor([[-0.75, 0.75, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64))
    assert (credit[2:] == 0).all()


@pytest.mark.parametrize(
    ("components", "group_size", "line"),
    [
        ({"accuracy": ACCURACY, "style": ACCURACY}, 2, r"without a weight \['style'\], not computed \['length'\]"),
        ({"accuracy": ACCURACY, "length": LENGTH[:2]}, 2, "one value a message each"),
        ({"accuracy": ACCURACY, "length": LENGTH}, 3, "must divide the number of messages 4, got 3"),
        ({"accuracy": ACCURACY, "length": LENGTH}, 0, "must divide the number of messages 4, got 0"),
        ({"accuracy": ACCURACY, "length": LENGTH.log()}, 2, "reward component length is infinite for 1 messages"),
    ],
)
def test_components_that_do_not_fit_are_refused(
    components: dict[str, torch.Tensor], group_size: int, line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        combine(components, RewardWeights(information=0.0), group_size)
