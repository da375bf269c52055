"""The evaluation of messages: a record for every question, with what its message carried and what it cost."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm.auto import tqdm

from data.errors import DataError
from data.sample import Document, Sample, neighbours
from eval.parts import in_parts, joined, parts_of, totals_by_sample
from eval.record import _answer_fields, _present, accuracy_of, sample_fields
from eval.record_log import RecordLog
from eval.sentences import count_sentences
from models.channel import BoundScorer, Channel
from models.compressor import Compressor, Message
from models.loading import context_window
from models.scorer import Scores
from models.shared_prefix.generation import sampling_seed
from objectives.mutual_information import contrastive, contrastive_token_terms, leave_one_out, nats_to_bits
from objectives.negatives import Candidates, Columns, NegativeCounts, choose_columns, parts_removed

Write = Callable[[Sequence[Sample]], list[Message]]
"""Whatever makes messages: one for each sample."""


def by_compressor(compressor: Compressor, temperature: float, seed: int) -> Write:
    """Messages of a compressor; above temperature 0 each sample draws from a seed of its own."""

    def write(samples: Sequence[Sample]) -> list[Message]:
        return compressor.write(
            [sample.document.text for sample in samples],
            [sample.asked for sample in samples],
            temperature=temperature,
            seeds=[sampling_seed(seed, sample.id) for sample in samples],
        )

    return write


@dataclass(frozen=True)
class Evaluation:
    """How to evaluate: the columns of the log-prob matrix and the questions taken together.

    Attributes:
        negatives: of each kind; those of the batch are other documents of the same task.
        batch_size: questions in one pass.
        seed: of the choice of negatives.
        long_messages_go: messages may be too long to be scored beside their contexts, as a whole context is, and then
            have no information; otherwise the first of them ends the evaluation.
    """

    negatives: NegativeCounts
    batch_size: int
    seed: int
    long_messages_go: bool = False

    def run(
        self, samples: Sequence[Sample], write: Write, channel: Channel, made: dict[str, Any], log: RecordLog
    ) -> list[dict[str, Any]]:
        """One record a sample, by all processes together, in the order of ids; the same on any number of them.

        Args:
            samples: every sample of the evaluation: its documents are the other negatives.
            write: makes the messages.
            channel: answers from them and scores them.
            made: fields of every record that say how it was made: ``stage`` and ``temperature`` at least.
            log: holds the batches that are done, whoever did them; each is added as soon as it is.
        """
        state = PartialState()
        batches = self.batches(samples)
        pools = {task: [s.document for s in group] for task, group in _by_task(samples)}
        mine = batches[state.process_index :: state.num_processes]
        done = sum(len(batch) for batch in mine if log.holds(made, batch))
        records: list[dict[str, Any]] = []
        with tqdm(
            total=sum(map(len, mine)),
            initial=done,
            desc=f"evaluating {made['stage']}{', greedy' if made['temperature'] == 0 else ''}",
            dynamic_ncols=True,
            disable=not state.is_main_process,
        ) as bar:
            for batch in mine:
                found = log.records(made, batch)
                if found is None:
                    found = log.add(made, batch, self._batch(batch, write, channel, made, pools))
                    bar.update(len(batch))
                records += found
        return sorted(gather_object(records), key=lambda record: record["id"])

    def batches(self, samples: Sequence[Sample]) -> list[list[Sample]]:
        """Questions taken together: of one task, of documents of similar length, those of one document side by side.

        A document's context is read once for all its questions in a batch.
        """
        ordered = sorted(samples, key=lambda s: (s.document.task, len(s.document.text), s.document.id))
        return [
            batch
            for _, group in itertools.groupby(ordered, key=lambda sample: sample.document.task)
            for batch in _batched(list(group), self.batch_size)
        ]

    def _batch(
        self,
        samples: Sequence[Sample],
        write: Write,
        channel: Channel,
        made: dict[str, Any],
        pools: dict[str, list[Document]],
    ) -> list[dict[str, Any]]:
        pieces, owner = in_parts(samples)
        written = write(pieces)
        columns = self.columns(pieces, parts_of(pools[samples[0].document.task]))
        parts = [[written[i] for i, own in enumerate(owner) if own == number] for number in range(len(samples))]
        messages = [joined(own) for own in parts]
        readings = channel.answer(samples, messages)
        measured = measure(channel.scorers, pieces, written, columns, owner, len(samples), self.long_messages_go)
        return [
            made
            | sample_fields(sample)
            | {"message": message.text, "message_tokens": message.tokens, "truncated_tokens": message.truncated_tokens}
            | {"message_sentences": [count_sentences(part.text) for part in own]}
            | {"prediction": answer, "accuracy": accuracy_of(sample, answer)}
            | values
            | _answer_fields(gold, null)
            for sample, own, message, answer, gold, null, values in zip(
                samples,
                parts,
                messages,
                readings.answers,
                readings.answer_scores,
                readings.null_scores,
                measured,
                strict=True,
            )
        ]

    def columns(self, samples: Sequence[Sample], pool: Sequence[Document]) -> Columns:
        """The contexts each sample's message is compared over; ``pool`` holds the documents of its task.

        Raises:
            DataError: a sample has no context to be told from.
        """
        near = neighbours(pool)
        batch = [document.text for document in pool]
        candidates = [
            Candidates(
                own=document.text,
                counterfactual=question.negatives,
                same_document=self._shortened(document.text, question.evidence),
                neighbour=near[document.task, document.id],
                batch=batch,
            )
            for document, question in ((sample.document, sample.question) for sample in samples)
        ]
        try:
            return choose_columns(candidates, self.negatives, self.seed)
        except ValueError as error:
            where = f"{samples[0].document.task}, questions from {samples[0].id!r} on"
            raise DataError(f"{where}: {error}; ask for more documents or other information.negatives") from error

    def _shortened(self, text: str, evidence: Sequence[str]) -> list[str]:
        """Versions with a part removed; none of a text too short for that, which the ceiling of its record shows."""
        try:
            return parts_removed(text, evidence, self.negatives.same_document, self.seed)
        except ValueError:
            return []


def measure(
    scorers: Sequence[BoundScorer],
    pieces: Sequence[Sample],
    messages: Sequence[Message],
    columns: Columns,
    owner: Int[Tensor, " pieces"],
    samples: int,
    long_messages_go: bool = False,
) -> list[dict[str, Any]]:
    """What the messages carried, by sample: nats by message, bits by token, None where a score is missing.

    Raises:
        ModelError: a message is too long to be scored beside its contexts, and ``long_messages_go`` is not given.
    """

    def scores_of(scorer: BoundScorer) -> Scores:
        valid = columns.valid
        if long_messages_go:
            valid = valid & fitting(scorer, pieces, messages, columns)[:, None]
        return scorer.score(pieces, messages, columns.contexts, valid)

    values = _information(scores_of(scorers[0]), columns, owner, samples)
    for second in scorers[1:]:
        terms = contrastive(scores_of(second).log_probs, columns.own, columns.valid).terms
        for row, nats in zip(values, totals_by_sample(terms, owner, samples).tolist(), strict=True):
            row["second_information_nats"] = _present(nats)
    return values


def fitting(
    bound: BoundScorer, pieces: Sequence[Sample], messages: Sequence[Message], columns: Columns
) -> Bool[Tensor, " pieces"]:
    """Which messages the scorer's window takes beside the longest of their contexts."""
    window = context_window(bound.scorer.model.config)
    if window is None:
        return torch.ones(len(pieces), dtype=torch.bool)
    prompts = bound.scorer.prompts
    contexts = torch.tensor([len(prompts.prefix(context)[0]) for context in columns.contexts])
    rest = [
        len(prompts.suffix(piece.asked))
        + (message.tokens if bound.shares_vocabulary else len(prompts.format.text_ids(message.text)) + message.ended)
        for piece, message in zip(pieces, messages, strict=True)
    ]
    return (columns.valid * contexts).amax(1) + torch.tensor(rest) <= window


def _information(scores: Scores, columns: Columns, owner: Int[Tensor, " pieces"], samples: int) -> list[dict[str, Any]]:
    information = contrastive(scores.log_probs, columns.own, columns.valid)
    upper = leave_one_out(scores.log_probs, columns.own, columns.valid)
    assert information.ceiling is not None
    terms = contrastive_token_terms(scores.token_log_probs, scores.token_mask, columns.own, columns.valid)
    lower_nats, upper_nats, ceilings, saturated = (
        totals_by_sample(x, owner, samples).tolist()
        for x in (information.terms, upper.terms, information.ceiling, information.saturated.double())
    )
    rows = []
    for number in range(samples):
        own = (owner == number).nonzero()[:, 0].tolist()
        bits = [float(nats_to_bits(nats)) for i in own for nats in terms[i, : len(scores.token_ids[i])]]
        rows.append(
            {
                "tokens": [token for i in own for token in scores.token_texts[i]],
                "token_bits": [round(value, 4) for value in bits] if all(map(math.isfinite, bits)) else None,
                "information_nats": _present(lower_nats[number]),
                "information_upper_nats": _present(upper_nats[number]),
                "information_ceiling_nats": _present(ceilings[number]),
                "saturated": None if _present(lower_nats[number]) is None else saturated[number] == len(own),
            }
        )
    return rows


def _by_task(samples: Sequence[Sample]) -> list[tuple[str, list[Sample]]]:
    ordered = sorted(samples, key=lambda sample: sample.document.task)
    return [(task, list(group)) for task, group in itertools.groupby(ordered, key=lambda s: s.document.task)]


def _batched(samples: list[Sample], size: int) -> list[list[Sample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]
