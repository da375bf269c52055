"""Rounds of refined questions: the predictor asks for what the messages lack."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from data.sample import Document, Sample
from eval.evaluation import Evaluation, by_compressor, documents_by_task
from eval.parts import Pieces, joined, parts_of
from eval.record import RoundInformation, RoundRecord, answer_fields, finite, message_fields, question_fields
from eval.record_log import RecordLog
from models.channel import Channel
from models.compressor import Compressor, Message
from models.shared_prefix import sampling_seed
from objectives.mutual_information import contrastive, leave_one_out
from objectives.negatives import Columns

MAX_QUESTION_TOKENS = 48
"""Maximum tokens of a refined question: room for one sentence, as `REQUEST` asks for."""

REQUEST = (
    "Someone has to answer the question below and knows nothing but the notes. Which one piece of information do the "
    "notes still lack for that? Ask for it in a question of one sentence, and write nothing else."
)
"""What the predictor is asked between two rounds; notes and question follow."""


def request(question: str, message: str) -> str:
    """The prompt for a refined question; both texts are untrusted."""
    return f"{REQUEST}\n\nNotes:\n{message}\n\nQuestion: {question}"


def refined_question(reply: str) -> str:
    """The first line of a reply that holds anything, its white space as single spaces; empty where none does."""
    return next((" ".join(line.split()) for line in reply.splitlines() if line.strip()), "")


@dataclass(frozen=True)
class Round:
    """The messages of one round: by piece of a sample, the question each was written for, and its scores.

    Attributes:
        asked: the question of every sample in this round, as the compressor was told it.
        unanswered: whether the predictor wrote no question, so that the last one was asked again; by sample.
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
        evaluation: chooses the batches and the columns of the log-prob matrices.
        rounds: how many, the first included.
        temperature: sampling temperature of the messages.
        seed: seed of round 1, as in the ordinary evaluation; further rounds draw from seeds of their own.
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
        origin: Mapping[str, Any],
        log: RecordLog[RoundRecord],
    ) -> list[RoundRecord]:
        """A record a sample and round, by all processes together; batches that the log holds are not done again."""
        state = PartialState()
        batches = self.evaluation.batches(samples)[state.process_index :: state.num_processes]
        pools = documents_by_task(samples)
        records: list[RoundRecord] = []
        for batch in tqdm(batches, desc="rounds", dynamic_ncols=True, disable=not state.is_main_process):
            logged = log.records(origin, batch)
            if logged is None:
                logged = log.add(origin, batch, self.batch(batch, compressor, channel, pools[batch[0].document.task]))
            records += logged
        return sorted(gather_object(records), key=lambda record: (record["id"], record["round"]))

    def batch(
        self, samples: Sequence[Sample], compressor: Compressor, channel: Channel, pool: Sequence[Document]
    ) -> list[RoundRecord]:
        """The records of a few samples of one task; ``pool`` holds the documents of the task."""
        pieces = Pieces.of(samples)
        columns = self.evaluation.columns(pieces.samples, parts_of(pool))
        rounds: list[Round] = []
        records: list[RoundRecord] = []
        for number in range(1, self.rounds + 1):
            asked, unanswered = self._questions(samples, channel, rounds, pieces)
            prompted = [
                _with_question(piece, asked[owner]) for piece, owner in zip(pieces.samples, pieces.owners, strict=True)
            ]
            messages = by_compressor(compressor, self.temperature, self._seed(number))(prompted)
            log_probs = channel.score(prompted, messages, columns.contexts, columns.valid).log_probs
            rounds.append(Round(asked, unanswered, messages, log_probs))
            records += _records(samples, channel, rounds, columns, pieces)
        return records

    def _seed(self, number: int) -> int:
        return self.seed if number == 1 else sampling_seed(self.seed, "round", number)

    def _questions(
        self, samples: Sequence[Sample], channel: Channel, rounds: Sequence[Round], pieces: Pieces
    ) -> tuple[list[str], list[bool]]:
        """What the compressor is asked next, and for which samples the predictor had no question."""
        if not rounds:
            return [sample.compressor_question for sample in samples], [False] * len(samples)
        messages = [joined(sample_messages) for sample_messages in _messages(rounds, pieces)]
        prompts = [
            request(sample.question.text, message.text) for sample, message in zip(samples, messages, strict=True)
        ]
        refined = [refined_question(reply) for reply in channel.predictor.write(prompts, MAX_QUESTION_TOKENS)]
        asked = [question or last for question, last in zip(refined, rounds[-1].asked, strict=True)]
        return asked, [not question for question in refined]


def _with_question(piece: Sample, question: str) -> Sample:
    """The same sample with another question to the compressor, which is told it even where the first one was not."""
    return replace(piece, question=replace(piece.question, text=question, blind=False))


def _messages(rounds: Sequence[Round], pieces: Pieces) -> list[list[Message]]:
    """All messages of each sample so far: round after round, in each round piece by piece."""
    by_round = [pieces.by_sample(one_round.messages) for one_round in rounds]
    return [[message for groups in by_round for message in groups[number]] for number in range(pieces.count)]


def _records(
    samples: Sequence[Sample], channel: Channel, rounds: Sequence[Round], columns: Columns, pieces: Pieces
) -> list[RoundRecord]:
    """The records of the last round that is done."""
    messages = _messages(rounds, pieces)
    readings = channel.answer(samples, [joined(sample_messages) for sample_messages in messages])
    bounds = information([one_round.log_probs for one_round in rounds], columns, pieces)
    return [
        {
            **question_fields(sample),
            "context": sample.document.text,
            "stage": f"round {len(rounds)}",
            "round": len(rounds),
            "asked": rounds[-1].asked[number],
            "unanswered": rounds[-1].unanswered[number],
            **message_fields(messages[number]),
            **bounds[number],
            **answer_fields(
                sample, readings.answers[number], readings.answer_scores[number], readings.null_scores[number]
            ),
        }
        for number, sample in enumerate(samples)
    ]


def information(
    matrices: Sequence[Float[Tensor, "pieces contexts"]], columns: Columns, pieces: Pieces
) -> list[RoundInformation]:
    """What the messages of all rounds carry together, by sample: nats, None where a score is missing.

    Args:
        matrices: the log-prob matrix of each round, every message under the question it was written for; nats.
        columns: the columns of all of them.
        pieces: what the messages were written for.

    Returns:
        The bounds of the joint messages, with the ceiling of the lower one and whether all pieces reach it; and the
        lower bounds of the messages by themselves, added: an upper count, as rounds may repeat each other.
    """
    joint = torch.stack([log_probs.double() for log_probs in matrices]).sum(0)
    lower = contrastive(joint, columns.own, columns.valid)
    upper = leave_one_out(joint, columns.own, columns.valid)
    summed = torch.stack([contrastive(matrix, columns.own, columns.valid).terms for matrix in matrices]).sum(0)
    assert lower.ceiling is not None
    totals = zip(*map(pieces.totals, (lower.terms, upper.terms, lower.ceiling, summed)), strict=True)
    saturated = [all(reached) for reached in pieces.by_sample(lower.saturated.tolist())]
    return [
        {
            "information_nats": finite(lower_nats),
            "information_upper_nats": finite(upper_nats),
            "information_ceiling_nats": finite(ceiling_nats),
            "saturated": None if finite(lower_nats) is None else saturated[number],
            "summed_information_nats": finite(summed_nats),
        }
        for number, (lower_nats, upper_nats, ceiling_nats, summed_nats) in enumerate(totals)
    ]
