"""The components of the reward that every message has: accuracy, information and length, sampled or greedy."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from objectives.length import length_reward
from objectives.mutual_information import Estimate
from train.sections.reward import RewardConfig

MIN_CEILING_NATS = 1e-6
"""The least ceiling that a share is taken of: a ceiling of 0 becomes a share of 0, not a division by zero."""


def basic_components(
    accuracy: Float[Tensor, " messages"],
    information: Estimate,
    tokens: Int[Tensor, " messages"],
    budgets: Int[Tensor, " messages"],
    reward: RewardConfig,
    group_size: int,
) -> dict[str, Float[Tensor, " messages"]]:
    """What messages earn by accuracy, information and length, before it is weighed; NaN is missing.

    Args:
        accuracy: the metric on what the predictor answered from each; NaN is missing.
        information: what each tells about its context, with a ceiling, nats.
        tokens: their lengths.
        budgets: the most tokens that each was to have.
        reward: the section of the configuration.
        group_size: messages of a group, groups contiguous.
    """
    return {
        "accuracy": accuracy,
        "information": share_of_ceiling(information).clamp(min=reward.information_floor),
        "length": length_reward(tokens, accuracy, budgets, reward.length_gate, group_size),
    }


def share_of_ceiling(estimate: Estimate) -> Float[Tensor, " messages"]:
    """Terms as a share of the most that the estimator can show; what is not finite is missing.

    Raises:
        ValueError: the estimator has no ceiling.
    """
    if estimate.ceiling is None:
        raise ValueError("an estimate without a ceiling has no share of it")
    share = estimate.terms / estimate.ceiling.clamp(min=MIN_CEILING_NATS)
    return share.where(share.isfinite(), torch.nan)
