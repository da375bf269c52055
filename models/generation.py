"""Sampling of many replies to each prompt with every prompt read once: prefill, repeat the cache, decode.

Each prompt draws from a generator of its own, so that its replies do not depend on what else is in the batch.
"""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

MAX_CACHED_POSITIONS = 65_536
"""Rows times positions that one pass may hold in its cache."""


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        token_ids: without the end token.
        ended: whether the end token was written; without it the reply ran into the limit.
        log_probs: of every token written, the end token included; nats, under the distribution sampled from.
    """

    token_ids: list[int]
    ended: bool
    log_probs: list[float]


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_token_id: int,
    group_size: int = 1,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
) -> list[Reply]:
    """``group_size`` replies to each prompt, those of one prompt next to each other.

    Args:
        model: a causal LM (or PEFT wrapper); it runs in the mode it is in, so put it in evaluation mode.
        prompts: token ids; equal prompts are read once each time they occur.
        max_new_tokens: the limit on a reply, its end token included.
        end_token_id: ends a reply.
        group_size: replies to each prompt.
        temperature: 0 takes the most likely token.
        seeds: one a prompt; needed above temperature 0.

    Raises:
        ValueError: an empty prompt, a limit below 1, or no seeds to sample with.
    """
    if max_new_tokens < 1 or any(not len(prompt) for prompt in prompts):
        raise ValueError(f"prompts must not be empty and max_new_tokens at least 1, got {max_new_tokens}")
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        raise ValueError(f"sampling at temperature {temperature} needs one seed for each of {len(prompts)} prompts")
    replies: list[list[Reply]] = [[] for _ in prompts]
    for batch in _batches(prompts, group_size, max_new_tokens):
        generators = _generators(seeds, batch) if temperature > 0 else None
        rows = _decode(
            model, [prompts[i] for i in batch], max_new_tokens, end_token_id, group_size, temperature, generators
        )
        for place, index in enumerate(batch):
            replies[index] = rows[place * group_size : (place + 1) * group_size]
    return [reply for group in replies for reply in group]


def sampling_seed(*parts: int | str) -> int:
    """The seed that belongs to a run, a step and a sample: the same on any number of processes."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big")


def _generators(seeds: Sequence[int] | None, batch: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seeds[index]) for index in batch] if seeds is not None else []


def _batches(prompts: Sequence[Sequence[int]], group_size: int, new_tokens: int) -> list[list[int]]:
    """Prompts of similar length together, as many as the cache may hold; the order within is the length's."""
    batches: list[list[int]] = []
    for index in sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index)):
        positions = group_size * (len(prompts[index]) + new_tokens)
        if batches and (len(batches[-1]) + 1) * positions <= MAX_CACHED_POSITIONS:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def _decode(
    model: PreTrainedModel,
    prompts: list[Sequence[int]],
    max_new_tokens: int,
    end_token_id: int,
    group_size: int,
    temperature: float,
    generators: list[torch.Generator] | None,
) -> list[Reply]:
    """One batch: rows whose reply has ended leave it, so that a short reply costs what it is worth."""
    logits, cache, mask, positions = _prefill(model, prompts)
    repeat = torch.arange(len(prompts), device=logits.device).repeat_interleave(group_size)
    cache.reorder_cache(repeat)  # type: ignore[arg-type]
    logits, mask, positions = logits[repeat], mask[repeat], positions[repeat]
    written: list[list[int]] = [[] for _ in repeat]
    log_probs: list[list[float]] = [[] for _ in repeat]
    alive = torch.arange(len(repeat), device=logits.device)
    for step in range(max_new_tokens):
        tokens, chosen = _choose(logits, temperature, generators, repeat, alive)
        for row, token, log_prob in zip(alive.tolist(), tokens.tolist(), chosen.tolist(), strict=True):
            written[row].append(token)
            log_probs[row].append(log_prob)
        keep = tokens != end_token_id
        if step == max_new_tokens - 1 or not keep.any():
            break
        if not keep.all():
            alive, tokens, mask, positions = alive[keep], tokens[keep], mask[keep], positions[keep]
            cache.reorder_cache(keep.nonzero()[:, 0])  # type: ignore[arg-type]
        positions = positions + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        logits = model(
            input_ids=tokens[:, None],
            attention_mask=mask.long(),
            position_ids=positions[:, None],
            past_key_values=cache,
            use_cache=True,
        ).logits[:, -1]
    return [_reply(ids, values, end_token_id) for ids, values in zip(written, log_probs, strict=True)]


def _reply(ids: list[int], log_probs: list[float], end_token_id: int) -> Reply:
    ended = ids[-1] == end_token_id
    return Reply(ids[:-1] if ended else ids, ended, log_probs)


def _prefill(
    model: PreTrainedModel, prompts: list[Sequence[int]]
) -> tuple[
    Float[Tensor, "prompts vocabulary"],
    DynamicCache,
    Bool[Tensor, "prompts positions"],
    Int[Tensor, " prompts"],
]:
    """Read the prompts, each distinct one once: logits behind each, the cache, its mask and the last positions."""
    distinct = [list(prompt) for prompt, _ in groupby(prompts)]
    times = torch.tensor([len(list(group)) for _, group in groupby(prompts)], device=model.device)
    width = max(map(len, distinct))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in distinct], device=model.device)
    lengths = torch.tensor([len(prompt) for prompt in distinct], device=model.device)
    positions = torch.arange(width, device=model.device) - (width - lengths)[:, None]
    mask = positions >= 0
    cache = DynamicCache(config=model.config)
    logits = model(
        input_ids=ids,
        attention_mask=mask.long(),
        position_ids=positions.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    rows = torch.arange(len(distinct), device=model.device).repeat_interleave(times)
    if len(rows) > len(distinct):
        cache.reorder_cache(rows)  # type: ignore[arg-type]
    return logits[rows], copy.copy(cache), mask[rows], lengths[rows] - 1


def _choose(
    logits: Float[Tensor, "rows vocabulary"],
    temperature: float,
    generators: list[torch.Generator] | None,
    prompt_of_row: Int[Tensor, " all_rows"],
    alive: Int[Tensor, " rows"],
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The next token of every row and its log-prob; sampling adds Gumbel noise, drawn for ended rows as well."""
    logits = logits.float()
    if not generators:
        log_probs = logits.log_softmax(-1)
        tokens = logits.argmax(-1)
    else:
        log_probs = (logits / temperature).log_softmax(-1)
        group_size = len(prompt_of_row) // len(generators)
        noise = torch.cat([torch.rand(group_size, logits.shape[-1], generator=one) for one in generators])
        gumbel = -torch.log(-torch.log(noise.clamp(min=1e-20, max=1 - 1e-7)))
        tokens = (log_probs + gumbel.to(logits.device)[alive]).argmax(-1)
    return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]
