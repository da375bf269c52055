"""The record of one question: every field an evaluation writes, with its unit."""

import math
from typing import Any

from data.sample import Sample
from models.predictor import AnswerScore
from objectives.accuracy import score

Record = dict[str, Any]


def accuracy_of(sample: Sample, answer: str) -> float | None:
    """None where no metric can tell, but a judge or the gold answer's perplexity."""
    question = sample.question
    return score(question.metric, answer, question.answers, question.options) if question.scored else None


def _answer_fields(gold: AnswerScore | None, null: AnswerScore | None) -> dict[str, Any]:
    return {
        "task_information_nats": None if gold is None or null is None else gold.log_prob - null.log_prob,
        "answer_nll_nats": None if gold is None else -gold.log_prob,
        "answer_tokens": None if gold is None else gold.tokens,
    }


def sample_fields(sample: Sample) -> dict[str, Any]:
    """What a record says of its question."""
    return {
        "id": sample.id,
        "task": sample.document.task,
        "document_id": sample.cluster,
        "context": sample.document.text,
        "question": sample.question.text,
        "kind": sample.question.kind,
        "metric": sample.question.metric,
        "options": list(sample.question.options),
        "answers": list(sample.question.answers),
    }


def _present(value: float) -> float | None:
    """None for what is missing or not finite: it is counted, never averaged."""
    return value if math.isfinite(value) else None
