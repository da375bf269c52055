"""What an exported compressor's messages are worth on a sample of questions, through the runtime and PyTorch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.errors import DataError
from data.registry import load_documents
from data.sample import Sample, samples_of
from data.task import Request
from models.compress_job import bits
from models.compressor import Compressor, Message
from models.export.runtime import Runtime
from models.export.trained import Trained, compressor_of
from models.naming import MINIATURE
from models.predictor import LocalPredictor, Query
from objectives.accuracy import score

ANSWER_TOKENS = 32
"""The most tokens of an answer: several times what the questions of a sample need."""


@dataclass(frozen=True)
class Worth:
    """What messages are worth, on average over the questions of a sample.

    Attributes:
        accuracy: the metric of what the predictor answers from them, in [0, 1]; None without a predictor.
        tokens: their length, the end token included.
        bits: what the document makes them likelier by, log2, under the base model in PyTorch; None where unknown.
    """

    accuracy: float | None
    tokens: float
    bits: float | None

    def line(self, name: str) -> str:
        """What is printed."""
        accuracy = "" if self.accuracy is None else f"accuracy {self.accuracy:.1%}, "
        density = "" if self.bits is None else f", {self.bits / self.tokens:.2f} bits a token"
        return f"messages through {name}: {accuracy}{self.tokens:.1f} tokens{density}"


def load_sample(path: str | None, base: str, questions: int) -> list[Sample]:
    """Questions that messages are written for.

    Args:
        path: a file of the task ``records``; None takes notes of the embedded suite for an embedded model, and none for
            another, which knows nothing of them.
        base: the base model's name.
        questions: the most.

    Raises:
        DataError: the file cannot be used.
    """
    if path is None and not base.startswith(MINIATURE):
        return []
    if path is None:
        request = Request(split="test", documents=questions, questions_per_document=1)
        return samples_of(load_documents("miniature/notes", request).documents)
    samples = samples_of(load_documents("records", Request(split="test", source=path)).documents)
    scored = [sample for sample in samples if sample.question.scored]
    if not scored:
        raise DataError(f"{path!r}: no question has an answer that a metric scores")
    return scored[:questions]


def worth(
    trained: Trained, runtime: Runtime | None, samples: Sequence[Sample], predictor: LocalPredictor | None
) -> Worth:
    """What the messages of a runtime are worth.

    Args:
        trained: a compressor's adapter.
        runtime: has its exported files loaded; None is PyTorch, in float32.
        samples: the questions.
        predictor: answers from the messages; None for none.
    """
    compressor = compressor_of(trained.adapted, trained.tokenizer, trained.settings)
    contexts = [compressor.fit(sample.document)[0].text for sample in samples]
    questions = [sample.compressor_question for sample in samples]
    if runtime is None:
        messages = compressor.write(contexts, questions)
    else:
        messages = [_message(compressor, runtime, *pair) for pair in zip(contexts, questions, strict=True)]
    accuracy = None if predictor is None else _accuracy(samples, messages, predictor)
    known = [value for value in bits(compressor, contexts, questions, messages) if value is not None]
    return Worth(
        accuracy,
        sum(message.tokens for message in messages) / len(messages),
        sum(known) / len(known) if known else None,
    )


def _message(compressor: Compressor, runtime: Runtime, context: str, question: str) -> Message:
    ids = runtime.greedy(compressor.prompt(context, question).ids, compressor.budget_tokens, compressor.end_token_id)
    ended = bool(ids) and ids[-1] == compressor.end_token_id
    own = ids[:-1] if ended else ids
    return Message(compressor.text(own), own, ended, [])


def _accuracy(samples: Sequence[Sample], messages: Sequence[Message], predictor: LocalPredictor) -> float:
    queries = [
        Query(message.text, sample.question.text, sample.question.options)
        for message, sample in zip(messages, samples, strict=True)
    ]
    scores = [
        score(sample.question.metric, answer, sample.question.answers, sample.question.options)
        for sample, answer in zip(samples, predictor.answer(queries), strict=True)
    ]
    return sum(scores) / len(scores)


def sample_name(path: str | None) -> str:
    """How the card calls the sample, without a path of this machine."""
    return "notes of the embedded suite" if path is None else Path(path).name
