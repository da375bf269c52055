"""The length reward: short messages are worth more, but only where they succeed.

A penalty on length alone is earned most easily by saying nothing: a policy that fails often anyway loses nothing by
failing in fewer tokens, and learns that before it learns to answer ("fail fast").
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Gate = Literal["message", "group", "none"]
"""What a message's shortness is multiplied by: its own success, the pass rate of its group, or nothing."""


def length_reward(
    tokens: Int[Tensor, " messages"],
    success: Float[Tensor, " messages"],
    budget: int | Int[Tensor, " messages"],
    gate: Gate = "message",
    group_size: int | None = None,
) -> Float[Tensor, " messages"]:
    """``success * (1 - tokens / budget)``, in [0, 1]: best for the shortest success, 0 for every failure.

    The reward is a bonus and not a penalty ``-success * tokens / budget``, although both are gated: under the penalty a
    failure (0) beats a success of 30% of the budget (-0.3), so the gate itself would pay for failing unless accuracy
    outweighs it. Here failing never pays, whatever the weights, and all failures are worth the same, however short.

    Args:
        tokens: message lengths, tokens; beyond the budget the reward is 0.
        success: how well each message was answered from, in [0, 1]; NaN is a missing score.
        budget: the maximum tokens of a message, or of each.
        gate: "message" multiplies by the message's own success; "group" by its group's pass rate (the mean of the
            successes that are not missing), so that shortness counts the more, the better the group already answers,
            for failures of that group too: it needs an accuracy reward beside it. "none" pays failures as well: it
            needs a multiplier that holds the accuracy (`objectives.constraint`).
        group_size: messages per group, groups contiguous; needed by the gate "group" alone.

    Returns:
        The rewards, float64; NaN where the gate's success is missing.

    Raises:
        ValueError: budget below 1, shapes that disagree, a negative length, success outside [0, 1], an unknown gate, or
            a group size that does not divide the number of messages.
    """
    budgets = torch.as_tensor(budget, device=tokens.device)
    _require_lengths(tokens, success, budgets)
    if gate == "message":
        gates = success.double()
    elif gate == "group":
        gates = _pass_rates(success.double(), group_size)
    elif gate == "none":
        gates = torch.ones_like(success, dtype=torch.float64)
    else:
        raise ValueError(f"unknown gate {gate!r}: choose 'message', 'group' or 'none'")
    return gates * (1 - tokens.double() / budgets).clamp(min=0)


def _require_lengths(tokens: Int[Tensor, " messages"], success: Float[Tensor, " messages"], budgets: Tensor) -> None:
    """Refuse lengths, successes or budgets outside their ranges, and shapes that disagree."""
    if (budgets < 1).any():
        raise ValueError(f"budget must be at least 1 token, got {int(budgets.min())}")
    if budgets.ndim and budgets.shape != tokens.shape:
        raise ValueError(f"one budget a length, or one for all: got {tuple(budgets.shape)} and {tuple(tokens.shape)}")
    if tokens.shape != success.shape:
        raise ValueError(f"one success a length: got shapes {tuple(tokens.shape)} and {tuple(success.shape)}")
    if (tokens < 0).any():
        raise ValueError(f"a message cannot have {int(tokens.min())} tokens")
    outside = (success < 0) | (success > 1)
    if outside.any():
        raise ValueError(f"success must lie in [0, 1], got {success[outside][0].item()}")


def _pass_rates(success: Float[Tensor, " messages"], group_size: int | None) -> Float[Tensor, " messages"]:
    """Each message's group's mean success, missing ones left out; NaN in a group that has none."""
    if group_size is None or group_size < 1 or len(success) % group_size:
        raise ValueError(f"group_size must divide the {len(success)} messages, got {group_size}")
    return torch.nanmean(success.reshape(-1, group_size), dim=1).repeat_interleave(group_size)
