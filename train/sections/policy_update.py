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
    likelihood (mean over the tokens of all that are kept) in the measure in which its answer scores higher than the
    predictor's answer without a message, and nothing of the rest."""

    demonstrations: Annotated[int, Field(ge=0)] = 0
    """Number of messages of a group that are not sampled but told by the gold evidence, as the ``clause`` targets of
    ``train.warm_start`` are, another clause in every step. They are paid like the others, so that best_of_n learns one
    where no sampled message is worth more, and a question that the compressor fails teaches as well. A question
    without evidence, or whose clause is longer than the budget, has sampled messages alone."""

    beta: NonNegativeFloat = 0.0
    """Weight of the KL divergence from the compressor that the first step starts from; 0 keeps no reference model."""

    epsilon: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Distance from 1 at which the probability ratio is clipped."""

    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo"] = "dapo"
    """Way in which TRL averages the loss: over the tokens of the step (dapo), over those of each micro batch (bnpo),
    over those of each message and then over messages (grpo), or as a sum divided by messages times the budget
    (dr_grpo). TRL's other losses differ from these only where messages serve several updates, which none does here."""

    scale_rewards: Literal["group", "batch", "none"] = "group"
    """What a reward's distance from the mean of its group is divided by: the standard deviation of the group, so that a
    group of successes that differ by one token counts as much as one of successes and failures; that of all messages of
    the step; or nothing, so that small differences stay small."""

    importance_sampling_level: Literal["token", "sequence"] = "token"
    """Whether each token has its own ratio of probabilities, or all tokens of a message share the geometric mean of
    theirs (GSPO, whose paper takes ``loss_type: grpo``). Where the policy itself writes, both are 1 and there is no
    difference; there is one where vLLM writes and the adapter has dropout."""


GRPO_ALONE = ("beta", "epsilon", "loss_type", "importance_sampling_level")
"""Keys that best of n does not read, and refuses: it weighs messages by what they gain, and the ratio of probabilities
is 1. ``scale_rewards`` may stand, so that a recipe that has it takes either update: its best stays the best."""


def check_update(train: PolicyUpdateConfig, group_size: int, token_information: float) -> None:
    """Refuse what the chosen update has no use for.

    Args:
        train: the section ``train``.
        group_size: ``train.group_size``.
        token_information: ``reward.token_information``.

    Raises:
        ConfigError: a key is given that is read with another update alone.
    """
    demonstrations = f"train.demonstrations = {train.demonstrations}"
    if train.demonstrations >= group_size:
        raise ConfigError(f"{demonstrations}: leaves no message of {group_size} (train.group_size) to be sampled")
    if train.update == "grpo":
        if train.demonstrations:
            raise ConfigError(
                f"{demonstrations}: are learned as they stand, and train.update = grpo learns from what the policy "
                "itself has sampled; set them to 0, or choose train.update = best_of_n"
            )
        if token_information and train.importance_sampling_level == "sequence":
            raise ConfigError(
                f"reward.token_information = {token_information}: credits single tokens, of which "
                "train.importance_sampling_level = sequence makes one; set it to 0, or choose token"
            )
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
