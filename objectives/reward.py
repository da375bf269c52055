"""The weighted sum of the named rewards of a batch of messages, and metrics of each of them.

GRPO compares messages within a group, so a component teaches only by its spread there: that is what is measured.
"""

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CONSTANT_TOLERANCE = 1e-6
"""The span below which a group's values count as equal: saturated terms differ by rounding alone, far below this."""

SMALLEST_CEILING = 1e-6
"""Nats that a ceiling counts as where it is 0: a message without negatives has a share of 0, not of 0 / 0."""


@dataclass(frozen=True)
class RewardWeights:
    """The weight of each reward component; a component of weight 0 is reported and teaches nothing.

    Attributes:
        accuracy: per unit of the task's metric.
        information: per unit of information passed, as the caller scales it.
        length: per unit of the gated length reward.
        task_information: per unit of task information, as the caller scales it.
        prior_rate: per unit of the rate against a prior, as the caller scales it.
        readability: per unit of how likely a message is as text, as the caller scales it.

    Raises:
        ValueError: a weight is negative or not finite.
    """

    accuracy: float = 1.0
    information: float = 1.0
    length: float = 1.0
    task_information: float = 0.0
    prior_rate: float = 0.0
    readability: float = 0.0

    def __post_init__(self) -> None:
        """Refuse weights that are negative or not finite."""
        weights = dataclasses.asdict(self)
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight < 0:
                raise ValueError(f"reward weight {name} must be finite and not negative, got {weight}")


def combine(
    components: dict[str, Float[Tensor, " messages"]], weights: RewardWeights, group_size: int
) -> tuple[Float[Tensor, " messages"], dict[str, float]]:
    """The weighted sum of the components, and metrics of each.

    A missing value (NaN) is replaced by the mean of its group's values, so that within the group it neither rewards nor
    punishes; a group without any gets 0 throughout, which cancels in the comparison.

    Args:
        components: a value per message for each component, by the name of its weight; NaN is missing.
        weights: the weight of each component; a component of positive weight must be given.
        group_size: messages per group, groups contiguous.

    Returns:
        The rewards (float64), and the metrics: ``reward``, ``reward_std``, ``reward_group_constant`` and, for each
        component, ``rewards/<name>/mean``, ``rewards/<name>/std`` (of the values that are not missing, population),
        ``rewards/<name>/group_constant`` (share of the groups in which the component has no spread and so teaches
        nothing) and ``missing/<name>`` (count).

    Raises:
        ValueError: a component is unknown, absent or infinite, shapes disagree, or the group size does not divide them.
    """
    by_name = dataclasses.asdict(weights)
    _require_components(components, by_name, group_size)
    total = torch.zeros_like(next(iter(components.values())), dtype=torch.float64)
    metrics: dict[str, float] = {}
    for name, component in components.items():
        values = component.double()
        filled = _filled(values, group_size)
        total = total + by_name[name] * filled
        metrics |= _component_metrics(name, values, filled, group_size)
    metrics["reward"] = total.mean().item()
    metrics["reward_std"] = total.std(correction=0).item()
    metrics["reward_group_constant"] = group_constant_share(total, group_size)
    return total, metrics


def group_constant_share(values: Float[Tensor, " messages"], group_size: int) -> float:
    """Share of the contiguous groups without spread, up to ``CONSTANT_TOLERANCE``: nothing is learned from those."""
    groups = values.reshape(-1, group_size)
    return ((groups.amax(dim=1) - groups.amin(dim=1)) <= CONSTANT_TOLERANCE).double().mean().item()


def token_credit(
    terms: Float[Tensor, "messages tokens"], ceilings: Float[Tensor, " messages"], group_size: int
) -> Float[Tensor, "messages tokens"]:
    """What each token adds to the information of its message, as an advantage of that token.

    A term is taken as a share of its message's ceiling and compared with the mean of its group's tokens; the result is
    multiplied by the mean length of a message, so that the credits of one message add up to the size of a reward.

    Args:
        terms: per-token terms of the contrastive bound, nats; NaN after a message's end and where a score is missing.
        ceilings: the ceiling of each message's bound, nats.
        group_size: messages per group, groups contiguous.

    Returns:
        Dimensionless credits, 0 where there is no term.
    """
    shares = terms.double() / ceilings.double()[:, None].clamp(min=SMALLEST_CEILING)
    shares = shares.where(shares.isfinite(), torch.nan)
    means = shares.reshape(-1, group_size * shares.shape[1]).nanmean(dim=1).repeat_interleave(group_size)
    length = (~shares.isnan()).sum(dim=1).double().mean()
    return ((shares - means[:, None]) * length).nan_to_num(nan=0.0)


def _require_components(
    components: dict[str, Float[Tensor, " messages"]], weights: dict[str, float], group_size: int
) -> None:
    """Refuse components and weights that disagree, or values that do not come one a message, in whole groups."""
    unknown = [name for name in components if name not in weights]
    absent = [name for name, weight in weights.items() if weight > 0 and name not in components]
    if unknown or absent:
        raise ValueError(f"reward components and weights disagree: without a weight {unknown}, not computed {absent}")
    lengths = {name: tuple(values.shape) for name, values in components.items()}
    n_messages = next(iter(components.values())).numel()
    if any(shape != (n_messages,) for shape in lengths.values()):
        raise ValueError(f"reward components must have one value a message each, got shapes {lengths}")
    if group_size < 1 or n_messages == 0 or n_messages % group_size:
        raise ValueError(f"group_size must divide the number of messages {n_messages}, got {group_size}")
    for name, values in components.items():
        if values.isinf().any():
            raise ValueError(f"reward component {name} is infinite for {int(values.isinf().sum())} messages")


def _filled(values: Float[Tensor, " messages"], group_size: int) -> Float[Tensor, " messages"]:
    """Missing values replaced by the mean of their group; 0 in a group that has none."""
    means = torch.nanmean(values.reshape(-1, group_size), dim=1).nan_to_num(nan=0.0).repeat_interleave(group_size)
    return torch.where(values.isnan(), means, values)


def _component_metrics(
    name: str, values: Float[Tensor, " messages"], filled: Float[Tensor, " messages"], group_size: int
) -> dict[str, float]:
    present = values[~values.isnan()]
    return {
        f"rewards/{name}/mean": present.mean().item(),
        f"rewards/{name}/std": present.std(correction=0).item() if len(present) else math.nan,
        f"rewards/{name}/group_constant": group_constant_share(filled, group_size),
        f"missing/{name}": float(len(values) - len(present)),
    }
