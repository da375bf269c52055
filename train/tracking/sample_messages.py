"""What the compressor writes while it learns: a few messages of every step, in ``messages.jsonl`` and for who watches.

A reward that can be cheated shows in what is written long before it shows in a mean. What is kept here was computed for
the reward anyway.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import wandb
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.sample import Sample
from eval.record import accuracy_of, finite
from eval.report.formats import printable
from models.channel import Readings
from models.compressor import Message
from models.scorer import Scores
from objectives.mutual_information import contrastive, nats_to_bits
from objectives.negatives import Columns
from train.tracking.step_lines import StepLines

MESSAGES_FILE = "messages.jsonl"

MESSAGES_A_STEP = 2
"""Messages of a step that are kept: the first of each of its first questions, not chosen for what they say."""

SHOWN_CHARACTERS = 240
"""Characters of a message on the console: two or three lines of a terminal."""

WORDS = {0.0: "wrong", 1.0: "right"}

NOT_HAD = "(no answer from the server)"
"""What the console shows in the place of an answer that is missing."""

TABLE_COLUMNS = (
    "step",
    "question",
    "answers",
    "message",
    "prediction",
    "accuracy",
    "reward",
    "information_bits",
    "message_tokens",
)
"""The columns of the table in W&B, which are fields of the lines of ``messages.jsonl``."""


class SampleMessages(TrainerCallback):
    """Keeps messages of every step; a resumed run drops those after the checkpoint that it goes on from."""

    def __init__(self, folder: Path, show_every: int) -> None:
        """Fix where messages go.

        Args:
            folder: the run folder; messages are appended to its ``messages.jsonl``.
            show_every: of every so many steps, and of the first, messages are shown on the console and in W&B; 0 shows
                none.
        """
        self.lines = StepLines(folder / MESSAGES_FILE)
        self.show_every = show_every
        self.writes = False
        self.last: list[dict[str, Any]] = []

    def take(
        self,
        step: int,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        columns: Columns,
        readings: Readings,
        scores: Scores,
        rewards: Float[Tensor, " messages"],
    ) -> None:
        """Keep messages of one step, on the first process alone.

        Args:
            step: the number of the step under way, from 1.
            samples: the question of each message, groups contiguous.
            messages: what was written.
            columns: the contexts that each message was compared with.
            readings: the predictor's answers.
            scores: the scorer's log-probabilities, nats.
            rewards: what each message was paid.
        """
        if not self.writes:
            return
        first_of_question = {sample.id: row for row, sample in reversed(list(enumerate(samples)))}
        rows = sorted(first_of_question.values())[:MESSAGES_A_STEP]
        log_probs = scores.log_probs[rows, : len(columns.contexts)]
        bits = nats_to_bits(contrastive(log_probs, columns.own[rows], columns.valid[rows]).terms)
        self.last = [
            {
                "id": samples[row].id,
                "question": samples[row].question.text,
                "answers": list(samples[row].question.answers),
                "message": messages[row].text,
                "message_tokens": messages[row].tokens,
                "prediction": None if row in readings.missing else readings.answers[row],
                "accuracy": None if row in readings.missing else accuracy_of(samples[row], readings.answers[row]),
                "information_bits": finite(float(value)),
                "reward": finite(float(rewards[row])),
            }
            for row, value in zip(rows, torch.atleast_1d(bits), strict=True)
        ]
        self.lines.add(step, self.last)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Keep the lines up to the step that training goes on from."""
        self.writes = state.is_world_process_zero
        if self.writes:
            self.lines.cut(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show the messages of the step, where it is one to show."""
        step = state.global_step
        if not self.last or not self.show_every or (step != 1 and step % self.show_every):
            return
        for line in self.last:
            tqdm.write(shown(step, line))
        if wandb.run is not None:
            rows: list[Any] = [[_cell({"step": step, **line}[name]) for name in TABLE_COLUMNS] for line in self.last]
            wandb.log({"messages": wandb.Table(list(TABLE_COLUMNS), rows), "train/global_step": step})


def shown(step: int, line: Mapping[str, Any]) -> str:
    """A message as a line of the console: question, message, answer, and what it was paid."""
    message, answer = (_short(printable(line[name] or "")) for name in ("message", "prediction"))
    answer = NOT_HAD if line["prediction"] is None else answer
    accuracy = line["accuracy"]
    verdict = "" if accuracy is None else WORDS.get(accuracy, f"scores {accuracy:.2f}")
    figures = [
        text.format(line[name])
        for name, text in (("reward", "reward {:.2f}"), ("information_bits", "{:.2f} bits"))
        if line[name] is not None
    ]
    figures.append(f"{line['message_tokens']} tokens")
    return (
        f"step {step}: {_short(printable(line['question']))} | {message} -> {answer}{verdict and f' ({verdict})'} | "
        f"{', '.join(figures)}"
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 1]}…"


def _cell(value: Any) -> Any:
    """A value as a table of W&B takes it: a list of answers as one text."""
    return " · ".join(value) if isinstance(value, list) else value
