"""TRL's GRPO with every context read once in the policy update: the place where Shorthand reaches into TRL.

Written for TRL 1.16, of which five methods are overridden. `_get_per_token_logps_and_entropies` gives what TRL's own
gives (a test compares the two) from rows in which a context and its group lie together; `_prepare_inputs` keeps groups
together that TRL shuffles apart; `_generate_and_score_completions` adds the credit of single tokens to the advantage of
their message, leaves of every group the message that best of n learns, and checks that vLLM, where it writes, has the
adapter; `_compute_loss` is TRL's, and measures the gap between the log-probabilities it used and the sampler's;
`_get_train_sampler` goes through the questions in an order of ours. Outside this class, `train.sampling.vllm` replaces
one method of TRL's vLLM backend.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from datasets import Dataset
from jaxtyping import Bool, Float, Int
from peft import PeftModel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Sampler
from transformers import PreTrainedModel
from trl.trainer.utils import RepeatSampler

from models.shared_prefix import MAX_TOKENS_PER_PASS, Continuation, token_scores
from objectives.selection import selection_metrics, selection_sums
from train.grpo.guarded_trainer import GuardedGRPOTrainer
from train.questions.order import QuestionSampler
from train.reward.message_reward import MessageReward
from train.sampling.agreement import adapter_reached, gap_metrics, gap_sums, sampler_gap


class SharedPrefixGRPOTrainer(GuardedGRPOTrainer):
    """Text-only GRPO whose log-probabilities cost C + G·M tokens a context and group instead of G·(C + M)."""

    max_tokens_per_pass = MAX_TOKENS_PER_PASS
    """Bound on the tokens of one forward pass."""

    def __init__(self, *arguments: Any, order: Callable[[int], Sequence[int]] | None = None, **options: Any) -> None:
        """Take what TRL's trainer takes.

        Args:
            arguments: TRL's.
            order: gives the indices of the questions of a pass, from 0; None leaves the order to TRL.
            options: TRL's. Rows of the data set may have a ``context``, the number of the context they ask about: then
                a micro batch holds few of them.
        """
        self.order = order
        # TRL computes the loss from log-probabilities that it does not hand on: these are the last ones computed, nats.
        self._last_log_probs: Float[Tensor, "messages kept"] | None = None
        # The gaps between sampler and policy in the micro batches since the last optimizer step, nats.
        self._gaps: list[Float[Tensor, " tokens"]] = []
        # Counted from this start, not from that of the run: an engine that was just started is checked first.
        self._generations = 0
        super().__init__(*arguments, **options)

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler[int]:
        """TRL's sampler, with an order that a resumed run finds again in any pass."""
        sampler = cast(RepeatSampler, super()._get_train_sampler(dataset))
        return sampler if self.order is None else QuestionSampler(sampler, self.order, lambda: self.state.global_step)

    def _get_per_token_logps_and_entropies(
        self,
        model: nn.Module,
        input_ids: Int[Tensor, "messages tokens"],
        attention_mask: Int[Tensor, "messages tokens"],
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **multimodal: Any,
    ) -> tuple[Float[Tensor, "messages kept"], Float[Tensor, "messages kept"] | None, None]:
        """Log-probabilities and entropies of the last ``logits_to_keep`` tokens, nats; 0 where there is padding.

        ``batch_size`` bounds memory in TRL; here ``max_tokens_per_pass`` does.

        Raises:
            ValueError: images, or a loss of a mixture of experts, which this trainer does not compute.
        """
        if compute_aux_loss or any(value is not None for value in multimodal.values()):
            raise ValueError("SharedPrefixGRPOTrainer trains on text alone, without router losses")
        plain = cast(PreTrainedModel, self.accelerator.unwrap_model(model))

        def scores(*_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            return group_scores(
                plain, input_ids, attention_mask.bool(), logits_to_keep, self.temperature, self.max_tokens_per_pass
            )

        with self.accelerator.autocast(), _forward_replaced(plain, scores):
            # Through the wrapper that synchronises gradients, where there is one.
            log_probs, entropies = model(input_ids)
        self._last_log_probs = log_probs.detach()
        return log_probs, entropies if compute_entropy else None, None

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """TRL's messages, rewards and advantages; with the credit of each token where the reward gives one."""
        output = super()._generate_and_score_completions(inputs)
        width = output["completion_ids"].shape[1]
        for reward in self.reward_funcs:
            if isinstance(reward, MessageReward) and reward.token_credit is not None:
                output["advantages"] = with_token_credit(output["advantages"], reward.token_credit, width)
        if self.use_vllm:
            self._check_sampler(output)
        for reward in self.reward_funcs:
            if isinstance(reward, MessageReward) and reward.kept is not None:
                self._keep(output, reward.kept.to(output["advantages"]))
        self.guard.paused = any(
            isinstance(reward, MessageReward) and reward.pauses(self.state.global_step + 1)
            for reward in self.reward_funcs
        )
        if self.guard.paused:
            # Nothing of it is read: see `_keep`.
            output["advantages"], output["completion_mask"] = (
                torch.zeros_like(output[name]) for name in ("advantages", "completion_mask")
            )
        if "context" in inputs[0]:
            output["context"] = torch.tensor([row["context"] for row in inputs], device=output["advantages"].device)
        return output

    def _keep(self, output: dict[str, Any], weights: Float[Tensor, " messages"]) -> None:
        """Turn TRL's loss into the mean negative log-likelihood of a token of the kept messages of all processes.

        The advantage of a kept message is its weight, and its ratio of probabilities 1: nothing is clipped. A message
        without tokens is not read: what is masked here takes no part in the forward and backward pass.
        """
        kept = weights > 0
        rewards = torch.tensor([sum(line["rewards"]) for line in self._batch], device=kept.device)
        tokens = output["completion_mask"].sum(dim=1)
        sums = selection_sums(kept, rewards, tokens, cast(int, self.num_generations))
        self._log_now(selection_metrics(cast(Tensor, self.accelerator.gather(sums[None]))))
        output["advantages"] = weights
        output["completion_mask"] = output["completion_mask"] * kept[:, None]
        # TRL's loss of this type is the sum over tokens, divided by their number in the whole step.
        output["num_items_in_batch"] = cast(Tensor, self.accelerator.gather(output["completion_mask"].sum())).sum()

    def _check_sampler(self, output: dict[str, Any]) -> None:
        """Check at the 1st, 2nd, 4th, 8th, ... generation of a start: see `adapter_reached`; logs 1 where it is shown.

        A check costs a forward pass without the adapter, and another with it where TRL's importance sampling has not
        computed that: hence ever more rarely. The policy's own rollout needs no check, for it samples with the very
        parameters that are trained.

        Raises:
            RuntimeError: the messages were written without the adapter.
        """
        self._generations += 1
        is_power_of_two = self._generations.bit_count() == 1
        if not is_power_of_two:
            return
        adapted = output.get("old_per_token_logps")
        with torch.no_grad():
            adapted = self._log_probs_of(output) if adapted is None else adapted
            with cast(PeftModel, self.accelerator.unwrap_model(self.model)).disable_adapter():
                plain = self._log_probs_of(output)
        real = output["completion_mask"].bool()
        reached = adapter_reached(output["sampling_per_token_logps"][real], adapted[real], plain[real])
        self._log_now({"sampler_gap/adapter_reached": float(reached)})

    def _log_probs_of(self, output: dict[str, Any]) -> Float[Tensor, "messages kept"]:
        ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
        kept = output["completion_ids"].shape[1]
        return self._get_per_token_logps_and_entropies(cast(nn.Module, self.model), ids, mask, kept)[0]

    def _compute_loss(self, model: nn.Module, inputs: dict[str, Any]) -> Float[Tensor, ""]:
        """TRL's loss; logs the gap to the sampler over the tokens of all micro batches of an optimizer step.

        Dropout of the adapter is part of the gap: the policy trains with it and the sampler writes without.
        """
        loss = super()._compute_loss(model, inputs)
        assert self._last_log_probs is not None
        real = inputs["completion_mask"].bool()
        self._gaps.append(sampler_gap(inputs["sampling_per_token_logps"], self._last_log_probs, real))
        if self.accelerator.sync_gradients:
            sums = self.accelerator.gather(gap_sums(torch.cat(self._gaps))[None])
            self._gaps.clear()
            self._log_now(gap_metrics(cast(Tensor, sums)))
        return loss

    def _log_now(self, metrics: dict[str, float]) -> None:
        """Add a value of this step to TRL's metrics, which it averages over the steps between two lines."""
        for name, value in metrics.items():
            self._metrics["train" if cast(nn.Module, self.model).training else "eval"][name].append(value)

    def _prepare_inputs(self, generation_batch: dict[str, Any]) -> dict[str, Any]:
        """TRL's inputs of this micro batch, with each generation's messages in groups again."""
        buffered = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is buffered or self._buffered_inputs is None:
            return inputs
        self._buffered_inputs = grouped(self._buffered_inputs)
        return self._buffered_inputs[self._step % len(self._buffered_inputs)]


def with_token_credit(
    advantages: Float[Tensor, " messages"], credit: Float[Tensor, "messages tokens"], width: int
) -> Float[Tensor, "messages width"]:
    """The advantage of every token: that of its message plus the token's credit, cut or padded to ``width``."""
    credit = nn.functional.pad(credit, (0, max(0, width - credit.shape[1])))[:, :width]
    return advantages[:, None] + credit.to(advantages)


def group_scores(
    model: PreTrainedModel,
    input_ids: Int[Tensor, "messages tokens"],
    mask: Bool[Tensor, "messages tokens"],
    kept: int,
    temperature: float,
    max_tokens_per_pass: int,
) -> tuple[Float[Tensor, "messages kept"], Float[Tensor, "messages kept"]]:
    """Log-probabilities (with gradient) and entropies of the last ``kept`` columns, equal prompts read once.

    Args:
        model: the policy, without a wrapper.
        input_ids: prompts padded on the left, then messages padded on the right.
        mask: the real tokens.
        kept: columns of the messages.
        temperature: what logits are divided by.
        max_tokens_per_pass: see `token_scores`.

    Returns:
        Nats, float32; 0 where there is padding.
    """
    rows = [row[real].tolist() for row, real in zip(input_ids, mask, strict=True)]
    lengths = mask[:, -kept:].sum(dim=1).tolist()
    if not any(lengths):
        # A process whose messages teach nothing goes backward with the others, which wait for its gradients.
        nothing = sum(parameter.sum() for parameter in model.parameters() if parameter.requires_grad) * 0.0
        zeros = torch.zeros((len(rows), kept), device=input_ids.device)
        return zeros + nothing, zeros
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if length:
            groups.setdefault(tuple(row[: len(row) - length]), []).append(index)
    scores = token_scores(
        model,
        [prompt[:-1] for prompt in groups],
        [
            [Continuation(prompt[-1:], rows[index][len(prompt) :]) for index in indices]
            for prompt, indices in groups.items()
        ],
        temperature,
        max_tokens_per_pass,
    )
    empty = torch.zeros(0, device=input_ids.device)
    log_probs, entropies = [empty] * len(rows), [empty] * len(rows)
    for indices, group in zip(groups.values(), scores, strict=True):
        for index, score in zip(indices, group, strict=True):
            log_probs[index], entropies[index] = score
    return _padded(log_probs, kept), _padded(entropies, kept)


def _padded(rows: list[Float[Tensor, " tokens"]], width: int) -> Float[Tensor, "messages width"]:
    padded = pad_sequence(rows, batch_first=True)
    return nn.functional.pad(padded, (0, width - padded.shape[1]))


def grouped(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Micro batches with the messages of one prompt next to each other, prompts in the order of their first message.

    Where rows have a ``context``, the prompts of one are next to each other as well.
    """
    sizes = [len(batch["prompt_ids"]) for batch in batches]
    prompts = [tuple(row.tolist()) for batch in batches for row in batch["prompt_ids"]]
    contexts = [context for batch in batches for context in _contexts(batch)]
    of_prompt, of_context = _first_places(prompts), _first_places(contexts)
    rank = [(of_context[context], of_prompt[prompt]) for context, prompt in zip(contexts, prompts, strict=True)]
    order = torch.tensor(sorted(range(len(prompts)), key=lambda index: (*rank[index], index)))
    joined = {key: _joined([batch[key] for batch in batches], len(prompts)) for key in batches[0]}
    parts = order.split(sizes)
    return [{key: _selected(value, part, len(prompts)) for key, value in joined.items()} for part in parts]


def _contexts(batch: dict[str, Any]) -> list[int]:
    return batch["context"].tolist() if "context" in batch else [0] * len(batch["prompt_ids"])


def _first_places(values: Sequence[Hashable]) -> dict[Hashable, int]:
    return {value: index for index, value in reversed(list(enumerate(values)))}


def _joined(values: list[Any], rows: int) -> Any:
    """One value for the whole generation batch; a value that is no tensor of rows is the same in every micro batch."""
    first = values[0]
    if isinstance(first, Tensor) and first.ndim > 0:
        return torch.cat(values)
    return first


def _selected(value: Any, rows: Int[Tensor, " rows"], total: int) -> Any:
    if isinstance(value, Tensor) and value.ndim > 0 and len(value) == total:
        return value[rows.to(value.device)]
    return value


@contextmanager
def _forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module's next calls run ``forward``, so that hooks of whatever wraps it run around it."""
    original = module.forward
    module.forward = forward
    try:
        yield
    finally:
        module.forward = original
