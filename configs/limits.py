"""The largest values that a key takes, each for a reason that a refusal tells.

They stand far above what anybody needs and below what would exhaust a machine before a word is said.
"""

from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


def at_most(limit: int, reason: str) -> AfterValidator:
    """A validator that refuses more than ``limit``, for a reason that its message tells."""

    def check(value: float) -> float:
        if value > limit:
            raise ValueError(f"should be at most {limit:,}: {reason}")
        return value

    return AfterValidator(check)


def _sampling(value: float) -> float:
    # Logits divided by less than this overflow in half precision, and what is sampled above is noise.
    if value and not 0.01 <= value <= 100:
        raise ValueError("should be between 0.01 and 100: beyond, messages are the likeliest ones, or noise")
    return value


Seed = Annotated[NonNegativeInt, at_most(2**32 - 1, "numpy takes no larger seed")]
"""What random numbers are drawn by."""

Steps = Annotated[NonNegativeInt, at_most(1_000_000, "the questions of all steps are drawn before the first")]
"""Steps of a training."""

StepPart = Annotated[PositiveInt, at_most(65_536, "the messages of a step are in memory together")]
"""Contexts or messages of a step or a batch."""

GroupSize = Annotated[int, Field(ge=2), at_most(65_536, "the messages of a step are in memory together")]
"""Messages that are compared with each other."""

Tokens = Annotated[PositiveInt, at_most(100_000_000, "no model reads or writes so many tokens")]
"""Tokens of a text."""

Documents = Annotated[PositiveInt, at_most(1_000_000, "all documents are in memory together")]
"""Documents, or questions of a document."""

Columns = Annotated[NonNegativeInt, at_most(4_096, "each is one more context that every message is scored with")]
"""Contexts that a message is compared with."""

Rank = Annotated[PositiveInt, at_most(16_384, "no matrix of a language model that is adapted has a higher rank")]
"""Rank of an adapter."""

Scale = Annotated[PositiveInt, at_most(1_000_000, "a larger update of the weights is no language model's")]
"""Numerator of an adapter's scale."""

Sentences = Annotated[PositiveInt, at_most(10_000, "a message is a short text")]
"""Sentences of a message."""

Weight = Annotated[NonNegativeFloat, at_most(1_000_000, "rewards are compared in single precision")]
"""Weight of a component of the reward."""

SamplingTemperature = Annotated[PositiveFloat, AfterValidator(_sampling)]
"""Temperature of messages that are sampled."""

Temperature = Annotated[NonNegativeFloat, AfterValidator(_sampling)]
"""Temperature of messages; 0 takes the most likely tokens."""
