"""The reward of messages as TRL asks for it: a number for each message, and every component logged by itself."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from math import isfinite
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Bool, Float, Int
from torch import Tensor

from data.arrangement import Arrangement
from data.sample import Sample
from eval.record import accuracy_of
from models.channel import Channel, Readings
from models.compressor import Compressor, Message
from models.endpoint import REFUSALS, EndpointError
from models.predictor import AnswerScore
from models.scorer import NO_CONTEXT, Scores
from objectives.mutual_information import (
    Estimate,
    contrastive,
    contrastive_token_terms,
    leave_one_out,
    nats_to_bits,
    rate_against_prior,
    task_information,
)
from objectives.negatives import Columns, NegativeCounts
from objectives.reward import combine, token_credit
from objectives.selection import best_of_groups
from train.config import Config
from train.predictor_update import PredictorUpdate
from train.questions.asked import Asked, asked_budget, own_questions, questions_of_documents
from train.reward.columns import StepColumns
from train.reward.components import basic_components, share_of_ceiling
from train.reward.weights import StepWeights
from train.tracking.server_metrics import server_metrics

PRIOR_RATE_BITS = 10.0
"""The unit of the rate against the prior, in bits: about what a key and its value weigh, so that 1 is a fact told."""


class MessageReward:
    """What the messages of this process's slice are paid for: accuracy, information, length and what else has a weight.

    Attributes:
        token_credit: the credit of each token of the last messages, where the configuration asks for it; in units of
            advantage.
        kept: how much each of the last messages is learned, from 0 to 1, where the update is best of n.
        watch: is shown the messages of every step and what they were paid, as `SampleMessages.take` is; None is nobody.
    """

    __name__ = "message"

    def __init__(
        self,
        config: Config,
        compressor: Compressor,
        channel: Channel,
        samples: Mapping[str, Sample],
        gather: Callable[[list[Any]], list[Any]] = gather_object,
        predictor_update: PredictorUpdate | None = None,
    ) -> None:
        """Fix the weights and the models.

        Args:
            config: the run's; its section ``reward`` has the weights.
            compressor: whose messages they are.
            channel: what they are read and scored through.
            samples: the questions by id.
            gather: joins what each process gives into one list for all.
            predictor_update: has the predictor learn from the messages, once they are paid for; None leaves it.

        Raises:
            DataError: a question has no context to compare its messages with.
        """
        self.config = config
        self.gather = gather
        self.compressor = compressor
        self.channel = channel
        self.samples = samples
        self.by_document: dict[tuple[str, str], list[Sample]] = {}
        for sample in samples.values():
            self.by_document.setdefault((sample.document.task, sample.document.id), []).append(sample)
        self.predictor_update = predictor_update
        self.columns = StepColumns(
            samples,
            NegativeCounts(**config.information.negatives.model_dump()),
            config.seed,
            gather,
            of_task=config.train.batch_negatives == "task",
            arrangement=Arrangement(config.information.evidence, config.information.context_words),
            twins_per_step=config.information.twins_per_step,
        )
        self.step_weights = StepWeights(config.reward)
        self.weights = self.step_weights.at(1)
        self.token_credit: Float[Tensor, "messages tokens"] | None = None
        self.kept: Float[Tensor, " messages"] | None = None
        # The metric on what the predictor answers without a message, by question; NaN where only a judge could tell.
        self.unaided: dict[str, float] = {}
        self.watch: Callable[..., None] | None = None

    def __call__(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        trainer_state: Any,
        log_metric: Any,
        demonstrated: Sequence[bool] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """A reward for each message; metrics go to ``log_metric``, the credit of each token stays in ``token_credit``.

        Args:
            prompts: sample ids, a group of equal ones for each question.
            completion_ids: the tokens of the messages, the end token last where one was written.
            trainer_state: TRL's, which knows the step.
            log_metric: takes a name and a value; what is missing for all messages of the step is not logged.
            demonstrated: whether a message was told by gold evidence: it is paid as the sampled ones are, and the
                metrics of messages leave it out; None is none.

        Raises:
            EndpointError: the predictor's server failed a process; all of them raise it.
        """
        samples = [self.samples[prompt] for prompt in prompts]
        messages = [self._message(ids) for ids in completion_ids]
        sampled = ~torch.tensor(demonstrated or [False] * len(messages))
        self.weights = self.step_weights.at(trainer_state.global_step + 1)
        columns = self.columns.draw(samples, trainer_state.global_step)
        start = time.perf_counter()
        score_gold = self._scores_gold(trainer_state.global_step + 1)
        asked = self._asked(samples, trainer_state.global_step)
        readings = self._answers(asked.samples, asked.of(messages), score_gold)
        answered = time.perf_counter()
        scores = self._scores(samples, messages, columns)
        seconds = {"seconds/predictor": answered - start, "seconds/scorer": time.perf_counter() - answered}
        answered_rightly = asked.filled(_accuracy(asked.samples, readings), self.config.train.group_size)
        accuracy, task = asked.mean(answered_rightly), _task_information(asked, readings)
        budgets = self._budgets(samples, trainer_state.global_step)
        rewards, metrics = self.rewards(messages, columns, accuracy, task, scores, budgets, sampled, score_gold)
        if self.config.reward.token_information:
            self.token_credit = self._token_credit(columns, scores, completion_ids)
        if self.config.train.update == "best_of_n":
            gains = asked.mean(answered_rightly - self._accuracy_without_message(asked))
            self.kept = best_of_groups(rewards, gains, self.config.train.group_size)
            if self.config.train.demonstrations:
                metrics["kept/demonstrated_share"] = (~sampled)[self.kept > 0].double().mean().item()
        metrics["retokenised_share"] = float(scores.retokenised)
        metrics |= server_metrics(self.channel.predictor, self.config.predictor, self.gather)
        metrics |= self._hold(accuracy, messages, sampled, trainer_state.global_step + 1)
        if self.predictor_update is not None:
            start = time.perf_counter()
            metrics |= self.predictor_update.take(trainer_state.global_step + 1, asked, messages, rewards)
            seconds["seconds/predictor_update"] = time.perf_counter() - start
        for name, value in (metrics | seconds).items():
            if isfinite(value):
                log_metric(name, value)
        if self.watch is not None:
            shown = asked.first(readings)
            self.watch(trainer_state.global_step + 1, samples, messages, columns, shown, scores, rewards)
        values: list[float | None] = rewards.tolist()
        return values

    def pauses(self, step: int) -> bool:
        """Whether the compressor does not learn in a step, from 1, because it is the predictor's turn."""
        update = self.config.train.predictor_update
        return update is not None and not update.compressor_learns(step)

    def _asked(self, samples: Sequence[Sample], step: int) -> Asked:
        """The questions that each message is paid for."""
        if self.config.compressor.question == "shown":
            return own_questions(samples)
        return questions_of_documents(
            samples, self.by_document, self.config.train.questions_per_message, self.config.seed, step
        )

    def _budgets(self, samples: Sequence[Sample], step: int) -> Int[Tensor, " messages"]:
        """The most tokens of each message, as the rollout asked for them."""
        most, budgets = self.compressor.budget_tokens, self.compressor.asked_budgets
        return torch.tensor([asked_budget(budgets, most, self.config.seed, step, sample.id) for sample in samples])

    @property
    def _reads_no_context(self) -> bool:
        """Whether a component of the reward reads messages under no context."""
        return bool(self.weights.prior_rate or self.weights.readability)

    def _scores(self, samples: Sequence[Sample], messages: Sequence[Message], columns: Columns) -> Scores:
        """Messages under the contexts they are compared with, and last under none where a component reads that."""
        contexts, valid = list(columns.contexts), columns.valid
        if self._reads_no_context:
            contexts, valid = [*contexts, NO_CONTEXT], torch.nn.functional.pad(valid, (0, 1), value=True)
        return self.channel.score(samples, messages, contexts, valid)

    def _accuracy_without_message(self, asked: Asked) -> Float[Tensor, " questions"]:
        """What the predictor answers from the question alone, asked once in a run: no message has told it that.

        NaN is missing, however many are: nothing is learned from such a question, and it is asked again when it comes
        again.
        """
        new = list({sample.id: sample for sample in asked.samples if sample.id not in self.unaided}.values())
        # As it started, where it learns: else what is kept would depend on when a question first came.
        with nullcontext() if self.predictor_update is None else self.predictor_update.as_started():
            readings = self._answers(new, [Message("", [], True, [])] * len(new), False, may_all_fail=True)
        known = zip((sample.id for sample in new), _accuracy(new, readings).tolist(), strict=True)
        self.unaided |= {name: value for place, (name, value) in enumerate(known) if place not in readings.missing}
        return torch.tensor([self.unaided.get(sample.id, torch.nan) for sample in asked.samples]).double()

    def _hold(
        self,
        accuracy: Float[Tensor, " messages"],
        messages: Sequence[Message],
        sampled: Bool[Tensor, " messages"],
        step: int,
    ) -> dict[str, float]:
        """Move the multiplier of what is held; the weights that are no constants, as they were at this step.

        While the compressor pauses it stays: nothing follows it then, and it would go ever further.
        """
        changing = {f"weights/{name}": getattr(self.weights, name) for name in self.config.reward.schedules}
        if self.step_weights.held is None:
            return changing
        known, lengths = accuracy[~accuracy.isnan() & sampled], _lengths(messages)[sampled]
        own = [known.sum().item(), len(known), lengths.sum().item(), len(lengths)]
        total, count, tokens, written = (sum(column) for column in zip(*self.gather([own]), strict=True))
        if not self.pauses(step):
            self.step_weights.take(total / count if count else torch.nan, tokens / written)
        held = self.step_weights.held
        return changing | {f"weights/{held}": getattr(self.weights, held)}

    def _scores_gold(self, step: int) -> bool:
        """Whether the predictor scores gold answers at a step, from 1: where that is paid for, or the metric is due."""
        every = self.config.train.task_information_every
        return bool(self.weights.task_information) or (every > 0 and step % every == 0)

    def _answers(
        self, samples: Sequence[Sample], messages: Sequence[Message], score_gold: bool, may_all_fail: bool = False
    ) -> Readings:
        """The predictor's answers. A server's fault is told to all processes, which then save together."""
        readings, failure = None, ""
        some = self.config.predictor.max_missing > 0
        try:
            readings = self.channel.answer(samples, messages, score_gold, self.predictor_update, some)
            failure = "" if may_all_fail else self._too_many_missing(readings)
        except EndpointError as error:
            if may_all_fail and some and error.status not in REFUSALS:
                nothing: list[AnswerScore | None] = [None] * len(samples)
                readings = Readings([""] * len(samples), nothing, nothing, frozenset(range(len(samples))))
            else:
                failure = str(error)
        if failures := [text for text in self.gather([failure]) if text]:
            raise EndpointError(failures[0])
        assert readings is not None
        return readings

    def _too_many_missing(self, readings: Readings) -> str:
        """What to say where too many of this process's answers are missing; empty where few are."""
        most, asked, missing = self.config.predictor.max_missing, len(readings.answers), len(readings.missing)
        if missing <= most * asked:
            return ""
        return (
            f"{missing} of {asked} answers of a step could not be had from {self.config.predictor.endpoint}, and "
            f"predictor.max_missing = {most}"
        )

    def rewards(
        self,
        messages: Sequence[Message],
        columns: Columns,
        accuracy: Float[Tensor, " messages"],
        task: Estimate,
        scores: Scores,
        budgets: Int[Tensor, " messages"],
        sampled: Bool[Tensor, " messages"],
        gold_scored: bool = True,
    ) -> tuple[Float[Tensor, " messages"], dict[str, float]]:
        """The weighted sum of the components, and metrics: information in bits, lengths in tokens.

        Args:
            messages: what was written, groups contiguous.
            columns: the contexts that each message is compared with.
            accuracy: the metric on what the predictor answered from each; NaN is missing.
            task: what each told the predictor about gold answers, nats.
            scores: the scorer's log-probabilities, nats; the last column is without context where a component reads it.
            budgets: the most tokens that each message was to have.
            sampled: which messages the policy wrote; the metrics of messages are theirs.
            gold_scored: whether the predictor was asked to score the gold answers.
        """
        tokens = _lengths(messages)
        log_probs = scores.log_probs[:, : len(columns.contexts)]
        information = contrastive(log_probs, columns.own, columns.valid)
        upper = leave_one_out(log_probs, columns.own, columns.valid)
        group_size = self.config.train.group_size
        components = basic_components(accuracy, information, tokens, budgets, self.config.reward, group_size)
        if gold_scored:
            components["task_information"] = share_of_ceiling(task).clamp(min=self.config.reward.information_floor)
        if self.weights.readability:
            components["readability"] = nats_to_bits(_mean_of_tokens(scores)) / PRIOR_RATE_BITS
        if self.weights.prior_rate:
            under_own_context = log_probs.gather(1, columns.own[:, None])[:, 0]
            rate = rate_against_prior(under_own_context, scores.log_probs[:, -1])
            components["prior_rate"] = nats_to_bits(rate.terms) / PRIOR_RATE_BITS
        total, metrics = combine(components, self.weights, group_size)
        # TRL logs these two itself, over all processes.
        metrics = {name: value for name, value in metrics.items() if name not in ("reward", "reward_std")}
        if "rewards/prior_rate/mean" in metrics:
            metrics["prior_rate_bits"] = metrics["rewards/prior_rate/mean"] * PRIOR_RATE_BITS
        if "rewards/readability/mean" in metrics:
            metrics["readability_bits_per_token"] = metrics["rewards/readability/mean"] * PRIOR_RATE_BITS
        # A score that is not finite is a fault of the scorer, and no reward is made of it.
        total[(columns.valid & ~log_probs.isfinite()).any(dim=1)] = torch.nan
        return total, metrics | channel_metrics(
            accuracy[sampled], tokens[sampled], *(estimate.of(sampled) for estimate in (information, upper, task))
        )

    def _token_credit(
        self, columns: Columns, scores: Scores, written: Sequence[Sequence[int]]
    ) -> Float[Tensor, "messages tokens"]:
        """The weighted credit of the written tokens; none where the scorer read a message in other tokens."""
        terms = contrastive_token_terms(
            scores.token_log_probs[:, : len(columns.contexts)], scores.token_mask, columns.own, columns.valid
        )
        terms = terms.masked_fill(~scores.token_mask, torch.nan)
        ceilings = columns.valid.sum(dim=1).double().log()
        credit = token_credit(terms, ceilings, self.config.train.group_size)
        same = [list(own) == list(scored) for own, scored in zip(written, scores.token_ids, strict=True)]
        return self.config.reward.token_information * credit.where(torch.tensor(same)[:, None], 0.0)

    def _message(self, token_ids: Sequence[int]) -> Message:
        ended = bool(token_ids) and token_ids[-1] == self.compressor.end_token_id
        ids = list(token_ids[:-1] if ended else token_ids)
        return Message(self.compressor.text(ids), ids, ended, [])


def _lengths(messages: Sequence[Message]) -> Int[Tensor, " messages"]:
    return torch.tensor([message.tokens for message in messages])


def channel_metrics(
    accuracy: Float[Tensor, " messages"],
    tokens: Tensor,
    information: Estimate,
    upper: Estimate,
    task: Estimate,
) -> dict[str, float]:
    """What a batch of messages carried, on average: information in bits, lengths in tokens, shares in [0, 1].

    NaN where a value is missing for all of them.
    """
    bits = float(nats_to_bits(information.mean))
    length = tokens.double().mean().item()
    return {
        "accuracy": accuracy.nanmean().item(),
        "message_tokens": length,
        "information_bits": bits,
        "information_ceiling_bits": _mean_ceiling_bits(information),
        "information_upper_bits": float(nats_to_bits(upper.mean)),
        "task_information_bits": float(nats_to_bits(task.mean)),
        "bits_per_token": bits / length,
        "saturated_share": float(information.saturated_share),
    }


def _accuracy(samples: Sequence[Sample], readings: Readings) -> Float[Tensor, " questions"]:
    """The task's metric on every answer; NaN where only a judge could tell, and where there is none."""
    values = [accuracy_of(sample, answer) for sample, answer in zip(samples, readings.answers, strict=True)]
    known = [None if number in readings.missing else value for number, value in enumerate(values)]
    return torch.tensor([_or_nan(value) for value in known]).double()


def _mean_of_tokens(scores: Scores) -> Float[Tensor, " messages"]:
    """log p of a token under the last of the contexts, on average over a message, nats."""
    log_probs = scores.token_log_probs[:, -1].double().where(scores.token_mask, 0.0)
    return log_probs.sum(dim=1) / scores.token_mask.sum(dim=1)


def _task_information(asked: Asked, readings: Readings) -> Estimate:
    """What each message told the predictor about the gold answers, on average over the questions it was asked."""
    gold, null = (asked.mean(_log_probs(scores)) for scores in (readings.answer_scores, readings.null_scores))
    return task_information(gold, null)


def _mean_ceiling_bits(estimate: Estimate) -> float:
    return torch.nan if estimate.ceiling is None else float(nats_to_bits(estimate.ceiling.mean()))


def _log_probs(scores: Sequence[AnswerScore | None]) -> Float[Tensor, " questions"]:
    return torch.tensor([_or_nan(None if score is None else score.log_prob) for score in scores], dtype=torch.float64)


def _or_nan(value: float | None) -> float:
    """The value as tensors hold it: NaN is missing."""
    return torch.nan if value is None else value
