"""Log-probabilities of many continuations of a few long prefixes, each prefix read once, forward and backward.

P prefixes of C tokens, each with K continuations of M tokens, cost P·(C + K·M) tokens instead of P·K·(C + M). What
prefixes have in common, as versions of one document do up to the first difference, is read once for all of them
(`models.shared_prefix.token_tree`, `models.shared_prefix.attention`). Only the positions that predict a message's
tokens go through the vocabulary projection, in chunks.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from models.naming import ModelError
from models.shared_prefix.attention import share_prefixes
from models.shared_prefix.layout import Layout
from models.shared_prefix.length import check_length
from models.shared_prefix.projection import projection
from models.shared_prefix.token_tree import Leaf, Pass, lay_out

MAX_TOKENS_PER_PASS = 4_096
"""Tokens of one forward pass: enough to keep the matrix products of a layer large, and few enough that the activations
of an update fit beside the model."""

MAX_LOGITS_PER_PASS = 1 << 25
"""Logits held at once, positions times vocabulary: 128 MB in float32, of which log-softmax needs another copy."""


CACHED_LOGITS = 1 << 19
"""Logits that are gone through at once on a CPU: 2 MB in float32, about what the caches of a core hold."""


class Continuation(NamedTuple):
    """What follows a prefix.

    Attributes:
        suffix_ids: tokens that are given.
        message_ids: the message that is scored, its end token included.
    """

    suffix_ids: Sequence[int]
    message_ids: Sequence[int]


class TokenScores(NamedTuple):
    """What is computed of every token of one message, in nats.

    Attributes:
        log_probs: log p of the token given all that stands before it.
        entropies: entropy of the distribution the token is from; empty where it was not asked for.
    """

    log_probs: Float[Tensor, " tokens"]
    entropies: Float[Tensor, " tokens"]


@torch.no_grad()
def batched_message_log_probs(
    model: PreTrainedModel | PeftModel,
    prefixes: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Continuation]],
    max_tokens_per_pass: int = MAX_TOKENS_PER_PASS,
    max_logits_per_pass: int = MAX_LOGITS_PER_PASS,
) -> list[list[Float[Tensor, " tokens"]]]:
    """Log-probabilities of messages without gradient: the first part of what `token_scores` gives."""
    scores = token_scores(
        model, prefixes, continuations, 1.0, max_tokens_per_pass, max_logits_per_pass, entropies=False
    )
    return [[message.log_probs for message in group] for group in scores]


def token_scores(
    model: PreTrainedModel | PeftModel,
    prefixes: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Continuation]],
    temperature: float = 1.0,
    max_tokens_per_pass: int = MAX_TOKENS_PER_PASS,
    max_logits_per_pass: int = MAX_LOGITS_PER_PASS,
    entropies: bool = True,
) -> list[list[TokenScores]]:
    """Log-probabilities and entropies of messages, every prefix read once for as many of them as a pass has room for.

    Tokens that all continuations of a prefix begin with count as part of it. The model runs in the mode it is in, with
    gradients where they are enabled.

    Args:
        model: any decoder of transformers with full or sliding-window attention (or its PEFT wrapper).
        prefixes: token ids, P sequences.
        continuations: for each prefix its continuations; both parts of each must hold at least one token.
        temperature: the logits are divided by it.
        max_tokens_per_pass: bound on the tokens of one forward pass; a prefix is followed by one continuation at least,
            and by as many as make up its own length.
        max_logits_per_pass: bound on positions times vocabulary of one chunk of the projection. With gradients a chunk
            is computed again on the way back.
        entropies: whether to compute entropies, which cost as much as the log-probabilities.

    Returns:
        For each prefix and continuation float32 tensors of the message's length, in nats, on the model's device.

    Raises:
        ValueError: an empty prefix, suffix or message.
        ModelError: a model whose layers cannot share a prefix, or a sequence beyond its switch of frequencies.
    """
    plain = share_prefixes(model)
    results: list[list[TokenScores | None]] = [[None] * len(group) for group in continuations]
    stems = [
        (_stem(index, prefix, continuation), Leaf((index, number), continuation.message_ids))
        for index, (prefix, group) in enumerate(zip(prefixes, continuations, strict=True))
        for number, continuation in enumerate(group)
    ]
    check_length(plain.config, max((len(stem) + len(leaf.ids) for stem, leaf in stems), default=0))
    for tree_pass in lay_out(stems, max_tokens_per_pass):
        hidden, targets = _read(plain, tree_pass)
        log_probs, spreads = _project(plain, hidden, targets, temperature, max_logits_per_pass, entropies)
        lengths = [len(leaf.ids) for leaf in tree_pass.leaves]
        parts = zip(log_probs.split(lengths), spreads.split(lengths if entropies else [0] * len(lengths)), strict=True)
        for leaf, scores in zip(tree_pass.leaves, parts, strict=True):
            prefix_index, number = leaf.key
            results[prefix_index][number] = TokenScores(*scores)
    return cast(list[list[TokenScores]], results)


def _stem(index: int, prefix: Sequence[int], continuation: Continuation) -> list[int]:
    if not len(prefix):
        raise ValueError(f"prefix {index} is empty")
    if not len(continuation.suffix_ids) or not len(continuation.message_ids):
        raise ValueError(f"prefix {index}: every continuation needs at least one suffix token and one message token")
    return [*prefix, *continuation.suffix_ids]


def _read(
    model: PreTrainedModel, tree_pass: Pass
) -> tuple[Float[Tensor, "positions width"], Int[Tensor, " positions"]]:
    """The hidden states that message tokens are predicted from, of one forward pass, and these tokens.

    Raises:
        ModelError: the model does not attend by the layout it was given, so that it would have read one long sequence.
    """
    device = model.device
    layout = Layout(tree_pass.segments, device)
    hidden = model.base_model(
        input_ids=torch.tensor([tree_pass.ids], device=device),
        # A mask of four dimensions is taken as it is: no other one is built, and the layout stands for it.
        attention_mask=torch.zeros((1, 1, 1, 1), device=device),
        position_ids=layout.position_ids,
        use_cache=False,
        layout=layout,
    ).last_hidden_state
    if not layout.reached:
        raise ModelError(f"{model.config.model_type} does not attend through transformers' attention interface")
    targets = [token for leaf in tree_pass.leaves for token in leaf.ids]
    # Messages of one group start from the same state. An index would add their gradients in the order in which threads
    # come to them, and no two runs would agree; a lookup adds them in order.
    return embedding(torch.tensor(tree_pass.kept, device=device), hidden[0]), torch.tensor(targets, device=device)


def _project(
    model: PreTrainedModel,
    hidden: Float[Tensor, "positions width"],
    targets: Int[Tensor, " positions"],
    temperature: float,
    max_logits: int,
    with_entropies: bool,
) -> tuple[Float[Tensor, " positions"], Float[Tensor, " positions"]]:
    """Log-softmax in float32 at the targets, and entropies (without gradient; empty where not asked for), in chunks."""
    project = projection(model)

    def scores(chunk: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return _TargetScores.apply(project(chunk), ids, temperature, with_entropies)  # type: ignore[no-any-return]

    size = max(1, max_logits // model.config.get_text_config().vocab_size)
    chunks = list(zip(hidden.split(size), targets.split(size), strict=True))
    if len(chunks) > 1 and torch.is_grad_enabled():
        # The logits of every chunk would be kept for the way back otherwise.
        results = [checkpoint(scores, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        results = [scores(*chunk) for chunk in chunks]
    log_probs, entropies = zip(*cast(list[tuple[Tensor, Tensor]], results), strict=True)
    return torch.cat(log_probs), torch.cat(entropies)


class _TargetScores(torch.autograd.Function):
    """Log-probabilities in float32 of one token at each position, with gradient, and entropies without.

    No table of all logits in float32 is made: a few positions at a time pass through the processor's cache. On the way
    back the probabilities are computed again from the logits.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, temperature: float, entropies: bool) -> tuple[Tensor, Tensor]:
        found = logits.new_empty(len(ids), dtype=torch.float32)
        spreads = logits.new_empty(len(ids) if entropies else 0, dtype=torch.float32)
        for rows in _rows_at_once(logits):
            log_probs = _at_temperature(logits[rows], temperature).log_softmax(-1)
            found[rows] = log_probs.gather(-1, ids[rows, None])[:, 0]
            if entropies:
                spreads[rows] = -(log_probs.exp() * log_probs).nansum(-1)
        ctx.save_for_backward(logits, ids)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(spreads)
        return found, spreads

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        logits, ids = ctx.saved_tensors
        to_logits = torch.empty_like(logits)
        for rows in _rows_at_once(logits):
            weights = gradient[rows, None] / ctx.temperature
            probabilities = _at_temperature(logits[rows], ctx.temperature).softmax(-1)
            to_logits[rows] = probabilities.mul_(-weights).scatter_add_(-1, ids[rows, None], weights)
        return to_logits, None, None, None


def _rows_at_once(logits: Float[Tensor, "positions vocabulary"]) -> Iterator[slice]:
    """The positions, as many at a time as `CACHED_LOGITS` allows on a CPU."""
    count = max(1, CACHED_LOGITS // logits.shape[-1]) if logits.device.type == "cpu" else len(logits)
    yield from (slice(first, first + count) for first in range(0, len(logits), max(1, count)))


def _at_temperature(logits: Tensor, temperature: float) -> Tensor:
    """Logits in float32, divided by the temperature."""
    return logits.float() if temperature == 1 else logits.float() / temperature
