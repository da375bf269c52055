"""Sampling of many replies to each prompt, with what prompts begin with in common read once and held once.

Each prompt draws from a generator of its own, so that its replies do not depend on what else is in the batch.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from models.naming import NonFiniteError
from models.shared_prefix.attention import share_prefixes
from models.shared_prefix.decoding import Decoding
from models.shared_prefix.length import check_length
from models.shared_prefix.projection import projection
from models.shared_prefix.token_tree import common_length

LEAST_SHARED = 32
"""Tokens that prompts must begin with in common, and at least a quarter of their length, to have their keys held once.
What follows the common part is held for every reply, so that a short common part costs more than it saves."""

MAX_CACHED_POSITIONS = 65_536
"""Positions that one pass may hold in its cache: those of the prefixes and, for every row, those after its prefix. They
take 1.9 GB in bfloat16 for a Qwen2.5 of 1.5B (28 layers, keys and values of two heads of 128)."""


@dataclass(frozen=True)
class Reply:
    """What a model wrote.

    Attributes:
        token_ids: the tokens of the reply, without the end token.
        ended: whether the end token was written; without it the reply ran into the limit.
        log_probs: log p of every token written, the end token included; nats, under the distribution sampled from.
    """

    token_ids: list[int]
    ended: bool
    log_probs: list[float]


@torch.no_grad()
def generate(
    model: PreTrainedModel | PeftModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    end_token_id: int,
    group_size: int = 1,
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    heard: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """``group_size`` replies to each prompt, those of one prompt next to each other.

    Args:
        model: a causal LM (or PEFT wrapper); it runs in the mode it is in, so put it in evaluation mode.
        prompts: token ids, at least two each; a context that several of them begin with is read once.
        max_new_tokens: the limit on a reply, its end token included.
        end_token_id: the token that ends a reply.
        group_size: replies to each prompt.
        temperature: 0 takes the most likely token.
        seeds: one a prompt; needed above temperature 0.
        heard: told the number of a reply and its next token, as soon as it is written; what it raises ends all replies.

    Raises:
        ValueError: a prompt of fewer than two tokens, a limit below 1, or no seeds to sample with.
        ModelError: a model whose layers cannot share a prefix, or a sequence beyond its switch of frequencies.
        NonFiniteError: the logits of a token that was written are not finite.
    """
    if max_new_tokens < 1 or any(len(prompt) < 2 for prompt in prompts):
        raise ValueError(f"prompts must have two tokens and max_new_tokens be at least 1, got {max_new_tokens}")
    if temperature > 0 and (seeds is None or len(seeds) != len(prompts)):
        raise ValueError(f"sampling at temperature {temperature} needs one seed for each of {len(prompts)} prompts")
    plain = share_prefixes(model)
    check_length(plain.config, max(map(len, prompts), default=0) + max_new_tokens)
    replies: list[list[Reply]] = [[] for _ in prompts]
    for batch in _batches(prompts, group_size, max_new_tokens):
        order = [index for family in batch for index in family.prompts]
        generators = _generators(seeds, order) if temperature > 0 else None
        numbers = [index * group_size + number for index in order for number in range(group_size)]
        told = None if heard is None else _numbered(heard, numbers)
        rows = _decode(plain, prompts, batch, max_new_tokens, end_token_id, group_size, temperature, generators, told)
        for number, index in enumerate(order):
            replies[index] = rows[number * group_size : (number + 1) * group_size]
    if not all(isfinite(log_prob) for group in replies for reply in group for log_prob in reply.log_probs):
        raise NonFiniteError(
            f"{type(plain).__name__} writes from logits that are not finite: its weights have diverged"
        )
    return [reply for group in replies for reply in group]


def sampling_seed(*parts: int | str) -> int:
    """The seed that belongs to a run, a step and a sample: the same on any number of processes."""
    # Seven bytes, for the seed of a torch generator is a signed number of eight.
    digest = hashlib.sha256("/".join(map(str, parts)).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big")


def _generators(seeds: Sequence[int] | None, batch: list[int]) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seeds[index]) for index in batch] if seeds is not None else []


class _Family(NamedTuple):
    """Prompts that are read together.

    Attributes:
        shared: how many tokens they begin with in common; each has at least one more.
        prompts: their indices.
    """

    shared: int
    prompts: list[int]


def _batches(prompts: Sequence[Sequence[int]], group_size: int, new_tokens: int) -> list[list[_Family]]:
    """Families of similar length together, as many as the cache may hold."""
    families = [
        _Family(min(shared, *(len(prompts[index]) - 1 for index in members)), members)
        for shared, members in _families(prompts)
    ]
    batches: list[list[_Family]] = []
    for family in sorted(families, key=lambda family: (family.shared, family.prompts)):
        together = [*batches[-1], family] if batches else [family]
        if batches and _cached_positions(together, prompts, group_size, new_tokens) <= MAX_CACHED_POSITIONS:
            batches[-1] = together
        else:
            batches.append([family])
    return batches


def _families(sequences: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """Which sequences are worth reading together: how many tokens they begin with in common, and their indices.

    A sequence that shares nothing is a family of one, with all of its tokens in common.
    """
    families: list[tuple[int, list[int]]] = []
    for index in sorted(range(len(sequences)), key=lambda index: list(sequences[index])):
        ids = sequences[index]
        if families:
            shared, family = families[-1]
            common = common_length(list(sequences[family[0]])[:shared], list(ids))
            # One more member at the price of a shorter common part: worth it where more tokens are saved than before.
            saved = common * len(family) >= shared * (len(family) - 1)
            if saved and common >= max(LEAST_SHARED, len(ids) // 4):
                families[-1] = (common, [*family, index])
                continue
        families.append((len(ids), [index]))
    return families


def _cached_positions(batch: list[_Family], prompts: Sequence[Sequence[int]], group_size: int, new_tokens: int) -> int:
    """Positions that a batch holds in its cache at the end, padding included: see `MAX_CACHED_POSITIONS`."""
    suffixes = [len(prompts[index]) - family.shared for family in batch for index in family.prompts]
    tails = group_size * len(suffixes) * (max(suffixes) + new_tokens)
    return len(batch) * max(family.shared for family in batch) + tails


def _decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    batch: list[_Family],
    max_new_tokens: int,
    end_token_id: int,
    group_size: int,
    temperature: float,
    generators: list[torch.Generator] | None,
    heard: Callable[[int, int], None] | None,
) -> list[Reply]:
    """One batch: rows whose reply has ended leave it, so that a short reply costs what it is worth."""
    prefixes = [prompts[family.prompts[0]][: family.shared] for family in batch]
    suffixes = [prompts[index][family.shared :] for family in batch for index in family.prompts]
    family_of_prompt = [number for number, family in enumerate(batch) for _ in family.prompts]
    decoding = Decoding(model, prefixes, max(map(len, suffixes)) + max_new_tokens)
    project = projection(model)
    hidden = decoding.begin(family_of_prompt, suffixes)
    repeat = torch.arange(len(suffixes), device=hidden.device).repeat_interleave(group_size)
    decoding.select(repeat)
    logits = project(hidden)[repeat]
    written: list[list[int]] = [[] for _ in repeat]
    log_probs: list[list[float]] = [[] for _ in repeat]
    alive = torch.arange(len(repeat), device=logits.device)
    for step in range(max_new_tokens):
        tokens, chosen = _choose(logits, temperature, generators, repeat, alive)
        for row, token, log_prob in zip(alive.tolist(), tokens.tolist(), chosen.tolist(), strict=True):
            written[row].append(token)
            log_probs[row].append(log_prob)
            if heard is not None:
                heard(row, token)
        keep = tokens != end_token_id
        if step == max_new_tokens - 1 or not keep.any():
            break
        if not keep.all():
            alive, tokens = alive[keep], tokens[keep]
            decoding.select(keep.nonzero()[:, 0])
        logits = project(decoding.step(tokens))
    return [_reply(ids, values, end_token_id) for ids, values in zip(written, log_probs, strict=True)]


def _numbered(heard: Callable[[int, int], None], numbers: list[int]) -> Callable[[int, int], None]:
    """The same listener, told rows of a batch by the numbers of their replies."""
    return lambda row, token: heard(numbers[row], token)


def _reply(ids: list[int], log_probs: list[float], end_token_id: int) -> Reply:
    ended = ids[-1] == end_token_id
    return Reply(ids[:-1] if ended else ids, ended, log_probs)


def _choose(
    logits: Float[Tensor, "rows vocabulary"],
    temperature: float,
    generators: list[torch.Generator] | None,
    prompt_of_row: Int[Tensor, " all_rows"],
    alive: Int[Tensor, " rows"],
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """The next token of every row and its log-prob, nats.

    Sampling takes the largest of log-prob plus Gumbel noise. The noise is drawn for rows that have ended as well, so
    that the replies of a prompt do not depend on when others end.
    """
    logits = logits.float()
    if not generators:
        log_probs = logits.log_softmax(-1)
        tokens = logits.argmax(-1)
    else:
        log_probs = (logits if temperature == 1 else logits / temperature).log_softmax(-1)
        group_size = len(prompt_of_row) // len(generators)
        noise = torch.cat([torch.rand(group_size, logits.shape[-1], generator=generator) for generator in generators])
        # In place, for new memory of this size costs a CPU more than the logarithms do. Away from 0 and 1, where they
        # are infinite.
        gumbel = noise[alive.cpu()].clamp_(min=1e-20, max=1 - 1e-7).log_().neg_().log_().neg_()
        tokens = gumbel.to(logits.device).add_(log_probs).argmax(-1)
    return tokens, log_probs.gather(-1, tokens[:, None])[:, 0]
