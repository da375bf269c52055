"""The rollout: a group of messages for each (context, question), written by the policy itself or by vLLM.

The policy reads every context once. What is peculiar to vLLM stands in `train.sampling.vllm`.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import nan
from typing import Any

from data.sample import Sample
from models.compressor import Compressor
from models.naming import NonFiniteError
from models.prompts import Prompt
from models.shared_prefix import Reply, sampling_seed
from train.grpo.guarded_trainer import GuardedGRPOTrainer
from train.questions.asked import asked_budget
from train.sampling.vllm import vllm_messages
from train.warm_start.targets import demonstration


class Rollout:
    """TRL's ``rollout_func``: prompts are sample ids, each repeated for its group, groups contiguous."""

    def __init__(
        self,
        compressor: Compressor,
        samples: Mapping[str, Sample],
        temperature: float,
        seed: int,
        demonstrations: int = 0,
    ) -> None:
        """Fix who writes, and how messages are sampled.

        Args:
            compressor: shares its model with the trainer, so it writes with the live policy.
            samples: the questions by id.
            temperature: sampling temperature of the policy; vLLM has its temperature from TRL.
            seed: sampling seed of the policy; vLLM has seeds of its own.
            demonstrations: how many messages of a group, its last ones, are told by the gold evidence instead.
        """
        self.compressor = compressor
        self.samples = samples
        self.temperature = temperature
        self.seed = seed
        self.demonstrations = demonstrations

    def __call__(self, prompts: Sequence[str], trainer: Any) -> dict[str, list[Any]]:
        """Sample the messages of this process; token ids end with the end token where one was written.

        Args:
            prompts: sample ids, a group of equal ones for each question.
            trainer: TRL's, which knows the step and whether vLLM writes.

        Returns:
            ``prompt_ids``, ``completion_ids`` and ``logprobs`` (nats), a list each for every message; and
            ``demonstrated``, whether it was not sampled: then its ``logprobs`` are NaN.

        Raises:
            ValueError: the prompts do not lie in groups of one size.
            NonFiniteError: the policy's logits are not finite, and the trainer has no guard to skip the update.
        """
        groups = [(sample_id, len(list(group))) for sample_id, group in groupby(prompts)]
        sizes = {size for _, size in groups}
        if len(sizes) != 1:
            raise ValueError(f"prompts of one group must lie next to each other in groups of one size, got {sizes}")
        questions = [self.samples[sample_id] for sample_id, _ in groups]
        step, most = trainer.state.global_step, self.compressor.budget_tokens
        budgets = [
            asked_budget(self.compressor.asked_budgets, most, self.seed, step, sample.id) for sample in questions
        ]
        reads = [
            self.compressor.under(budget).prompt(sample.document.text, sample.compressor_question)
            for sample, budget in zip(questions, budgets, strict=True)
        ]
        group_size = sizes.pop()
        prompt_ids = [prompt.ids for prompt in reads for _ in range(group_size)]
        if trainer.use_vllm:
            written = vllm_messages(trainer.vllm_generation, prompt_ids, group_size)
        else:
            seeds = [sampling_seed(self.seed, step, sample.id) for sample in questions]
            written = self._own_messages(reads, budgets, group_size, seeds, trainer)
        told = [
            demonstration(self.compressor, sample, budget, f"{self.seed}/{step}/{sample.id}/{place}")
            if place >= group_size - self.demonstrations
            else None
            for sample, budget in zip(questions, budgets, strict=True)
            for place in range(group_size)
        ]
        for row, ids in enumerate(told):
            if ids is not None:
                written["completion_ids"][row] = ids
                written["logprobs"][row] = [nan] * len(ids)
        return {"prompt_ids": prompt_ids, "demonstrated": [ids is not None for ids in told]} | written

    def _own_messages(
        self, reads: Sequence[Prompt], budgets: Sequence[int], group_size: int, seeds: Sequence[int], trainer: Any
    ) -> dict[str, list[Any]]:
        """What the policy itself writes, as `vllm_messages` gives it."""
        end = [self.compressor.end_token_id]
        try:
            replies = self.compressor.reply(reads, group_size, self.temperature, seeds)
        except NonFiniteError:
            if not isinstance(trainer, GuardedGRPOTrainer):
                raise
            # Nothing was written that could be learned from; the guard sees to it that nothing is.
            trainer.guard.refuse("the compressor's logits are not finite")
            replies = [Reply([], True, [0.0]) for _ in range(len(reads) * group_size)]
        replies = [cut(reply, budgets[place // group_size]) for place, reply in enumerate(replies)]
        return {
            "completion_ids": [reply.token_ids + end * reply.ended for reply in replies],
            "logprobs": [reply.log_probs for reply in replies],
        }


def cut(reply: Reply, budget_tokens: int) -> Reply:
    """A reply as its budget ends it: what is too long has no end token."""
    if len(reply.token_ids) + reply.ended <= budget_tokens:
        return reply
    return Reply(reply.token_ids[:budget_tokens], False, reply.log_probs[:budget_tokens])
