"""The reward of messages as TRL asks for it: a number for each message, and every component logged by itself."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import gather_object
from jaxtyping import Float
from torch import Tensor

from data.sample import Sample, neighbours
from eval.record import accuracy_of
from models.channel import Channel, Readings
from models.compressor import Compressor, Message
from models.predictor import AnswerScore
from models.scorer import NO_CONTEXT, Scores
from objectives.length import length_reward
from objectives.mutual_information import (
    Estimate,
    contrastive,
    contrastive_token_terms,
    leave_one_out,
    nats_to_bits,
    rate_against_prior,
    task_information,
)
from objectives.negatives import Candidates, Columns, NegativeCounts, choose_columns, parts_removed
from objectives.reward import RewardWeights, combine, token_credit
from train.config import Config

PRIOR_RATE_BITS = 10.0
"""The unit of the rate against the prior, in bits: about what a key and its value weigh, so that 1 is a fact told."""

MIN_CEILING_NATS = 1e-6
"""The least ceiling that a share is taken of: a ceiling of 0 becomes a share of 0, not a division by zero."""


class MessageReward:
    """What the messages of this process's slice are paid for: accuracy, information, length and what else has a weight.

    Attributes:
        token_credit: the credit of each token of the last messages, where the configuration asks for it; in units of
            advantage.
    """

    __name__ = "message"

    def __init__(
        self,
        config: Config,
        compressor: Compressor,
        channel: Channel,
        samples: Mapping[str, Sample],
        gather: Callable[[list[str]], list[str]] = gather_object,
    ) -> None:
        """Fix the weights and the models.

        Args:
            config: the run's; its section ``reward`` has the weights.
            compressor: whose messages they are.
            channel: what they are read and scored through.
            samples: the questions by id.
            gather: joins the texts of all processes into one list.
        """
        self.config = config
        self.gather = gather
        self.compressor = compressor
        self.channel = channel
        self.samples = samples
        self.negatives = NegativeCounts(**config.information.negatives.model_dump())
        self.neighbours = neighbours(sample.document for sample in samples.values())
        self.weights = RewardWeights(**config.reward.model_dump(exclude={"length_gate", "token_information"}))
        self.token_credit: Float[Tensor, "messages tokens"] | None = None

    def __call__(
        self,
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        trainer_state: Any,
        log_metric: Any,
        **_: Any,
    ) -> list[float | None]:
        """A reward for each message; metrics go to ``log_metric``, the credit of each token stays in ``token_credit``.

        Args:
            prompts: sample ids, a group of equal ones for each question.
            completion_ids: the tokens of the messages, the end token last where one was written.
            trainer_state: TRL's, which knows the step.
            log_metric: takes a name and a value.
        """
        samples = [self.samples[prompt] for prompt in prompts]
        messages = [self._message(ids) for ids in completion_ids]
        columns = self._columns(samples, trainer_state.global_step)
        contexts, valid = list(columns.contexts), columns.valid
        if self.weights.prior_rate:
            contexts, valid = [*contexts, NO_CONTEXT], torch.nn.functional.pad(valid, (0, 1), value=True)
        start = time.perf_counter()
        readings = self.channel.answer(samples, messages)
        answered = time.perf_counter()
        scores = self.channel.score(samples, messages, contexts, valid)
        seconds = {"seconds/predictor": answered - start, "seconds/scorer": time.perf_counter() - answered}
        rewards, metrics = self.rewards(samples, messages, columns, readings, scores)
        if self.config.reward.token_information:
            self.token_credit = self.config.reward.token_information * self._token_credit(columns, scores)
        metrics["retokenised_share"] = float(scores.retokenised)
        for name, value in (metrics | seconds).items():
            log_metric(name, value)
        values: list[float | None] = rewards.tolist()
        return values

    def rewards(
        self,
        samples: Sequence[Sample],
        messages: Sequence[Message],
        columns: Columns,
        readings: Readings,
        scores: Scores,
    ) -> tuple[Float[Tensor, " messages"], dict[str, float]]:
        """The weighted sum of the components, and metrics: information in bits, lengths in tokens.

        Args:
            samples: the question of each message, groups contiguous.
            messages: what was written.
            columns: the contexts that each message is compared with.
            readings: the predictor's answers, and its scores of the gold answers.
            scores: the scorer's log-probabilities, nats; the last column is without context where the prior rate has a
                weight.
        """
        accuracy = torch.tensor(
            [_or_nan(accuracy_of(sample, answer)) for sample, answer in zip(samples, readings.answers, strict=True)]
        ).double()
        tokens = torch.tensor([message.tokens for message in messages])
        log_probs = scores.log_probs[:, : len(columns.contexts)]
        information = contrastive(log_probs, columns.own, columns.valid)
        upper = leave_one_out(log_probs, columns.own, columns.valid)
        task = task_information(_log_probs(readings.answer_scores), _log_probs(readings.null_scores))
        group_size, budget = self.config.train.group_size, self.compressor.budget_tokens
        components = {
            "accuracy": accuracy,
            "information": _share_of_ceiling(information),
            "length": length_reward(tokens, accuracy, budget, self.config.reward.length_gate, group_size),
            "task_information": _share_of_ceiling(task),
        }
        if self.weights.prior_rate:
            under_own_context = log_probs.gather(1, columns.own[:, None])[:, 0]
            rate = rate_against_prior(under_own_context, scores.log_probs[:, -1])
            components["prior_rate"] = nats_to_bits(rate.terms) / PRIOR_RATE_BITS
        total, metrics = combine(components, self.weights, group_size)
        # TRL logs these two itself, over all processes.
        metrics = {name: value for name, value in metrics.items() if name not in ("reward", "reward_std")}
        if "rewards/prior_rate/mean" in metrics:
            metrics["prior_rate_bits"] = metrics["rewards/prior_rate/mean"] * PRIOR_RATE_BITS
        return total, metrics | channel_metrics(accuracy, tokens, information, upper, task)

    def _token_credit(self, columns: Columns, scores: Scores) -> Float[Tensor, "messages tokens"]:
        terms = contrastive_token_terms(
            scores.token_log_probs[:, : len(columns.contexts)], scores.token_mask, columns.own, columns.valid
        )
        terms = terms.masked_fill(~scores.token_mask, torch.nan)
        ceilings = columns.valid.sum(dim=1).double().log()
        return token_credit(terms, ceilings, self.config.train.group_size)

    def _message(self, token_ids: Sequence[int]) -> Message:
        ended = bool(token_ids) and token_ids[-1] == self.compressor.end_token_id
        ids = list(token_ids[:-1] if ended else token_ids)
        return Message(self.compressor.text(ids), ids, ended, [])

    def _columns(self, samples: Sequence[Sample], step: int) -> Columns:
        """Each message's contexts; those of the batch are drawn from all processes, so their number changes nothing."""
        seed = self.config.seed + step
        batch = sorted(set(self.gather([sample.document.text for sample in samples])))
        candidates = {
            sample.id: Candidates(
                own=sample.document.text,
                counterfactual=sample.question.negatives,
                same_document=parts_removed(
                    sample.document.text, sample.question.evidence, self.negatives.same_document, seed
                ),
                neighbour=self.neighbours[sample.document.task, sample.document.id],
                batch=batch,
            )
            for sample in dict.fromkeys(samples)
        }
        return choose_columns([candidates[sample.id] for sample in samples], self.negatives, seed)


def channel_metrics(
    accuracy: Float[Tensor, " messages"],
    tokens: Tensor,
    information: Estimate,
    upper: Estimate,
    task: Estimate,
) -> dict[str, float]:
    """What a batch of messages carried, on average: information in bits, lengths in tokens, shares in [0, 1]."""
    bits = float(nats_to_bits(information.mean))
    length = tokens.double().mean().item()
    return {
        "accuracy": accuracy.mean().item(),
        "message_tokens": length,
        "information_bits": bits,
        "information_upper_bits": float(nats_to_bits(upper.mean)),
        "task_information_bits": float(nats_to_bits(task.mean)),
        "bits_per_token": bits / length,
        "saturated_share": float(information.saturated_share),
    }


def _log_probs(scores: Sequence[AnswerScore | None]) -> Float[Tensor, " messages"]:
    return torch.tensor([_or_nan(None if score is None else score.log_prob) for score in scores], dtype=torch.float64)


def _or_nan(value: float | None) -> float:
    """The value as tensors hold it: NaN is missing."""
    return torch.nan if value is None else value


def _share_of_ceiling(estimate: Estimate) -> Float[Tensor, " messages"]:
    """Terms as a share of the most that the estimator can show; what is not finite is missing."""
    if estimate.ceiling is None:
        raise ValueError("an estimate without a ceiling has no share of it")
    share = estimate.terms / estimate.ceiling.clamp(min=MIN_CEILING_NATS)
    return share.where(share.isfinite(), torch.nan)
