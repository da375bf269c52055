"""The evaluation of messages: a record for every question, with what its message carried and what it cost."""

import itertools
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from data.arrangement import AS_IT_IS, Arrangement, arranged_by_text
from data.errors import DataError
from data.rivals import candidates
from data.sample import Document, Sample, neighbours
from data.twins import twins_of_task
from eval.information import measure
from eval.metering import AnswerWatch, Stopwatch, spent_on_messages
from eval.parts import Pieces, joined, parts_of
from eval.record import Origin, Record, SpentFields, answer_fields, message_fields, question_fields
from eval.record_log import RecordLog
from models.channel import Channel
from models.compressor import Compressor, Message
from models.shared_prefix import sampling_seed
from objectives.negatives import Columns, NegativeCounts, choose_columns

Write = Callable[[Sequence[Sample]], list[Message]]
"""Whatever makes messages: one for each sample."""


def by_compressor(compressor: Compressor, temperature: float, seed: int) -> Write:
    """Messages of a compressor, one for each document and question that it is told.

    Above temperature 0 each message draws from a seed of its own.
    """

    def write(samples: Sequence[Sample]) -> list[Message]:
        distinct = list({_written_for(sample): None for sample in samples})
        messages = compressor.write(
            [text for _, text, _ in distinct],
            [question for _, _, question in distinct],
            temperature=temperature,
            seeds=[sampling_seed(seed, name) for name, _, _ in distinct],
        )
        message_of = dict(zip(distinct, messages, strict=True))
        return [message_of[_written_for(sample)] for sample in samples]

    return write


def _written_for(sample: Sample) -> tuple[str, str, str]:
    """What a message depends on: a name, by which it is drawn, the context, and the question if it is told."""
    return sample.message_id, sample.document.text, sample.compressor_question


@dataclass(frozen=True)
class Evaluation:
    """How to evaluate: the columns of the log-prob matrix and the questions taken together.

    Attributes:
        negatives: how many contexts of each kind a message is compared with; those of the batch are other documents of
            the same task.
        batch_size: questions in one pass.
        seed: seed of the choice of negatives.
        skip_long_messages: messages may be too long to be scored beside their contexts, as a whole context is, and then
            have no information; otherwise the first of them ends the evaluation.
        diagnostics: whether messages are measured by the estimators of `eval.diagnostics` as well.
        arrangement: how the scorer reads the contexts of all columns.
        information_questions: how many questions of each task have the information of their messages measured; None is
            all of them.
        costs: whether records say what their message and answer took.
        score_gold: whether the predictor scores the gold answers, for the task information; it costs about as much as
            answering.
    """

    negatives: NegativeCounts
    batch_size: int
    seed: int
    skip_long_messages: bool = False
    diagnostics: bool = False
    arrangement: Arrangement = AS_IT_IS
    information_questions: int | None = None
    costs: bool = False
    score_gold: bool = True

    def run(
        self, samples: Sequence[Sample], write: Write, channel: Channel, origin: Origin, log: RecordLog[Record]
    ) -> list[Record]:
        """One record a sample, by all processes together, in the order of ids; the same on any number of them.

        Args:
            samples: every sample of the evaluation: its documents are the other negatives.
            write: makes the messages.
            channel: answers from them and scores them.
            origin: how the messages are made, for every record.
            log: holds the batches that are done, whoever did them; each is added as soon as it is.
        """
        records = self.share(samples, write, channel, origin, log)
        return sorted(gather_object(records), key=lambda record: record["id"])

    def share(
        self,
        samples: Sequence[Sample],
        write: Write,
        channel: Channel,
        origin: Origin,
        log: RecordLog[Record] | None = None,
    ) -> list[Record]:
        """What this process does of `run`: the records of every so many batches, in the order of these.

        Args:
            samples: see `run`.
            write: see `run`.
            channel: see `run`.
            origin: see `run`.
            log: see `run`; None keeps none, and shows no progress.
        """
        state = PartialState()
        batches = self.batches(samples)[state.process_index :: state.num_processes]
        pools, measured = documents_by_task(samples), self.measured(samples)
        key = {**origin, "diagnostics": True} if self.diagnostics else dict(origin)
        if self.information_questions == 0:
            key["information_questions"] = 0
        records: list[Record] = []
        with tqdm(
            total=sum(map(len, batches)),
            initial=sum(len(batch) for batch in batches if log is not None and log.holds(key, batch)),
            desc=f"evaluating {origin['stage']}{', greedy' if origin['temperature'] == 0 else ''}",
            dynamic_ncols=True,
            disable=log is None or not state.is_main_process,
        ) as bar:
            for batch in batches:
                logged = None if log is None else log.records(key, batch)
                if logged is None:
                    pool = pools[batch[0].document.task]
                    logged = self.batch(batch, write, channel, origin, pool, measured)
                    logged = logged if log is None else log.add(key, batch, logged)
                    bar.update(len(batch))
                records += logged
        return records

    def measured(self, samples: Sequence[Sample]) -> frozenset[str]:
        """The ids of the questions whose messages' information is measured: drawn evenly by the seed, for each task."""
        ids: dict[str, list[str]] = {}
        for sample in samples:
            ids.setdefault(sample.document.task, []).append(sample.id)
        most = self.information_questions
        return frozenset(
            name
            for of_task in ids.values()
            for name in sorted(of_task, key=lambda name: sampling_seed(self.seed, "information", name))[:most]
        )

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

    def batch(
        self,
        samples: Sequence[Sample],
        write: Write,
        channel: Channel,
        origin: Origin,
        pool: Sequence[Document],
        measured: Container[str] | None = None,
    ) -> list[Record]:
        """The records of a few samples of one task.

        Args:
            samples: the questions.
            write: makes the messages.
            channel: answers from them and scores them.
            origin: how the messages are made.
            pool: the documents of the task.
            measured: the ids of the questions whose messages' information is measured; None is all of them.
        """
        pieces = Pieces.of(samples)
        with Stopwatch() as writing:
            messages = write(pieces.samples)
        columns = self.columns(pieces.samples, parts_of(pool))
        parts = pieces.by_sample(messages)
        answering = AnswerWatch(channel.predictor)
        answered_from = [joined(own_parts) for own_parts in parts]
        readings = channel.answer(samples, answered_from, self.score_gold, during=answering)
        chosen = [measured is None or samples[owner].id in measured for owner in pieces.owners]
        carried = measure(
            channel.scorers, pieces, messages, columns, torch.tensor(chosen), self.skip_long_messages, self.diagnostics
        )
        spent: list[SpentFields] = [{} for _ in samples]
        if self.costs:
            answered = answering.spent(len(samples))
            spent = [
                {"compressor_spent": written, "predictor_spent": answered}
                for written in spent_on_messages(parts, writing)
            ]
        return [
            {
                **origin,
                **question_fields(sample),
                "context": sample.document.text,
                **message_fields(parts[number]),
                **carried.tokens[number],
                **carried.information[number],
                **answer_fields(
                    sample, readings.answers[number], readings.answer_scores[number], readings.null_scores[number]
                ),
                **spent[number],
            }
            for number, sample in enumerate(samples)
        ]

    def columns(self, samples: Sequence[Sample], pool: Sequence[Document]) -> Columns:
        """The contexts each sample's message is compared over; ``pool`` holds the documents of its task.

        Raises:
            DataError: a sample has no other context to be compared with.
        """
        texts_by_group = neighbours(pool)
        distinct = tuple({document.id: document for document in pool}.values())
        readings = arranged_by_text(distinct, self.arrangement)
        by_sample = [
            candidates(
                sample.document,
                sample.question,
                self.negatives,
                self.seed,
                self.arrangement,
                neighbours=texts_by_group[sample.document.task, sample.document.id],
                batch=readings,
                readings=readings,
                twins=twins_of_task(distinct) if self.negatives.twins else None,
            )
            for sample in samples
        ]
        try:
            return choose_columns(by_sample, self.negatives, self.seed)
        except ValueError as error:
            where = f"{samples[0].document.task}, questions from {samples[0].id!r} on"
            raise DataError(f"{where}: {error}; ask for more documents or other information.negatives") from error


def documents_by_task(samples: Sequence[Sample]) -> dict[str, list[Document]]:
    """The documents of each task, one a sample, in the order of the samples."""
    documents: dict[str, list[Document]] = {}
    for sample in samples:
        documents.setdefault(sample.document.task, []).append(sample.document)
    return documents


def _batched(samples: list[Sample], size: int) -> list[list[Sample]]:
    return [samples[start : start + size] for start in range(0, len(samples), size)]
