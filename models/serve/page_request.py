"""What the page asks: a message with the bits of each of its tokens, and a predictor's answers."""

from dataclasses import dataclass
from typing import Any

from models.serve.backend import Task, Written
from models.serve.chat_request import Limits, check_model, task_of
from models.serve.fields import Fields, check_known, text, truth
from models.serve.refusal import Refusal
from models.serve.replies import finish_reason, usage
from models.serve.service import Answers

READ = (
    "model",
    "document",
    "question",
    "bits",
    "answer",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "seed",
)
"""Fields that are understood."""


@dataclass(frozen=True)
class PageRequest:
    """One document with one question.

    Attributes:
        task: the work.
        question: what a predictor is asked, though the compressor may be told none.
        answer: whether the predictor is asked.
    """

    task: Task
    question: str
    answer: bool


def read_page(fields: Fields, limits: Limits) -> PageRequest:
    """The request that a body means.

    Raises:
        Refusal: naming the field that is wrong, unknown or missing.
    """
    check_known(fields, READ)
    check_model(fields, limits)
    document, question = text(fields, "document"), text(fields, "question", empty=limits.hidden)
    for name, value in (("document", document), ("question", "" if limits.hidden and not question else question)):
        if value is None:
            raise Refusal(f"{name!r} is missing", param=name, code="missing_parameter")
    answer = truth(fields, "answer", True) and bool(question)
    return PageRequest(task_of(fields, limits, document or "", question or ""), question or "", answer)


def page_reply(asked: PageRequest, written: Written, answers: Answers | None) -> dict[str, Any]:
    """The body of the reply."""
    choice = written.choices[0]
    return {
        "message": choice.text,
        "tokens": [{"text": text, "bits": bits} for text, bits in choice.parts],
        "message_tokens": choice.tokens,
        "budget_tokens": asked.task.budget_tokens,
        "bits": choice.bits,
        "ended": choice.ended,
        "finish_reason": finish_reason(choice),
        "truncated_tokens": written.truncated_tokens,
        "neutralised": written.neutralised,
        "usage": usage(written),
        "answers": None
        if answers is None
        else {"with_message": answers.with_message, "without_message": answers.without_message},
    }
