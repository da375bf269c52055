"""What the compressor wrote while it learned: messages of a few steps, from the ``messages.jsonl`` of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.errors import DataError
from eval.report.formats import UNMEASURED, number

SHOWN_STEPS = 6
"""Steps whose messages are shown, from the first to the last: enough to see what changed, few enough to read."""

REQUIRED = ("step", "question", "answers", "message", "message_tokens", "prediction")


@dataclass(frozen=True)
class TrainingMessage:
    """A message of a step, as the page shows it; texts are untrusted."""

    step: int
    question: str
    gold: str
    message: str
    answer: str
    accuracy: float | None
    reward: str
    bits: str
    tokens: str


def training_messages(lines: Sequence[Mapping[str, Any]]) -> list[TrainingMessage]:
    """The messages of steps at even distances, the first and the last among them.

    Args:
        lines: those of ``messages.jsonl``.

    Raises:
        DataError: a line lacks what is shown of it.
    """
    for index, line in enumerate(lines, start=1):
        if missing := [name for name in REQUIRED if name not in line]:
            raise DataError(f"messages.jsonl line {index} lacks {', '.join(missing)}")
    steps = sorted({line["step"] for line in lines})
    if not steps:
        return []
    chosen = {steps[round(place)] for place in np.linspace(0, len(steps) - 1, min(len(steps), SHOWN_STEPS))}
    return [_message(line) for line in lines if line["step"] in chosen]


def _message(line: Mapping[str, Any]) -> TrainingMessage:
    reward, bits = (line.get(name) for name in ("reward", "information_bits"))
    return TrainingMessage(
        line["step"],
        line["question"],
        " · ".join(line["answers"]),
        line["message"],
        UNMEASURED if line["prediction"] is None else line["prediction"],
        line.get("accuracy"),
        UNMEASURED if reward is None else number(reward),
        UNMEASURED if bits is None else number(bits),
        f"{line['message_tokens']:,}",
    )
