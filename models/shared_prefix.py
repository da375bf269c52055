"""Log-probabilities of many continuations of a few long prefixes, each prefix read once.

A pass over the prefixes leaves their keys and values in a cache, whose rows are then repeated for the continuations:
P prefixes of C tokens, each with K continuations of M tokens, cost P·(C + K·M) tokens instead of P·K·(C + M).
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionCacheLayerMixin

MAX_TOKENS_PER_PASS = 8_192
MAX_LOGITS_PER_PASS = 1 << 27
_LEAST_FILLED = 0.8
"""Prefixes read together differ in length by at most this ratio, so that padding stays cheap."""


class Continuation(NamedTuple):
    """What follows a prefix: tokens that are given, then the message that is scored (its end token included)."""

    suffix_ids: Sequence[int]
    message_ids: Sequence[int]


@dataclass(frozen=True)
class _Prefix:
    ids: list[int]
    continuations: list[Continuation]
    index: int


@dataclass(frozen=True)
class _Row:
    cache_row: int
    prefix_index: int
    index: int
    suffix_ids: Sequence[int]
    message_ids: Sequence[int]

    @property
    def length(self) -> int:
        # The last token predicts nothing that is asked for, so it is not read.
        return len(self.suffix_ids) + len(self.message_ids) - 1


@dataclass(frozen=True)
class _ReadPrefixes:
    cache: DynamicCache
    mask: Bool[Tensor, "prefixes positions"]
    lengths: Int[Tensor, " prefixes"]


def full_sequence_log_probs(
    model: PreTrainedModel, ids: Sequence[int], message_tokens: int
) -> Float[Tensor, " tokens"]:
    """The plain computation: one pass over the whole sequence, no cache, no padding.

    Returns:
        Log-probabilities (nats, float32) of the last ``message_tokens`` of ``ids`` given everything before each.
    """
    input_ids = torch.tensor([list(ids)], device=model.device)
    log_probs = model(input_ids=input_ids, use_cache=False).logits[0].float().log_softmax(-1)
    start = len(ids) - message_tokens
    return log_probs[start - 1 : -1].gather(-1, input_ids[0, start:, None])[:, 0]


def message_log_probs(
    model: PreTrainedModel,
    prefix_ids: Sequence[int],
    continuations: Sequence[Continuation],
    max_tokens_per_pass: int = MAX_TOKENS_PER_PASS,
    max_logits_per_pass: int = MAX_LOGITS_PER_PASS,
) -> list[Float[Tensor, " tokens"]]:
    """Per-token log-probabilities of each message after one prefix (see `batched_message_log_probs`)."""
    return batched_message_log_probs(model, [prefix_ids], [continuations], max_tokens_per_pass, max_logits_per_pass)[0]


@torch.no_grad()
def batched_message_log_probs(
    model: PreTrainedModel,
    prefixes: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[Continuation]],
    max_tokens_per_pass: int = MAX_TOKENS_PER_PASS,
    max_logits_per_pass: int = MAX_LOGITS_PER_PASS,
) -> list[list[Float[Tensor, " tokens"]]]:
    """Per-token log-probabilities of messages, every prefix read once whatever the number of its continuations.

    Tokens that all continuations of a prefix begin with count as part of it. Only message positions go through the
    vocabulary projection. No gradient; the model runs in the mode it is in.

    Args:
        model: a causal LM (or PEFT wrapper) with an attention cache; sliding windows are fine.
        prefixes: token ids, P sequences.
        continuations: for each prefix its continuations; both parts of each must hold at least one token.
        max_tokens_per_pass: bound on rows times cached positions in one forward pass: the memory it needs.
        max_logits_per_pass: bound on message positions times vocabulary in one pass. One row is always allowed.

    Returns:
        For each prefix and continuation a float32 tensor of the message's length, in nats, on the model's device.

    Raises:
        ValueError: an empty prefix, suffix or message, or a model with recurrent layers.
    """
    jobs = [_extended(index, *pair) for index, pair in enumerate(zip(prefixes, continuations, strict=True)) if pair[1]]
    results: list[list[Tensor]] = [[torch.empty(0)] * len(group) for group in continuations]
    max_positions = max_logits_per_pass // model.config.get_text_config().vocab_size
    for bucket in _buckets(jobs, max_tokens_per_pass):
        read = _read_prefixes(model, [job.ids for job in bucket])
        rows = [
            _Row(cache_row, job.index, index, *continuation)
            for cache_row, job in enumerate(bucket)
            for index, continuation in enumerate(job.continuations)
        ]
        for chunk in _chunks(rows, read.mask.shape[1], max_tokens_per_pass, max_positions):
            for row, log_probs in zip(chunk, _read_continuations(model, read, chunk), strict=True):
                results[row.prefix_index][row.index] = log_probs
    return results


def _extended(index: int, prefix_ids: Sequence[int], continuations: Sequence[Continuation]) -> _Prefix:
    """Move the tokens that all suffixes begin with into the prefix; each suffix keeps at least one, to predict from."""
    if any(not len(suffix) or not len(message) for suffix, message in continuations):
        raise ValueError(f"prefix {index}: every continuation needs at least one suffix token and one message token")
    suffixes = [suffix for suffix, _ in continuations]
    shared = 0
    while all(len(suffix) > shared + 1 and suffix[shared] == suffixes[0][shared] for suffix in suffixes):
        shared += 1
    ids = [*prefix_ids, *suffixes[0][:shared]]
    if not ids:
        raise ValueError(f"prefix {index} is empty")
    return _Prefix(ids, [Continuation(suffix[shared:], message) for suffix, message in continuations], index)


def _buckets(jobs: list[_Prefix], max_tokens: int) -> list[list[_Prefix]]:
    """Prefixes of similar length that are read together."""
    buckets: list[list[_Prefix]] = []
    for job in sorted(jobs, key=lambda job: len(job.ids)):
        length = len(job.ids)
        bucket = buckets[-1] if buckets else []
        if bucket and (len(bucket) + 1) * length <= max_tokens and len(bucket[0].ids) >= _LEAST_FILLED * length:
            bucket.append(job)
        else:
            buckets.append([job])
    return buckets


def _chunks(rows: list[_Row], prefix_length: int, max_tokens: int, max_positions: int) -> list[list[_Row]]:
    """Continuations of similar length that are read together."""
    chunks: list[list[_Row]] = []
    positions = 0
    for row in sorted(rows, key=lambda row: row.length):
        positions += len(row.message_ids)
        fits = chunks and (len(chunks[-1]) + 1) * (prefix_length + row.length) <= max_tokens
        if fits and positions <= max_positions:
            chunks[-1].append(row)
        else:
            chunks.append([row])
            positions = len(row.message_ids)
    return chunks


def _read_prefixes(model: PreTrainedModel, prefixes: list[list[int]]) -> _ReadPrefixes:
    """Fill a cache, padding on the left: a sliding window then ends where the continuation begins."""
    width = max(map(len, prefixes))
    ids = torch.tensor([[0] * (width - len(prefix)) + prefix for prefix in prefixes], device=model.device)
    lengths = torch.tensor([len(prefix) for prefix in prefixes], device=model.device)
    positions = torch.arange(width, device=model.device) - (width - lengths)[:, None]
    cache = DynamicCache(config=model.config)
    if any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in cache.layers):
        raise ValueError(f"{model.config.model_type}: recurrent layers keep no cache that continuations could share")
    mask = positions >= 0
    model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=positions.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return _ReadPrefixes(cache, mask, lengths)


def _read_continuations(model: PreTrainedModel, read: _ReadPrefixes, rows: list[_Row]) -> Sequence[Tensor]:
    """Log-probabilities of one chunk's messages: padded on the right, where causal attention never looks."""
    device = model.device
    width = max(row.length for row in rows)
    ids = [[*row.suffix_ids, *row.message_ids[:-1], *[0] * (width - row.length)] for row in rows]
    kept = [[len(row.suffix_ids) - 1 <= at < row.length for at in range(width)] for row in rows]
    targets = torch.tensor([token for row in rows for token in row.message_ids], device=device)
    cache_rows = torch.tensor([row.cache_row for row in rows], device=device)
    positions = torch.arange(width, device=device)
    mask = torch.cat([read.mask[cache_rows], read.mask.new_ones(len(rows), width)], dim=1)
    logits = model(
        input_ids=torch.tensor(ids, device=device),
        attention_mask=mask.long(),
        position_ids=read.lengths[cache_rows, None] + positions,
        past_key_values=_repeated(read.cache, cache_rows),
        use_cache=True,
        logits_to_keep=torch.tensor(kept, device=device),
    ).logits
    log_probs = token_log_probs(logits.reshape(-1, logits.shape[-1]), targets)
    return log_probs.split([len(row.message_ids) for row in rows])


def token_log_probs(
    logits: Float[Tensor, "positions vocabulary"], targets: Int[Tensor, " positions"]
) -> Float[Tensor, " positions"]:
    """Log-softmax in float32 at ``targets``, in nats."""
    return -cross_entropy(logits.float(), targets, reduction="none")


def _repeated(cache: DynamicCache, rows: Int[Tensor, " rows"]) -> DynamicCache:
    """A cache of the given rows that grows on its own; the original keeps its tensors."""
    repeated = copy.copy(cache)
    repeated.layers = [copy.copy(layer) for layer in cache.layers]
    repeated.reorder_cache(rows)  # type: ignore[arg-type]
    return repeated
