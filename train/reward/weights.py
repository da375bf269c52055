"""The weights of the reward at every step: constant, on a schedule, or a multiplier that holds a figure."""

from dataclasses import asdict, replace
from typing import Any, cast

from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from objectives.constraint import Multiplier, ceiling_exceeded, floor_missed
from objectives.reward import RewardWeights
from train.sections.reward import RewardConfig, ScheduleConfig, held_component


class StepWeights(TrainerCallback, ExportableState):
    """What a component is worth at a step. A checkpoint holds the multiplier, and a resumed run goes on with it."""

    def __init__(self, reward: RewardConfig) -> None:
        """Start from the weights of the configuration."""
        self.reward = reward
        self.start = RewardWeights(**reward.model_dump(include=set(RewardWeights.__dataclass_fields__)))
        self.held = None if reward.hold is None else held_component(reward.hold)
        self.multiplier = Multiplier(1.0 if self.held is None else float(getattr(reward, self.held)))

    def at(self, step: int) -> RewardWeights:
        """The weights of a step, from 1."""
        courses = {
            name: scheduled(getattr(self.start, name), schedule, step)
            for name, schedule in self.reward.schedules.items()
        }
        hold = self.reward.hold
        held = {} if hold is None or self.held is None else {self.held: self.multiplier.weight(hold.ahead)}
        return replace(self.start, **courses, **held)

    def take(self, accuracy: float, tokens: float) -> None:
        """Move the multiplier after a step, the same way in every process.

        Args:
            accuracy: mean over the messages of all processes; NaN where it is missing for all of them.
            tokens: their mean length.
        """
        hold = self.reward.hold
        if hold is None:
            return
        missed = floor_missed(accuracy, hold.at) if hold.figure == "accuracy" else ceiling_exceeded(tokens, hold.at)
        self.multiplier = self.multiplier.after(missed, hold.rate, hold.ahead)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds, as Trainer writes it."""
        return {"args": {}, "attributes": asdict(self.multiplier)}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Take the multiplier of the checkpoint that training goes on from."""
        states = cast(dict[str, Any], state.stateful_callbacks or {})
        stored = states.get(type(self).__name__) if state.global_step else None
        if isinstance(stored, dict) and self.held is not None:
            self.multiplier = Multiplier(**stored["attributes"])


def scheduled(start: float, schedule: ScheduleConfig, step: int) -> float:
    """A weight at a step, from 1: constant, a straight line, constant."""
    done = (step - schedule.from_step) / (schedule.to_step - schedule.from_step)
    return start + (schedule.to - start) * min(max(done, 0.0), 1.0)
