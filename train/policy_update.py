"""The keys of how messages and their rewards change the compressor: GRPO, or the best message of every group."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from configs.errors import ConfigError, shown
from configs.tree import Section


class PolicyUpdateConfig(Section):
    """What is learned from the messages of a step."""

    update: Literal["grpo", "best_of_n"] = "grpo"
    """What a step learns: grpo moves the probability of every message by how its reward compares within its group;
    best_of_n is a round of expert iteration: of every group the message of the highest reward is learned by maximum
    likelihood (mean over the tokens of all that are kept) where its answer scores above 0, and nothing of the rest."""

    beta: NonNegativeFloat = 0.0
    """Weight of the KL divergence from the compressor that the first step starts from; 0 keeps no reference model."""

    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Distance from 1 at which the probability ratio is clipped."""

    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """Way in which TRL averages the loss over tokens."""


GRPO_ALONE = ("beta", "epsilon", "loss_type")
"""Keys that best of n does not read: its messages all weigh the same, and the ratio of probabilities is 1."""


def check_update(train: PolicyUpdateConfig, token_information: float) -> None:
    """Refuse what the chosen update has no use for.

    Args:
        train: the section ``train``.
        token_information: ``reward.token_information``.

    Raises:
        ConfigError: a key is given that is read with another update alone.
    """
    if train.update == "grpo":
        return
    if changed := [name for name in GRPO_ALONE if getattr(train, name) != type(train).model_fields[name].default]:
        value = shown(getattr(train, changed[0]))
        raise ConfigError(
            f"train.{changed[0]} = {value}: is read with train.update = grpo alone; set that, or drop this"
        )
    if token_information:
        raise ConfigError(
            f"reward.token_information = {token_information}: credits single tokens, and train.update = "
            f"{train.update} learns whole messages; set it to 0, or choose train.update = grpo"
        )
