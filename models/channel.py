"""The channel from context to answer: what the predictor and the scorers make of a batch of messages.

Raw log-probabilities only; `objectives` turns them into accuracy and information.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from jaxtyping import Bool
from torch import Tensor

from data.sample import Sample
from models.compressor import Message
from models.predictor import AnswerScore, Predictor, Query, RemotePredictor
from models.scorer import Scorer, Scores


class GoldScorer(Protocol):
    """What says how likely gold answers are: a predictor, or a copy of it that stays as it is while that learns."""

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """How likely each answer is; None where that cannot be told."""
        ...


@dataclass(frozen=True)
class Readings:
    """What came out of the channel, one entry a message.

    Attributes:
        answers: the predictor's answer from the message.
        answer_scores: log p(gold answer given message, question); None where the predictor cannot say or was not asked.
        null_scores: log p(gold answer given question), without any message; None likewise.
        missing: the numbers of the messages whose answer a server failed to give; it stands as an empty one.
    """

    answers: list[str]
    answer_scores: list[AnswerScore | None]
    null_scores: list[AnswerScore | None]
    missing: frozenset[int] = frozenset()


@dataclass(frozen=True)
class BoundScorer:
    """A scorer, bound to the compressor whose messages it scores.

    Attributes:
        scorer: a frozen model.
        shares_vocabulary: whether it reads the compressor's token ids; if not, messages are tokenised again as text.
    """

    scorer: Scorer
    shares_vocabulary: bool

    def score(
        self,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        contexts: Sequence[str],
        valid: Bool[Tensor, "messages contexts"],
    ) -> Scores:
        """Log-probabilities of each message under the contexts that ``valid`` names, each with its own question.

        What is scored is what the predictor reads: the text of a message that holds control tokens or outer white
        space, of which it is shown nothing, and the tokens of all others.
        """
        written = [self._read(message) for message in messages]
        # A budget can end before anything scorable is written; such a message is scored as an ended one.
        ended = [message.ended or not read for message, read in zip(messages, written, strict=True)]
        return self.scorer.fill(written, [sample.compressor_question for sample in samples], contexts, valid, ended)

    def _read(self, message: Message) -> str | list[int]:
        shown = self.shares_vocabulary and self.scorer.spells(message.token_ids, message.text)
        return message.token_ids if shown else message.text


@dataclass(frozen=True)
class Channel:
    """What a message goes through, all of it frozen.

    Attributes:
        predictor: answers from messages.
        scorers: at least one. The first measures information; a second, at evaluation, checks the first.
    """

    predictor: Predictor
    scorers: Sequence[BoundScorer]

    def answer(
        self,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        score_gold: bool = True,
        judge: GoldScorer | None = None,
        some: bool = False,
        during: AbstractContextManager[Any] | None = None,
    ) -> Readings:
        """What the predictor makes of each message: see `read`."""
        return read(self.predictor, samples, messages, score_gold, judge, some, during)

    def score(
        self,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        contexts: Sequence[str],
        valid: Bool[Tensor, "messages contexts"],
    ) -> Scores:
        """What the first scorer makes of each message: see `BoundScorer.score`."""
        return self.scorers[0].score(samples, messages, contexts, valid)


def read(
    predictor: Predictor,
    samples: Sequence[Sample],
    messages: Sequence[Message],
    score_gold: bool = True,
    judge: GoldScorer | None = None,
    some: bool = False,
    during: AbstractContextManager[Any] | None = None,
) -> Readings:
    """What a predictor makes of each message; a question without any message is read once.

    Scores of gold answers cost about as much as the answers; without ``score_gold`` there are none. ``judge`` gives
    them in the predictor's place. With ``some`` answers that a server fails to give are missing; without it the first
    such failure is raised. ``during`` is entered while the predictor answers, and left before gold answers are scored.
    """
    judge = predictor if judge is None else judge
    queries = [_query(sample, message.text) for sample, message in zip(samples, messages, strict=True)]
    with during or nullcontext():
        if some and isinstance(predictor, RemotePredictor):
            given = predictor.answer_some(queries)
        else:
            given = predictor.answer(queries)
    answers = [answer or "" for answer in given]
    missing = frozenset(number for number, answer in enumerate(given) if answer is None)
    if not score_gold:
        return Readings(answers, [None] * len(queries), [None] * len(queries), missing)
    nulls = [_query(sample, "") for sample in samples]
    gold = [sample.question.answers[0] for sample in samples]
    distinct = list(dict.fromkeys(zip(nulls, gold, strict=True)))
    null_scores = judge.answer_log_probs([query for query, _ in distinct], [answer for _, answer in distinct])
    null_of = dict(zip(distinct, null_scores, strict=True))
    return Readings(
        answers=answers,
        answer_scores=judge.answer_log_probs(queries, gold),
        null_scores=[null_of[key] for key in zip(nulls, gold, strict=True)],
        missing=missing,
    )


def _query(sample: Sample, message: str) -> Query:
    return Query(message, sample.question.text, sample.question.options)
