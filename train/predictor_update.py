"""The predictor's update: after a step's rewards it learns to answer from the messages of that step and earlier ones.

The loss is the negative log-likelihood of the shortest gold answer given message and question, so that a message that
says nothing teaches what is likely without one. Rewards are paid by what the predictor answered before the update.
"""

import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from data.writing import write_json
from models.adapter_switch import adapter_at_work, adapter_parameters
from models.compressor import Message
from models.predictor import AnswerScore, LocalPredictor, Query
from models.shared_prefix import generate, sampling_seed
from train.config import TrainConfig
from train.grpo.guard import DivergenceError
from train.questions.asked import Asked
from train.warm_start.fine_tuning import Example, leave_gradients, put_state, state_tensors

FOLDER = "predictor_update"
"""The folder of its state in a checkpoint."""

TENSORS, PROGRESS = "tensors.safetensors", "progress.json"
"""The files of a state."""

Join = Callable[[list[Any]], list[Any]]
"""Joins what each process gives into one list for all, in the order of the processes."""


class PredictorUpdate:
    """The adapter of a predictor, its optimizer and the messages it has seen; the same in every process."""

    def __init__(self, train: TrainConfig, predictor: LocalPredictor, adapter: str, seed: int, join: Join) -> None:
        """Remember the predictor as it starts.

        Args:
            train: the run's section; it has a ``predictor_update``.
            predictor: its model holds the adapter that learns.
            adapter: what the model calls it.
            seed: decides which messages are learned from, and what the starting predictor answers.
            join: gathers the messages of all processes.

        Raises:
            ValueError: the configuration trains no predictor, or the model has no such adapter.
        """
        if train.predictor_update is None:
            raise ValueError("train.predictor_update is null: the predictor is frozen")
        self.train, self.settings = train, train.predictor_update
        self.predictor, self.adapter = predictor, adapter
        self.seed, self.join = seed, join
        self.parameters = adapter_parameters(predictor.model, adapter)
        if not self.parameters:
            raise ValueError(f"the predictor's model has no adapter {adapter!r}")
        self.start = [parameter.detach().clone() for parameter in self.parameters]
        # DeepSpeed on a GPU turns the parameters of the whole model into bfloat16, in which small steps are lost.
        self.masters = [torch.nn.Parameter(start.float().clone()) for start in self.start]
        self.optimizer = torch.optim.AdamW(self.masters, lr=self.settings.learning_rate, weight_decay=0.0)
        self.replay: deque[Example] = deque(maxlen=self.settings.replay)
        self.updates = 0
        self.skipped_in_a_row = 0

    def take(
        self, step: int, asked: Asked, messages: Sequence[Message], rewards: Float[Tensor, " messages"]
    ) -> dict[str, float]:
        """Learn from the messages of a step, where the schedule has the predictor learn, and keep them.

        Args:
            step: its number, from 1.
            asked: the questions that this process's messages are paid for.
            messages: this process's messages, groups contiguous.
            rewards: what they were paid; not finite where that is missing.

        Returns:
            Metrics: the loss in nats a token of the gold answers, and the norm of the gradient; none where nothing was
            learned.

        Raises:
            DivergenceError: too many updates in a row were not finite.
        """
        fresh = [example for part in self.join([self._lessons(asked, messages, rewards)]) for example in part]
        fresh = [Example(*example) for example in fresh]
        metrics = self._update(step, fresh) if self.settings.predictor_learns(step) else {}
        self.replay.extend(fresh)
        return metrics

    @contextmanager
    def as_started(self) -> Iterator[None]:
        """Let the predictor be what it was before its first update; it is put back afterwards."""
        now = [parameter.detach().clone() for parameter in self.parameters]
        self._put(self.start)
        try:
            yield
        finally:
            self._put(now)

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """How likely the predictor as it started finds answers: a measure that its own training cannot move."""
        with self.as_started():
            return self.predictor.answer_log_probs(queries, answers)

    def save(self, folder: Path) -> None:
        """Write the state into a folder that is made for it.

        Raises:
            OSError: it cannot be written.
        """
        folder.mkdir()
        tensors = state_tensors(self.masters, self.optimizer)
        tensors |= {f"{number}.start": tensor.cpu().contiguous() for number, tensor in enumerate(self.start)}
        save_file(tensors, folder / TENSORS)
        progress = {"updates": self.updates, "skipped_in_a_row": self.skipped_in_a_row}
        write_json(folder / PROGRESS, progress | {"replay": [[e.prompt_ids, e.reply_ids] for e in self.replay]})

    def load(self, folder: Path) -> None:
        """Go on from a state that `save` has written.

        Raises:
            OSError: it cannot be read.
        """
        tensors = load_file(folder / TENSORS)
        progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
        self.updates, self.skipped_in_a_row = progress["updates"], progress["skipped_in_a_row"]
        put_state(tensors, self.masters, self.optimizer, self.updates)
        self._put(self.masters)
        self.start = [tensors[f"{number}.start"].to(p.device) for number, p in enumerate(self.parameters)]
        self.replay = deque((Example(*example) for example in progress["replay"]), maxlen=self.settings.replay)

    def _lessons(
        self, asked: Asked, messages: Sequence[Message], rewards: Float[Tensor, " messages"]
    ) -> list[tuple[list[int], list[int]]]:
        """The prompts of this process's messages, and the gold answers as replies to them."""
        chosen = set(range(len(messages)))
        if self.settings.messages == "best":
            size = self.train.group_size
            known = rewards.where(rewards.isfinite(), -math.inf).reshape(-1, size)
            chosen = set((known.argmax(dim=1) + torch.arange(len(known)) * size).tolist())
        pairs = zip(asked.samples, asked.owners.tolist(), strict=True)
        return [
            self.predictor.lesson(
                Query(messages[owner].text, sample.question.text, sample.question.options),
                min(sample.question.answers, key=len),
            )
            for sample, owner in pairs
            if owner in chosen
        ]

    def _update(self, step: int, fresh: Sequence[Example]) -> dict[str, float]:
        """One step of the optimizer; the same in every process, for gradients are summed over them."""
        batch = self._batch(step, fresh)
        anchors, start_nats = self._anchors(step, batch) if self.settings.kl else ([], 0.0)
        weights = [1.0] * len(batch) + [self.settings.kl] * len(anchors)
        with torch.enable_grad(), adapter_at_work(self.predictor.model, self.adapter, trains=True):
            nats = leave_gradients(self.predictor.model, self.parameters, [*batch, *anchors], weights)
        for master, parameter in zip(self.masters, self.parameters, strict=True):
            master.grad, parameter.grad = None if parameter.grad is None else parameter.grad.float(), None
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.train.max_grad_norm).item()
        taken = math.isfinite(norm) and bool(nats.isfinite().all())
        if taken:
            self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * _course(self.train, step)
            self.optimizer.step()
            self._put(self.masters)
            self.updates += 1
        self.optimizer.zero_grad(set_to_none=True)
        self._count_skipped(step, taken)
        metrics = {
            "predictor/loss": nats[: len(batch)].sum().item() / sum(len(example.reply_ids) for example in batch),
            "predictor/grad_norm": norm,
            "predictor/update_skipped": float(not taken),
        }
        if anchors:
            moved = nats[len(batch) :].sum().item() - start_nats
            metrics["predictor/kl"] = moved / sum(len(example.reply_ids) for example in anchors)
        return metrics

    def _batch(self, step: int, fresh: Sequence[Example]) -> list[Example]:
        """Fresh messages and replayed ones, drawn at random."""
        generator = random.Random(sampling_seed(self.seed, "predictor update", step))
        replayed = min(round(self.settings.batch_size * self.settings.replayed), len(self.replay))
        new = min(self.settings.batch_size - replayed, len(fresh))
        return [*generator.sample(fresh, new), *generator.sample(list(self.replay), replayed)]

    def _anchors(self, step: int, batch: Sequence[Example]) -> tuple[list[Example], float]:
        """What the starting predictor draws as answers to a batch's prompts, and its nats of them, over all of them."""
        prompts = [example.prompt_ids for example in batch]
        seeds = [sampling_seed(self.seed, "anchor", step, number) for number in range(len(batch))]
        end, longest = self.predictor.end_token_id, self.predictor.max_answer_tokens
        with self.as_started(), adapter_at_work(self.predictor.model, self.adapter):
            replies = generate(self.predictor.model, prompts, longest, end, temperature=1.0, seeds=seeds)
        pairs = zip(prompts, replies, strict=True)
        drawn = [Example(ids, [*reply.token_ids, *([end] if reply.ended else [])]) for ids, reply in pairs]
        return drawn, -sum(sum(reply.log_probs) for reply in replies)

    def _count_skipped(self, step: int, taken: bool) -> None:
        self.skipped_in_a_row = 0 if taken else self.skipped_in_a_row + 1
        if self.skipped_in_a_row >= self.train.max_skipped_updates:
            raise DivergenceError(
                f"the predictor's training has diverged: {self.skipped_in_a_row} updates in a row were not finite, the "
                f"last at step {step}; a lower train.predictor_update.learning_rate is the first thing to try"
            )

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            for parameter, value in zip(self.parameters, values, strict=True):
                parameter.copy_(value)


def _course(train: TrainConfig, step: int) -> float:
    """What the step size is multiplied by at a step, from 1: as the compressor's, from the start."""
    done = (step - 1) / train.steps
    courses = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return courses[train.learning_rate_schedule]
