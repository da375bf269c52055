"""The keys of joint training: how the predictor learns to read what the compressor learns to write."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from configs.limits import Documents, StepPart, Weight
from configs.tree import Section


class PredictorUpdateConfig(Section):
    """Learning of the predictor beside the compressor: maximum likelihood of the gold answer from its messages."""

    schedule: Literal["simultaneous", "alternating", "predictor_first"] = "simultaneous"
    """Who learns in a step: both; in turn, the compressor for ``period`` steps and then the predictor for as many; or
    the predictor for the first ``period`` steps, and the compressor in all after them."""

    period: PositiveInt = 5
    """Number of steps after which the schedule changes who learns; unused where both do in every step."""

    messages: Literal["all", "best"] = "all"
    """Messages of a step that are learned from: all, or of every group the one of the highest reward."""

    batch_size: StepPart = 32
    """Number of messages, over all processes, that the predictor's one update a step learns from."""

    replayed: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of them that was written in earlier steps, as far as there are so many."""

    replay: Documents = 1024
    """Number of the latest messages that are kept for it."""

    learning_rate: PositiveFloat = 1e-4
    """Step size of the predictor's own AdamW, on the course of ``train.learning_rate_schedule``, without warm-up."""

    kl: Weight = 0.0
    """Weight of the divergence from the predictor as it started, KL(start || now) in nats a token, over answers that
    the start draws from the same messages; 0 spares their drawing."""

    def predictor_learns(self, step: int) -> bool:
        """Whether the predictor learns in a step, from 1."""
        if self.schedule == "predictor_first":
            return step <= self.period
        return self.schedule == "simultaneous" or bool((step - 1) // self.period % 2)

    def compressor_learns(self, step: int) -> bool:
        """Whether the compressor learns in a step, from 1."""
        return self.schedule == "simultaneous" or not self.predictor_learns(step)
