"""The questions that a message is paid for: its own, or, where the compressor was told none or several, all of these.

A message that is written without a question has to serve whatever is asked later; what it is worth is the mean over the
questions that are.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.sample import Sample
from models.channel import Readings
from models.compressor import Message
from models.shared_prefix import sampling_seed


@dataclass(frozen=True)
class Asked:
    """What the messages of a step are asked, one after the other; of every message its own question first.

    Attributes:
        samples: the questions.
        owners: for each the number of its message, ascending.
    """

    samples: list[Sample]
    owners: Int[Tensor, " questions"]

    def of(self, messages: Sequence[Message]) -> list[Message]:
        """For each question the message that it is put to."""
        return [messages[owner] for owner in self.owners.tolist()]

    def mean(self, values: Float[Tensor, " questions"]) -> Float[Tensor, " messages"]:
        """The mean of a value over the questions of each message that have it; NaN where none has."""
        count = int(self.owners[-1]) + 1
        known = (~values.isnan()).double()
        sums = torch.zeros(2, count, dtype=torch.float64)
        sums[0].index_add_(0, self.owners, values.double().nan_to_num(0.0))
        sums[1].index_add_(0, self.owners, known)
        return sums[0] / sums[1].where(sums[1] > 0, torch.nan)

    def filled(self, values: Float[Tensor, " questions"], group_size: int) -> Float[Tensor, " questions"]:
        """The values, a missing one replaced by the mean of what its group reached on the same question.

        A message that lacks the answer to a hard question would else look better than those that were asked it. NaN
        stays where the whole group lacks a question, and where a message lacks all of its own.

        Args:
            values: one a question; NaN is missing.
            group_size: messages per group, groups contiguous, those of one asked the same questions.
        """
        known: dict[tuple[int, str], list[float]] = {}
        keys = [
            (owner // group_size, sample.id) for owner, sample in zip(self.owners.tolist(), self.samples, strict=True)
        ]
        for key, value in zip(keys, values.tolist(), strict=True):
            known.setdefault(key, [])
            if not math.isnan(value):
                known[key].append(value)
        means = [sum(known[key]) / len(known[key]) if known[key] else math.nan for key in keys]
        has_some = ~self.mean(values).isnan()[self.owners]
        return values.where(~values.isnan() | ~has_some, torch.tensor(means, dtype=values.dtype))

    def first(self, readings: Readings) -> Readings:
        """What came out for the own question of each message."""
        places = [0, *(self.owners.diff() > 0).nonzero()[:, 0].add(1).tolist()]
        return Readings(
            [readings.answers[place] for place in places],
            [readings.answer_scores[place] for place in places],
            [readings.null_scores[place] for place in places],
            frozenset(number for number, place in enumerate(places) if place in readings.missing),
        )


def asked_budget(budgets: Sequence[int], otherwise: int, *drawn_by: int | str) -> int:
    """The budget that a group of messages is asked to keep to, in tokens: one of several, or what is always asked.

    Args:
        budgets: those to draw from; with none it is ``otherwise``.
        otherwise: the budget of all messages.
        drawn_by: decides which: the seed of the run, the step, the question.
    """
    if not budgets:
        return otherwise
    return random.Random(sampling_seed("budget", *drawn_by)).choice(sorted(budgets))


def own_questions(samples: Sequence[Sample]) -> Asked:
    """Every message is asked the question that it was written for."""
    return Asked(list(samples), torch.arange(len(samples)))


def questions_of_documents(
    samples: Sequence[Sample], by_document: Mapping[tuple[str, str], Sequence[Sample]], most: int | None, *seed: int
) -> Asked:
    """Every message is asked the questions of its document that it has to serve, those of one group the same.

    Args:
        samples: the question by which each message goes; it is asked first.
        by_document: all questions of each document, by task and id.
        most: how many questions a message is asked at most; None asks all.
        seed: decides which: of the run, and the step.
    """
    asked, owners = [], []
    for number, sample in enumerate(samples):
        of_document = by_document[sample.document.task, sample.document.id]
        others = [o for o in of_document if o.id != sample.id and o.message_id == sample.message_id]
        if most is not None:
            generator = random.Random(sampling_seed(*seed, sample.id))
            others = generator.sample(others, min(most - 1, len(others)))
        asked += [sample, *others]
        owners += [number] * (1 + len(others))
    return Asked(asked, torch.tensor(owners))
