"""Fabricated records: whole ones, whose fields a test replaces as it needs."""

import copy
import math
from typing import Any, cast

from eval.record import Record, RoundRecord, SweepRecord
from eval.record_file import AnyRecord

QUESTION: dict[str, Any] = {
    "question": "Which dose?",
    "kind": "numeric",
    "metric": "numeric",
    "options": [],
    "answers": ["5 mg"],
}
MEASURED: dict[str, Any] = {
    "prediction": "5 mg",
    "accuracy": 1.0,
    "information_nats": 1.0,
    "information_upper_nats": 2.0,
    "information_ceiling_nats": math.log(8),
    "saturated": False,
    "task_information_nats": 0.5,
    "answer_nll_nats": 1.0,
    "answer_tokens": 2,
}


Ends = tuple[float | None, float | None, float | None]
"""A value with the ends of its interval."""


def evaluation_record(
    index: int = 0, stage: str = "before", task: str = "notes", document: str = "d0", **fields: Any
) -> Record:
    """The record of one question at one stage; the message after training is shorter."""
    tokens = ["the", " dose", " is", " 5", " mg", "<end>"] if stage == "before" else ["5", " mg", "<end>"]
    record = {
        "stage": stage,
        "temperature": 1.0,
        "compressor": "0123456789abcdef",
        "budget_tokens": 16,
        "id": f"{task}/{document}/{index}",
        "task": task,
        "document_id": document,
        **QUESTION,
        "context": f"Context of {document}.",
        "message": "".join(tokens[:-1]),
        "message_tokens": len(tokens),
        "truncated_tokens": 0,
        "message_sentences": [1],
        "tokens": tokens,
        "token_bits": [0.4] * len(tokens),
        **MEASURED,
    }
    return cast(Record, record | fields)


def round_record(index: int = 0, number: int = 1, document: str = "d0", **fields: Any) -> RoundRecord:
    """The record of one question after one round."""
    record = {
        "id": f"notes/{document}/{index}",
        "task": "notes",
        "document_id": document,
        **QUESTION,
        "context": f"Context of {document}.",
        "stage": f"round {number}",
        "round": number,
        "asked": "Which dose?",
        "unanswered": False,
        "message": "5 mg.",
        "message_tokens": 4,
        "truncated_tokens": 0,
        "message_sentences": [1],
        "summed_information_nats": 1.0,
        **MEASURED,
    }
    return cast(RoundRecord, record | fields)


def sweep_record(**fields: Any) -> SweepRecord:
    """The record of one answer of a sweep."""
    record = {
        "id": "notes/d0/0",
        "task": "notes",
        "document_id": "d0",
        **QUESTION,
        "seed": 0,
        "compressor": "small",
        "compressor_family": "qwen",
        "compressor_parameters": 1_000_000,
        "sentences": None,
        "budget_tokens": 16,
        "setting": "",
        "predictor": "small",
        "predictor_family": "qwen",
        "predictor_parameters": 1_000_000,
        "message": "5 mg.",
        "message_tokens": 4,
        "truncated_tokens": 0,
        "message_sentences": [1],
        "second_information_nats": 1.0,
        "prefill_flops": 100,
        "generation_flops": 10,
        **MEASURED,
    }
    return cast(SweepRecord, record | fields)


def changed(record: AnyRecord, **fields: Any) -> AnyRecord:
    """The record with other values in some of its fields."""
    return cast(AnyRecord, {**record, **fields})


def summary(accuracy: tuple[float, float], change: Ends, tokens: Ends, density: Ends) -> Any:
    """Results of one task, from accuracies and (value, low, high) of the three changes."""
    figures = {
        key: {"value": 1.0, "low": 0.9, "high": 1.1}
        for key in (
            "message_tokens",
            "information_bits",
            "information_upper_bits",
            "task_information_bits",
            "bits_per_token",
            "perplexity",
            "saturated_share",
        )
    } | {"n": 40, "missing": 0, "documents": 20}
    stages = {
        stage: figures | {"accuracy": {"value": value, "low": value - 0.05, "high": value + 0.05}}
        for stage, value in zip(("before", "after"), accuracy, strict=True)
    }
    names = ("accuracy", "message_tokens_ratio", "bits_per_token_ratio")
    changes = {
        name: dict(zip(("value", "low", "high"), figure, strict=True))
        for name, figure in zip(names, (change, tokens, density), strict=True)
    }
    return {"overall": stages, "tasks": {"notes": copy.deepcopy(stages)}, "change": changes}
