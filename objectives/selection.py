"""Expert iteration: of every group of messages the best one is kept, and the policy learns it by maximum likelihood.

A round is reward-ranked fine-tuning (RAFT, Dong et al. 2023; ReST, Gulcehre et al. 2023): sample, keep, imitate. What
is kept decides what is learned; nothing is learned from a message by pushing it away.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from objectives.reward import CONSTANT_TOLERANCE


def best_of_groups(
    rewards: Float[Tensor, " messages"], gains: Float[Tensor, " messages"], group_size: int
) -> Float[Tensor, " messages"]:
    """How much each message is learned: of every group the one of the highest reward, in the measure of its success.

    A group whose best message fails keeps none, for imitation would repeat the failure; neither does a group whose
    rewards are all equal, for nothing in it is better than what the policy writes anyhow. Of equal best messages the
    first is kept. An answer that is right in a word or two has often met them by chance: hence the measure.

    Args:
        rewards: one a message; a message whose reward is not finite is never kept.
        gains: by how much the message betters the answer, in the unit of the task's metric: a success is above 0; NaN
            is none.
        group_size: messages per group, groups contiguous.

    Returns:
        The gains of the kept messages, at most 1; 0 for all others.

    Raises:
        ValueError: shapes disagree, or the group size does not divide them.
    """
    if rewards.shape != gains.shape or rewards.ndim != 1 or group_size < 1 or len(rewards) % group_size:
        raise ValueError(
            f"rewards and gains must have one value a message, in whole groups of {group_size}, "
            f"got shapes {tuple(rewards.shape)} and {tuple(gains.shape)}"
        )
    groups = rewards.double().reshape(-1, group_size)
    known = groups.where(groups.isfinite(), -math.inf)
    highest, best = known.max(dim=1)
    lowest = groups.where(groups.isfinite(), math.inf).amin(dim=1)
    succeeds = gains.reshape(-1, group_size).gather(1, best[:, None])[:, 0] > 0
    teaches = succeeds & (highest - lowest > CONSTANT_TOLERANCE)
    places = torch.arange(group_size, device=rewards.device)
    kept = ((places == best[:, None]) & teaches[:, None]).reshape(-1)
    return gains.clamp(max=1.0).where(kept, 0.0)


def selection_sums(
    kept: Bool[Tensor, " messages"],
    rewards: Float[Tensor, " messages"],
    tokens: Int[Tensor, " messages"],
    group_size: int,
) -> Float[Tensor, "4"]:
    """What one process adds to `selection_metrics`: kept messages, groups, and rewards and tokens of the kept ones."""
    values = [kept.sum(), len(kept) // group_size, rewards[kept].sum(), tokens[kept].sum()]
    return torch.tensor([float(value) for value in values], dtype=torch.float64, device=kept.device)


def selection_metrics(sums: Float[Tensor, "processes 4"]) -> dict[str, float]:
    """The share of groups that keep a message, and the mean reward and length (tokens) of kept messages.

    Means are NaN where no process has kept any.
    """
    kept, groups, reward, tokens = (total.item() for total in sums.sum(dim=0).unbind())
    return {
        "kept/group_share": kept / groups,
        "kept/reward": reward / kept if kept else math.nan,
        "kept/tokens": tokens / kept if kept else math.nan,
    }
