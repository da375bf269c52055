"""The channel from context to answer: what the predictor and the scorer make of a batch of messages.

Raw log-probabilities only; `objectives` turns them into accuracy and information.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from data.sample import Sample
from models.compressor import Message
from models.predictor import AnswerScore, Predictor, Query
from models.scorer import Scorer, Scores


@dataclass(frozen=True)
class Readings:
    """What came out of the channel, one entry a message.

    Attributes:
        answers: the predictor's answer from the message.
        answer_scores: log p(gold answer given message, question); None where the predictor cannot say.
        null_scores: the same without any message.
        scores: the log-prob matrix of the messages.
        seconds: what the predictor and the scorer took.
    """

    answers: list[str]
    answer_scores: list[AnswerScore | None]
    null_scores: list[AnswerScore | None]
    scores: Scores
    seconds: dict[str, float]


class Channel:
    """A predictor and a scorer, both frozen."""

    def __init__(self, predictor: Predictor, scorer: Scorer, shares_vocabulary: bool) -> None:
        """``shares_vocabulary``: the scorer reads the compressor's token ids, else messages are tokenised again."""
        self.predictor = predictor
        self.scorer = scorer
        self.shares_vocabulary = shares_vocabulary

    def read(
        self,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        contexts: Sequence[str],
        valid: Bool[Tensor, "messages contexts"],
    ) -> Readings:
        """Answer from each message and score it under the contexts that ``valid`` names; the question is held fixed."""
        queries = [_query(sample, message.text) for sample, message in zip(samples, messages, strict=True)]
        nulls = [_query(sample, "") for sample in samples]
        gold = [sample.question.answers[0] for sample in samples]
        own = list(dict.fromkeys(zip(nulls, gold, strict=True)))
        start = time.perf_counter()
        null_scores = self.predictor.answer_log_probs([query for query, _ in own], [answer for _, answer in own])
        null_of = dict(zip(own, null_scores, strict=True))
        answers, answer_scores = self.predictor.answer(queries), self.predictor.answer_log_probs(queries, gold)
        answered = time.perf_counter()
        scores = self._score(samples, messages, contexts, valid)
        return Readings(
            answers=answers,
            answer_scores=answer_scores,
            null_scores=[null_of[key] for key in zip(nulls, gold, strict=True)],
            scores=scores,
            seconds={"predictor": answered - start, "scorer": time.perf_counter() - answered},
        )

    def _score(
        self,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        contexts: Sequence[str],
        valid: Bool[Tensor, "messages contexts"],
    ) -> Scores:
        written = [message.token_ids if self.shares_vocabulary else message.text for message in messages]
        # A budget of one token can end before anything scorable is written; such a message is scored as an ended one.
        ended = [message.ended or not message.token_ids for message in messages]
        return self.scorer.fill(written, [sample.question.text for sample in samples], contexts, valid, ended)


def _query(sample: Sample, message: str) -> Query:
    return Query(message, sample.question.text, sample.question.options)
