"""The keys of the reward: weights, the constraint in the place of one, and their courses over the steps."""

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt

from configs.errors import ConfigError, shown
from configs.limits import Weight
from configs.tree import Section

Component = Literal["accuracy", "information", "length", "task_information", "prior_rate", "readability"]
"""The components of the reward of a message."""


class HoldConfig(Section):
    """A figure that is held: its weight becomes a multiplier, which rises while the figure is on the wrong side."""

    figure: Literal["accuracy", "tokens"]
    """What is held: the mean accuracy of messages at no less, or their mean length at no more than ``at``. The
    multiplier takes the place of ``reward.accuracy`` or of ``reward.length``, whose value it starts from."""

    at: PositiveFloat
    """Floor of the accuracy, a share, or ceiling of the length, in tokens."""

    rate: Annotated[float, Field(gt=0, le=100)] = 0.2
    """Speed of the multiplier: after a step its level is larger by exp(rate times what is missed), in points of
    accuracy as a share, or in tokens as a share of the ceiling; smoothed over some steps."""

    ahead: Annotated[float, Field(ge=0, le=10_000)] = 10.0
    """Number of steps by which the figure is read ahead along its trend: about as many as the compressor takes to
    follow a weight. With 0 the figure swings around ``at``."""


class ScheduleConfig(Section):
    """The course of a weight: constant, then a straight line, then constant."""

    to: Weight
    """Weight in the end; it starts from the component's own key."""

    from_step: PositiveInt = 1
    """Last step with the weight at the start."""

    to_step: PositiveInt
    """First step with the weight in the end."""


class RewardConfig(Section):
    """The weight of each component of the reward: 0 reports the component without training on it."""

    accuracy: Weight = 1.0
    """Weight of the task's metric on the predictor's answer, in [0, 1]."""

    information: Weight = 1.0
    """Weight of the information passed, as a share of the bound's ceiling."""

    length: Weight = 1.0
    """Weight of the unused share of the token budget, which pays where the answer is right."""

    task_information: Weight = 0.0
    """Weight of what the message tells the predictor about the gold answer, as a share of its ceiling."""

    prior_rate: Weight = 0.0
    """Weight of the bits by which a message grows likelier from no context to its own, in units of ten bits; it has no
    ceiling."""

    readability: Weight = 0.0
    """Weight of how likely a message is as text to the scorer, which is told the question and shown no context: the
    mean of a token's bits, negative, in units of ten. It keeps messages in the language that the scorer knows."""

    token_information: Weight = 0.0
    """Weight of the information passed that each token adds, credited to that token instead of the whole message."""

    information_floor: Annotated[float, Field(le=0)] = -5.0
    """Least share of the ceiling that counts, so that one message that misleads the scorer does not outweigh a batch.
    Nearer to 0, messages that lose their fact cost too little: at -1 the embedded default cuts values away."""

    length_gate: Literal["message", "group", "none"] = "message"
    """Success that pays for shortness: the message's own, or its group's pass rate. With none shortness pays for
    itself, and a policy that fails anyway learns to fail in fewer tokens, unless ``hold`` keeps its accuracy up."""

    hold: HoldConfig | None = None
    """A constraint in the place of a weight: accuracy at a floor while messages get shorter, or tokens at a ceiling
    while they tell more. null has none."""

    schedules: dict[Component, ScheduleConfig] = Field(default_factory=dict[Component, ScheduleConfig])
    """Courses of weights over the steps, by component: ``{length: {to: 2.0, from_step: 20, to_step: 40}}``."""


def check_reward(reward: RewardConfig, budget: int, steps: int) -> None:
    """Refuse weights that pay for nothing, and constraints and schedules that cannot be kept.

    Args:
        reward: the section.
        budget: the most tokens of a message.
        steps: of the training.

    Raises:
        ConfigError: naming the key.
    """
    weights = {name: getattr(reward, name) for name in (*get_args(Component), "token_information")}
    if not any(weights.values()) and not any(schedule.to for schedule in reward.schedules.values()):
        raise ConfigError(f"reward = {weights}: at least one weight should be positive")
    for name, schedule in reward.schedules.items():
        key = f"reward.schedules.{name}"
        if not schedule.from_step < schedule.to_step <= max(steps, 1):
            raise ConfigError(
                f"{key} = {shown(schedule.model_dump())}: from_step should be below to_step, and that at most the "
                f"train.steps = {steps}"
            )
    if reward.hold is None:
        return
    hold, held = reward.hold, held_component(reward.hold)
    key = f"reward.hold.at = {hold.at}"
    if hold.figure == "accuracy" and hold.at > 1:
        raise ConfigError(f"{key}: an accuracy is a share, from 0 to 1")
    if hold.figure == "tokens" and hold.at > budget:
        raise ConfigError(f"{key}: no message is longer than the compressor.budget_tokens = {budget} anyhow")
    if reward.length_gate not in (("none",) if hold.figure == "accuracy" else ("none", "message")):
        raise ConfigError(
            f"reward.hold: with {hold.figure} held a reward for length that is paid on the success of the "
            f"{reward.length_gate} counts success twice; set reward.length_gate = none"
        )
    if not getattr(reward, held):
        raise ConfigError(f"reward.{held} = 0: the multiplier that holds {hold.figure} starts from it; give more")
    if held in reward.schedules:
        raise ConfigError(f"reward.schedules.{held}: the multiplier of reward.hold is in its place; drop one of them")


def held_component(hold: HoldConfig) -> Component:
    """The component whose weight is the multiplier."""
    return "accuracy" if hold.figure == "accuracy" else "length"
