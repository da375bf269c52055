"""The evaluation of a compressor: a record for every question, with what its message carried and what it cost."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from data.sample import Document, Sample, neighbours
from models.channel import Channel, Readings
from models.compressor import Compressor, Message
from models.generation import sampling_seed
from models.predictor import AnswerScore
from objectives.accuracy import score
from objectives.mutual_information import contrastive, contrastive_token_terms, leave_one_out, nats_to_bits
from objectives.negatives import Candidates, Columns, NegativeCounts, choose_columns, parts_removed


@dataclass(frozen=True)
class Evaluation:
    """How to evaluate: the columns of the log-prob matrix and the questions taken together.

    Attributes:
        negatives: of each kind; those of the batch are other documents of the same task.
        batch_size: questions in one pass.
        temperature: messages are sampled at; 0 takes the most likely tokens.
        seed: of the messages and of the choice of negatives.
    """

    negatives: NegativeCounts
    batch_size: int
    temperature: float
    seed: int

    def run(
        self, samples: Sequence[Sample], compressor: Compressor, channel: Channel, stage: str, pool: Sequence[Sample]
    ) -> list[dict[str, Any]]:
        """One record a sample, in the order of task and document.

        Args:
            samples: what to evaluate: all of ``pool``, or one process's share of it.
            compressor: writes the messages.
            channel: answers from them and scores them.
            stage: "before" or "after".
            pool: every sample of the evaluation: its documents are the other negatives, whatever the share.
        """
        documents = [sample.document for sample in pool]
        # Questions of one document stand next to each other, so that its context is read once for all of them.
        ordered = sorted(samples, key=lambda sample: (sample.document.task, sample.document.id))
        records = []
        quiet = not PartialState().is_main_process
        what = f"evaluating {stage}{', greedy' if self.temperature == 0 else ''}"
        with tqdm(total=len(ordered), desc=what, dynamic_ncols=True, disable=quiet) as bar:
            for task, group in itertools.groupby(ordered, key=lambda sample: sample.document.task):
                for batch in _batched(list(group), self.batch_size):
                    records += self._batch(batch, compressor, channel, stage, [d for d in documents if d.task == task])
                    bar.update(len(batch))
        return records

    def _batch(
        self, samples: list[Sample], compressor: Compressor, channel: Channel, stage: str, pool: Sequence[Document]
    ) -> list[dict[str, Any]]:
        messages = compressor.write(
            [sample.document.text for sample in samples],
            [sample.question.text for sample in samples],
            temperature=self.temperature,
            seeds=[sampling_seed(self.seed, sample.id) for sample in samples],
        )
        columns = self.columns(samples, pool)
        readings = channel.read(samples, messages, columns.contexts, columns.valid)
        made = {"stage": stage, "temperature": self.temperature}
        return [made | record for record in records(samples, messages, columns, readings, channel)]

    def columns(self, samples: Sequence[Sample], pool: Sequence[Document]) -> Columns:
        """The contexts each sample's message is compared over; ``pool`` holds the documents of its task."""
        near = neighbours(pool)
        batch = [document.text for document in pool]
        candidates = [
            Candidates(
                own=document.text,
                counterfactual=question.negatives,
                same_document=parts_removed(document.text, question.evidence, self.negatives.same_document, self.seed),
                neighbour=near[document.task, document.id],
                batch=batch,
            )
            for document, question in ((sample.document, sample.question) for sample in samples)
        ]
        return choose_columns(candidates, self.negatives, self.seed)


def records(
    samples: Sequence[Sample],
    messages: Sequence[Message],
    columns: Columns,
    readings: Readings,
    channel: Channel,
) -> list[dict[str, Any]]:
    """Readings as records: nats by message, bits by token, None where a score is missing."""
    scores = readings.scores
    information = contrastive(scores.log_probs, columns.own, columns.valid)
    upper = leave_one_out(scores.log_probs, columns.own, columns.valid)
    assert information.ceiling is not None
    terms = contrastive_token_terms(scores.token_log_probs, scores.token_mask, columns.own, columns.valid)
    tokenizer = channel.scorer.prompts.format.tokenizer
    rows = []
    for i, (sample, message) in enumerate(zip(samples, messages, strict=True)):
        ids = scores.token_ids[i]
        bits = nats_to_bits(terms[i, : len(ids)])
        assert isinstance(bits, torch.Tensor)
        answer, null = readings.answer_scores[i], readings.null_scores[i]
        rows.append(
            _sample_fields(sample)
            | {
                "message": message.text,
                "message_tokens": message.tokens,
                "tokens": [str(tokenizer.decode([token])) for token in ids],
                "token_bits": [round(value, 4) for value in bits.tolist()],
                "prediction": readings.answers[i],
                "accuracy": score(sample.question.metric, readings.answers[i], sample.question.answers),
                "information_nats": _present(information.terms[i].item()),
                "information_upper_nats": _present(upper.terms[i].item()),
                "information_ceiling_nats": information.ceiling[i].item(),
                "saturated": None if information.terms[i].isnan() else bool(information.saturated[i]),
                "task_information_nats": _task_information(answer, null),
                "answer_nll_nats": None if answer is None else -answer.log_prob,
                "answer_tokens": None if answer is None else answer.tokens,
            }
        )
    return rows


def _sample_fields(sample: Sample) -> dict[str, Any]:
    return {
        "id": sample.id,
        "task": sample.document.task,
        "document_id": sample.document.id,
        "context": sample.document.text,
        "question": sample.question.text,
        "kind": sample.question.kind,
        "options": list(sample.question.options),
        "answers": list(sample.question.answers),
    }


def _present(value: float) -> float | None:
    """None for what is missing or not finite: it is counted, never averaged."""
    return value if value == value and abs(value) != float("inf") else None


def _task_information(answer: AnswerScore | None, null: AnswerScore | None) -> float | None:
    return None if answer is None or null is None else answer.log_prob - null.log_prob


def _batched(samples: list[Sample], size: int) -> list[list[Sample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]
