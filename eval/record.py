"""The record of one question: every field that an evaluation, a sweep or a run of rounds writes, with its unit.

Records are the lines of ``samples.jsonl``, ``samples.greedy.jsonl`` and ``baselines.jsonl``, of a sweep's
``samples.jsonl``, and the ``records`` of ``rounds.json``. Scores are in nats. None marks a score that is missing: it is
counted, never averaged.
"""

import math
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

from data.sample import Sample
from data.sentences import count_sentences
from eval.parts import joined
from models.compressor import Message
from models.predictor import AnswerScore
from objectives.accuracy import score

SCHEMA_VERSION = 1
"""The version of the records, written as ``schema_version`` into every file that holds some.

Raise it when a field is renamed, goes away or changes its unit or meaning, for then files of both versions must not be
read as one. A field that is added leaves it as it is: declare the field ``NotRequired``.
"""

Cluster = tuple[str, str]
"""Task and document of a record: the unit that every interval resamples."""


class QuestionFields(TypedDict):
    """The question that a record is about."""

    id: str
    """The question: its task, document and own id, joined by slashes; unique in an evaluation."""

    task: str
    """The name of its task."""

    document_id: str
    """The document, patient, filing or user whose questions depend on each other; unique within the task."""

    question: str
    """The question as the predictor reads it."""

    kind: str
    """The task's label of the type of question; empty where it has none."""

    metric: str
    """What scores the answer: a name in ``objectives.accuracy.METRICS``, ``judge`` or ``perplexity``."""

    options: list[str]
    """The options of a multiple-choice question, which the compressor never sees; empty otherwise."""

    answers: list[str]
    """The gold answers. A metric takes the best over them; log-probabilities are those of the first."""


class MessageFields(TypedDict):
    """The message, and what it took to write."""

    message: str
    """The text of the message; those of a document in parts are joined."""

    message_tokens: int
    """The length of the message in tokens of the compressor, every end token included."""

    truncated_tokens: int
    """Tokens that were cut out of the middle of the context when this message was written."""

    message_sentences: list[int]
    """The number of sentences of each part of the message; one entry where the document is in one part."""


class InformationFields(TypedDict):
    """The information that a message passes about its context."""

    information_nats: float | None
    """The contrastive lower bound on the information passed, in nats. None where a score is missing."""

    information_upper_nats: float | None
    """The leave-one-out upper bound, in nats. None where a score is missing or the bound is infinite."""

    information_ceiling_nats: float | None
    """The most that the lower bound can show, log N for every part of the document, in nats. None as the bound."""

    saturated: bool | None
    """Whether every part of the message reaches the ceiling. None where the lower bound is None."""

    second_information_nats: NotRequired[float | None]
    """The lower bound by the second scorer, in nats. None where a score is missing, absent without a second scorer."""

    diagnostics_nats: NotRequired[dict[str, float | None]]
    """The further estimators of ``eval.diagnostics`` by their keys, in nats. None where one is missing or infinite;
    absent where the evaluation's ``diagnostics`` are off."""


class AnswerFields(TypedDict):
    """The answer that the predictor gives from the message."""

    prediction: str
    """The answer."""

    accuracy: float | None
    """The score of the answer, as a share in [0, 1]. None where the metric is ``perplexity``, or ``judge`` and no judge
    gave a verdict."""

    verdict: NotRequired[Literal["correct", "incorrect", "refusal"] | None]
    """What the judge said. None where its reply could not be read, absent where no judge was asked."""

    task_information_nats: float | None
    """How much likelier the message makes the gold answer: log p(answer given message) - log p(answer), in nats. None
    where the predictor gives no log-probabilities."""

    answer_nll_nats: float | None
    """The negative log-probability of the gold answer given the message, in nats. None as ``task_information_nats``."""

    answer_tokens: int | None
    """The tokens of the gold answer, its end token included. None as ``task_information_nats``."""


class BaseRecord(QuestionFields, MessageFields, InformationFields, AnswerFields):
    """What every record has: a question, the message written for it, what that carries, and the answer from it."""


class Origin(TypedDict):
    """How a message was made."""

    stage: str
    """``before`` is the reference (of a training run what GRPO started from) and ``after`` the compressor
    measured; a baseline is its name and budget."""

    temperature: float | None
    """The sampling temperature of the message; 0 takes the most likely tokens. None where no model writes it."""

    compressor: NotRequired[str]
    """A hash of the compressor's parameters and prompt. Absent where no model writes the message."""

    budget_tokens: int
    """The most tokens that the message may have."""


class StagedRecord(BaseRecord):
    """A record that belongs to a stage: of an evaluation, or of a run of rounds."""

    stage: str
    """The stage of an evaluation (see ``Origin``), or ``round 1``, ``round 2`` and so on."""


class TokenFields(TypedDict):
    """The message token by token, as the scorer reads it."""

    tokens: list[str]
    """The tokens of the message in the scorer's vocabulary, as text; the end token included."""

    token_bits: list[float] | None
    """What each token adds to the lower bound, in bits, to four decimals: together ``information_nats`` in bits. None
    where a score is missing."""


class Spent(TypedDict):
    """What one model took for one question. Every figure is None where nobody measured it."""

    seconds: float | None
    """Wall time, in seconds: that of the batch, divided by its questions. None also where the message was cut from a
    longer one, and where an answer of a server was kept from an earlier run."""

    joules: float | None
    """Energy of the processor packages in that time, in joules, divided likewise. None also in every process but the
    first."""

    tokens_read: float | None
    """Tokens that the model reads, the template included, as if the question were asked by itself. Of the predictor it
    is the mean of the batch."""

    tokens_written: float | None
    """Tokens that the model writes, the end token included. Of the predictor it is the mean of the batch."""


class SpentFields(TypedDict):
    """What a question cost, where an evaluation measured it; differs from run to run, as all that is timed does."""

    compressor_spent: NotRequired[Spent]
    """What the message took, whatever made it. Absent where the record is of a run that did not measure."""

    predictor_spent: NotRequired[Spent]
    """What the answer took, without the scoring of the gold answer. Absent likewise."""


class Record(StagedRecord, Origin, TokenFields, SpentFields):
    """The record of an evaluation: one for every question and stage."""

    context: str
    """The context, cut to what the compressor measured can read; of a document in parts the whole text."""


class BaselineRecord(StagedRecord, Origin, SpentFields):
    """The record of a baseline: one for every question, baseline and budget; the context is in the other records."""

    baseline: str
    """The baseline, as ``results.json`` names it."""


class RoundInformation(InformationFields):
    """The information that the messages of several rounds pass together."""

    summed_information_nats: float | None
    """The lower bounds of the messages by themselves, added up, in nats. None where a score is missing."""


class RoundRecord(StagedRecord, RoundInformation):
    """The record of a run of rounds: one for every question and round, of all messages up to that round."""

    context: str
    """The context, cut to what the compressor measured can read; of a document in parts the whole text."""

    round: int
    """The number of the round; 1 is the ordinary message."""

    asked: str
    """The question as the compressor was told it in this round; empty where it writes without."""

    unanswered: bool
    """Whether the predictor wrote no question for this round, so that the last one was asked again."""


class FlopsFields(TypedDict):
    """The cost of a message in a sweep."""

    prefill_flops: int | None
    """Floating-point operations of reading the context. None where they cannot be counted for this model."""

    generation_flops: int | None
    """Floating-point operations of writing the message. None where they cannot be counted for this model."""


class LoggedMessage(MessageFields, InformationFields, FlopsFields):
    """What the first pass of a sweep logs: a message, whose compressor goes by its hash and may change its name."""

    id: str
    """The question: see ``QuestionFields``."""

    seed: int
    """The seed that the message was sampled with."""


class MessageRecord(LoggedMessage):
    """What the first pass of a sweep gives: a message of a compressor."""

    compressor: str
    """The name of the compressor in the grid."""


class LoggedAnswer(AnswerFields):
    """What the second pass of a sweep logs: an answer, whose models go by their hashes and may change their names."""

    id: str
    """The question: see ``QuestionFields``."""


class AnswerRecord(LoggedAnswer):
    """What the second pass of a sweep gives: the answer of a predictor from a message of a compressor."""

    seed: int
    """The seed that the message was sampled with."""

    compressor: str
    """The name of the compressor in the grid."""

    predictor: str
    """The name of the predictor in the grid."""


class CompressorFields(TypedDict):
    """The compressor of a sweep's record."""

    compressor: str
    """The name of the compressor in the grid."""

    compressor_family: str
    """The family that the configuration gives it."""

    compressor_parameters: int | None
    """How many parameters it has, adapters left out. None where nobody says."""

    sentences: int | None
    """The number of sentences that it is asked for. None where it is asked for none."""

    budget_tokens: int
    """The most tokens that the message may have."""

    setting: str
    """How it is asked, in words, where the grid varies that; empty otherwise."""


class PredictorFields(TypedDict):
    """The predictor of a sweep's record."""

    predictor: str
    """The name of the predictor in the grid."""

    predictor_family: str
    """The family that the configuration gives it."""

    predictor_parameters: int | None
    """How many parameters it has. None where nobody says."""


class SweepRecord(QuestionFields, CompressorFields, PredictorFields, MessageRecord, AnswerRecord):
    """The record of a sweep: one for every question, seed, compressor and predictor."""


def cluster(record: QuestionFields) -> Cluster:
    """The cluster of a record; document ids are unique within a task only."""
    return record["task"], record["document_id"]


def finite(value: float | None) -> float | None:
    """The value; None where it is missing or not finite, for a failed score is counted and never averaged."""
    return value if value is not None and math.isfinite(value) else None


def accuracy_of(sample: Sample, answer: str) -> float | None:
    """The score of an answer, as a share in [0, 1]; None where a judge or the gold answer's perplexity has to tell."""
    question = sample.question
    return score(question.metric, answer, question.answers, question.options) if question.scored else None


def question_fields(sample: Sample) -> QuestionFields:
    """What a record says of its question."""
    question = sample.question
    return {
        "id": sample.id,
        "task": sample.document.task,
        "document_id": sample.cluster,
        "question": question.text,
        "kind": question.kind,
        "metric": question.metric,
        "options": list(question.options),
        "answers": list(question.answers),
    }


def message_fields(parts: Sequence[Message]) -> MessageFields:
    """What a record says of its message, from the messages of the parts of its document."""
    message = joined(parts)
    return {
        "message": message.text,
        "message_tokens": message.tokens,
        "truncated_tokens": message.truncated_tokens,
        "message_sentences": [count_sentences(part.text) for part in parts],
    }


def answer_fields(sample: Sample, answer: str, gold: AnswerScore | None, null: AnswerScore | None) -> AnswerFields:
    """What a record says of the answer.

    Args:
        sample: the question.
        answer: what the predictor answered from the message.
        gold: the score of the gold answer given the message; None where the predictor gives none.
        null: its score without any message; None where the predictor gives none.
    """
    return {
        "prediction": answer,
        "accuracy": accuracy_of(sample, answer),
        "task_information_nats": None if gold is None or null is None else gold.log_prob - null.log_prob,
        "answer_nll_nats": None if gold is None else -gold.log_prob,
        "answer_tokens": None if gold is None else gold.tokens,
    }
