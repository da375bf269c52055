"""Rounds of refined questions: the predictor asks for what the messages lack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from data.sample import Document, Sample
from eval.evaluation import Evaluation, by_compressor
from eval.parts import in_parts, joined, parts_of, totals_by_sample
from eval.record import Record, accuracy_of, sample_fields
from eval.record_log import RecordLog
from models.channel import Channel
from models.compressor import Compressor, Message
from models.shared_prefix.generation import sampling_seed
from objectives.mutual_information import contrastive, leave_one_out
from objectives.negatives import Columns

MOST_QUESTION_TOKENS = 48
"""Of a refined question."""


REQUEST = (
    "Someone has to answer the question below and knows nothing but the notes. Which one piece of information do the "
    "notes still lack for that? Ask for it in a question of one sentence, and write nothing else."
)


def request(question: str, message: str) -> str:
    """What the predictor is asked between two rounds; both texts are untrusted."""
    return f"{REQUEST}\n\nNotes:\n{message}\n\nQuestion: {question}"


def one_question(reply: str) -> str:
    """The first line of a reply that holds anything, on one line; empty where none does."""
    return next((" ".join(line.split()) for line in reply.splitlines() if line.strip()), "")


@dataclass(frozen=True)
class Round:
    """The messages of one round: by piece of a sample, the question each was written for, and its scores.

    Attributes:
        asked: the question of every sample in this round, as the compressor was told it.
        unanswered: whether the predictor wrote no question, so that the last one was asked again.
        messages: one a piece.
        log_probs: log s(message given context, the question it was written for), nats.
    """

    asked: list[str]
    unanswered: list[bool]
    messages: list[Message]
    log_probs: Float[Tensor, "pieces contexts"]


@dataclass(frozen=True)
class Rounds:
    """How to go through rounds; everything else is an `Evaluation`'s.

    Attributes:
        evaluation: its batches and the columns of its log-prob matrices.
        rounds: how many, the first included.
        temperature: of the messages.
        seed: of round 1, as in the ordinary evaluation; further rounds draw from seeds of their own.
    """

    evaluation: Evaluation
    rounds: int
    temperature: float
    seed: int

    def run(
        self,
        samples: Sequence[Sample],
        compressor: Compressor,
        channel: Channel,
        made: Mapping[str, Any],
        log: RecordLog,
    ) -> list[Record]:
        """A record a sample and round, by all processes together; batches that the log holds are not done again."""
        state = PartialState()
        batches = self.evaluation.batches(samples)[state.process_index :: state.num_processes]
        records: list[Record] = []
        for batch in tqdm(batches, desc="rounds", dynamic_ncols=True, disable=not state.is_main_process):
            found = log.records(made, batch)
            if found is None:
                pool = [one.document for one in samples if one.document.task == batch[0].document.task]
                found = log.add(made, batch, self.batch(batch, compressor, channel, pool))
            records += found
        return sorted(gather_object(records), key=lambda record: (record["id"], record["round"]))

    def batch(
        self, samples: Sequence[Sample], compressor: Compressor, channel: Channel, pool: Sequence[Document]
    ) -> list[Record]:
        """The records of a few samples of one task; ``pool`` holds the documents of the task."""
        pieces, owner = in_parts(samples)
        columns = self.evaluation.columns(pieces, parts_of(pool))
        done: list[Round] = []
        records: list[Record] = []
        for number in range(1, self.rounds + 1):
            asked, unanswered = self._questions(samples, channel, done, owner)
            told = [_asking(piece, asked[own]) for piece, own in zip(pieces, owner.tolist(), strict=True)]
            messages = by_compressor(compressor, self.temperature, self._seed(number))(told)
            log_probs = channel.score(told, messages, columns.contexts, columns.valid).log_probs
            done.append(Round(asked, unanswered, messages, log_probs))
            records += _records(samples, channel, done, columns, owner)
        return records

    def _seed(self, number: int) -> int:
        return self.seed if number == 1 else sampling_seed(self.seed, "round", number)

    def _questions(
        self, samples: Sequence[Sample], channel: Channel, done: Sequence[Round], owner: Int[Tensor, " pieces"]
    ) -> tuple[list[str], list[bool]]:
        """What the compressor is asked next, and for which samples the predictor had no question."""
        if not done:
            return [sample.asked for sample in samples], [False] * len(samples)
        so_far = _joined(done, owner, len(samples))
        prompts = [request(one.question.text, message.text) for one, message in zip(samples, so_far, strict=True)]
        written = [one_question(reply) for reply in channel.predictor.write(prompts, MOST_QUESTION_TOKENS)]
        asked = [new or last for new, last in zip(written, done[-1].asked, strict=True)]
        return asked, [not new for new in written]


def _asking(piece: Sample, question: str) -> Sample:
    """The same sample with another question to the compressor, which is told it even where the first one was not."""
    return replace(piece, question=replace(piece.question, text=question, blind=False))


def _joined(done: Sequence[Round], owner: Int[Tensor, " pieces"], samples: int) -> list[Message]:
    """All messages of each sample so far as one, round after round."""
    own = [[index for index, of in enumerate(owner.tolist()) if of == number] for number in range(samples)]
    return [joined([one.messages[index] for one in done for index in indices]) for indices in own]


def _records(
    samples: Sequence[Sample],
    channel: Channel,
    done: Sequence[Round],
    columns: Columns,
    owner: Int[Tensor, " pieces"],
) -> list[Record]:
    """The records of the last round that is done."""
    messages = _joined(done, owner, len(samples))
    readings = channel.answer(samples, messages)
    measured = information([one.log_probs for one in done], columns, owner, len(samples))
    records = []
    for number, (sample, message, answer, values) in enumerate(
        zip(samples, messages, readings.answers, measured, strict=True)
    ):
        gold, null = readings.answer_scores[number], readings.null_scores[number]
        records.append(
            sample_fields(sample)
            | {"stage": f"round {len(done)}", "round": len(done)}
            | {"asked": done[-1].asked[number], "unanswered": done[-1].unanswered[number]}
            | {"message": message.text, "message_tokens": message.tokens}
            | {"prediction": answer, "accuracy": accuracy_of(sample, answer)}
            | values
            | {"task_information_nats": None if gold is None or null is None else gold.log_prob - null.log_prob}
            | {"answer_nll_nats": None if gold is None else -gold.log_prob}
            | {"answer_tokens": None if gold is None else gold.tokens}
        )
    return records


def information(
    rounds: Sequence[Float[Tensor, "pieces contexts"]],
    columns: Columns,
    owner: Int[Tensor, " pieces"],
    samples: int,
) -> list[dict[str, Any]]:
    """What the messages of all rounds carry together, by sample: nats, None where a score is missing.

    Args:
        rounds: the log-prob matrix of each round, every message under the question it was written for; nats.
        columns: of all of them.
        owner: the sample each piece belongs to.
        samples: how many there are.

    Returns:
        ``information_nats`` and ``information_upper_nats``, the bounds of the joint messages, with the ceiling of the
        first and whether all pieces reach it; ``summed_information_nats``, the lower bounds of the messages by
        themselves, added: an upper count, as rounds may repeat each other.
    """
    joint = torch.stack([log_probs.double() for log_probs in rounds]).sum(0)
    lower = contrastive(joint, columns.own, columns.valid)
    upper = leave_one_out(joint, columns.own, columns.valid)
    summed = torch.stack([contrastive(one, columns.own, columns.valid).terms for one in rounds]).sum(0)
    assert lower.ceiling is not None
    totals = {
        "information_nats": lower.terms,
        "information_upper_nats": upper.terms,
        "summed_information_nats": summed,
        "information_ceiling_nats": lower.ceiling,
    }
    by_sample = {name: _finite(totals_by_sample(terms, owner, samples)) for name, terms in totals.items()}
    below = totals_by_sample((~lower.saturated).double(), owner, samples).tolist()
    return [
        {name: values[number] for name, values in by_sample.items()}
        | {"saturated": None if by_sample["information_nats"][number] is None else below[number] == 0}
        for number in range(samples)
    ]


def _finite(values: Float[Tensor, " samples"]) -> list[float | None]:
    """None for what is missing or not finite."""
    return [value if there else None for value, there in zip(values.tolist(), values.isfinite().tolist(), strict=True)]
