"""Whether a model computes the same through shared prefixes as in plain passes, shown on the model itself.

Architectures differ in ways that no list of names keeps up with: a layer that reads its cache in its own way, a head
after the last hidden state, frequencies that follow the longest sequence of a batch. Such a model would be scored
wrongly, or write messages without having read the document, and nothing would say so. So each model is compared once,
before it is used: log-probabilities of scoring, those of replies, and gradients, for prompts of unequal length.
"""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.errors import one_line
from models.naming import ModelError
from models.shared_prefix.generation import generate
from models.shared_prefix.scoring import Continuation, token_scores

LOG_PROB_TOLERANCE = 3e-4
"""Nats in float32: rounding through some dozen layers stays below it; a key too few or too many does not."""

GRADIENT_TOLERANCE = 1e-3
"""Largest difference of gradients in float32, as a share of the largest gradient."""

ROUNDINGS = 64
"""Machine epsilons that the same sums may differ by in a type of less precision."""

DISTINCT_TOKENS = 24
"""Token ids that the compared prompts consist of: enough to tell positions apart, few enough for a small gradient."""

LONGEST_WINDOW = 256
"""Sliding windows up to this length are exceeded by a prompt; a longer one would cost more than the check is worth."""

REPLY_TOKENS = 5
"""Tokens of each compared reply: the second one already reads what the first one left in the cache."""

NEVER = -1
"""An end token that no model writes: every compared reply has its full length."""


def check_agreement(model: PreTrainedModel, plain_attention: str = "eager") -> None:
    """Compare shared prefixes with plain passes on a model that was prepared to read them (`share_prefixes`).

    Args:
        model: any causal LM, with or without adapter layers; its mode and its attention are as before after the check.
        plain_attention: transformers' attention of the plain passes. ``eager`` is the one that every architecture has
            and that all others are measured by.

    Raises:
        ModelError: naming the architecture and what differs, or why it cannot be computed at all.
    """
    prompts, continuations = _examples(model)
    name = model.config.name_or_path or model.config.model_type
    try:
        with _evaluating(model):
            shared = _shared(model, prompts, continuations)
            written = generate(model, prompts, REPLY_TOKENS, NEVER, temperature=1.0, seeds=range(len(prompts)))
            with _attention(model, plain_attention):
                plain = _plain(model, prompts, continuations)
                replies = [
                    _log_probs(model, [*prompt, *reply.token_ids], REPLY_TOKENS)
                    for prompt, reply in zip(prompts, written, strict=True)
                ]
    except (ValueError, RuntimeError, TypeError, AttributeError, KeyError, IndexError, AssertionError) as error:
        raise ModelError(
            f"model {name!r} ({model.config.model_type}) cannot share a context among messages: {one_line(error)}"
        ) from error
    gaps = {
        "log-probabilities": _gap(shared[0], plain[0]) / LOG_PROB_TOLERANCE,
        "replies": _gap(torch.tensor([reply.log_probs for reply in written]), torch.stack(replies))
        / LOG_PROB_TOLERANCE,
        "gradients": _gap(shared[1], plain[1]) / float(plain[1].abs().max().clamp(min=1e-6)) / GRADIENT_TOLERANCE,
    }
    allowed = 1.0 if model.dtype == torch.float32 else ROUNDINGS * torch.finfo(model.dtype).eps / LOG_PROB_TOLERANCE
    wrong = [part for part, gap in gaps.items() if not gap <= allowed]
    if wrong:
        raise ModelError(
            f"model {name!r} ({model.config.model_type}) computes other {' and '.join(wrong)} when messages share a "
            "context than in a plain pass, so its figures would be wrong: choose a model of another architecture"
        )


def _examples(model: PreTrainedModel) -> tuple[list[list[int]], list[list[Continuation]]]:
    """Prompts of unequal length, two of which begin alike, one beyond a short window; two continuations of each."""
    config = model.config.get_text_config()
    generator = random.Random(0)
    known = generator.sample(range(min(config.vocab_size, 1000)), min(DISTINCT_TOKENS, config.vocab_size))

    def tokens(count: int) -> list[int]:
        return generator.choices(known, k=count)

    window = getattr(config, "sliding_window", None) or 0
    beyond = window + 7 if 0 < window <= LONGEST_WINDOW else 41
    start = tokens(12)
    prompts = [[*start, *tokens(5)], [*start, *tokens(11)], tokens(3), tokens(beyond)]
    return prompts, [[Continuation(tokens(2), tokens(3)), Continuation(tokens(1), tokens(4))] for _ in prompts]


def _shared(
    model: PreTrainedModel, prompts: list[list[int]], continuations: list[list[Continuation]]
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "ids width"]]:
    """Log-probabilities of all continuations through shared prefixes, and the gradient of their sum."""
    with _embedding_shift(model, prompts, continuations) as shift:
        scores = token_scores(model, prompts, continuations, entropies=False)
        log_probs = torch.cat([score.log_probs for group in scores for score in group])
        return log_probs.detach(), torch.autograd.grad(log_probs.sum(), shift)[0]


def _plain(
    model: PreTrainedModel, prompts: list[list[int]], continuations: list[list[Continuation]]
) -> tuple[Float[Tensor, " tokens"], Float[Tensor, "ids width"]]:
    """The same from one plain pass over each whole sequence."""
    with _embedding_shift(model, prompts, continuations) as shift:
        found = []
        for prompt, group in zip(prompts, continuations, strict=True):
            for continuation in group:
                ids = [*prompt, *continuation.suffix_ids, *continuation.message_ids]
                found.append(_log_probs(model, ids, len(continuation.message_ids)))
        log_probs = torch.cat(found)
        return log_probs.detach(), torch.autograd.grad(log_probs.sum(), shift)[0]


def _log_probs(model: PreTrainedModel, ids: Sequence[int], count: int) -> Float[Tensor, " count"]:
    """Log-probabilities of the last tokens of a sequence: no cache, no padding, nothing shared; nats."""
    input_ids = torch.tensor([list(ids)], device=model.device)
    log_probs = model(input_ids=input_ids, use_cache=False).logits[0].float().log_softmax(-1)
    start = len(ids) - count
    return log_probs[start - 1 : -1].gather(-1, input_ids[0, start:, None])[:, 0]


@contextmanager
def _embedding_shift(
    model: PreTrainedModel, prompts: list[list[int]], continuations: list[list[Continuation]]
) -> Iterator[Float[Tensor, "ids width"]]:
    """A zero added to the embedding of each token id: its gradient sums over all places where the id stands.

    It needs neither an adapter nor the gradient of a single parameter of the model, so that the check costs no more
    memory than a short sequence.
    """
    embedding = cast(nn.Module, model.get_input_embeddings())
    known = sorted({token for prompt in prompts for token in prompt} | _tokens(continuations))
    row = torch.zeros(max(known) + 1, dtype=torch.long, device=model.device)
    row[torch.tensor(known, device=model.device)] = torch.arange(len(known), device=model.device)
    width = embedding(torch.tensor([[known[0]]], device=model.device)).shape[-1]
    shift = torch.zeros(len(known), width, dtype=model.dtype, device=model.device, requires_grad=True)
    hook = embedding.register_forward_hook(lambda _, inputs, output: cast(Tensor, output) + shift[row[inputs[0]]])
    try:
        with torch.enable_grad():
            yield shift
    finally:
        hook.remove()


def _tokens(continuations: list[list[Continuation]]) -> set[int]:
    return {token for group in continuations for c in group for token in (*c.suffix_ids, *c.message_ids)}


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _attention(model: PreTrainedModel, implementation: str) -> Iterator[None]:
    before = cast(str, model.config.get_text_config()._attn_implementation)
    model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _gap(shared: Tensor, plain: Tensor) -> float:
    """The largest difference, in low precision the median one; infinite where a value is not a number.

    The median is not moved by a single router of a mixture of experts that rounds to the other side.
    """
    gaps = (shared.double().cpu() - plain.detach().double().cpu()).abs().nan_to_num(nan=torch.inf)
    return float(gaps.max() if plain.dtype == torch.float32 else gaps.median())
