"""Whether the sampler and the policy are one model: the gap between their log-probabilities, and the adapter in both.

Two engines never compute quite the same numbers, and GRPO takes what was sampled for the policy's own. The gap tells
how far apart they are; `adapter_reached` tells the one failure that trains on without a sign: a sampler that still
writes with the base model.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NOISE_NATS = 0.01
"""A mean difference a token between two models that tells nothing: engines in bfloat16 differ by as much."""

STANDARD_ERRORS = 4.0
"""How many standard errors from one half a share has to lie to be told from it: so many that the check of a sound run
all but never ends it by chance (three in 100,000 for a normal error)."""


def sampler_gap(
    sampler: Float[Tensor, "messages tokens"],
    policy: Float[Tensor, "messages tokens"],
    mask: Bool[Tensor, "messages tokens"],
) -> Float[Tensor, " real_tokens"]:
    """|log p_sampler - log p_policy| of the real tokens, nats; NaN where the sampler gave no log-probability."""
    return (sampler - policy).abs()[mask].double()


def gap_sums(gaps: Float[Tensor, " tokens"]) -> Float[Tensor, "4"]:
    """What one process adds to `gap_metrics`: the sum, the known tokens, the missing ones, and the largest gap."""
    known = gaps[~gaps.isnan()]
    largest = torch.cat([known, known.new_zeros(1)]).max()
    return torch.stack([known.sum(), known.new_tensor(len(known)), known.new_tensor(len(gaps) - len(known)), largest])


def gap_metrics(sums: Float[Tensor, "processes 4"]) -> dict[str, float]:
    """Mean and largest gap over the tokens of all processes, nats, and the number of tokens without one.

    Mean and largest are NaN where every token is missing.
    """
    total, known, missing = sums[:, :3].sum(dim=0).tolist()
    return {
        "sampler_gap/mean_nats": total / known if known else math.nan,
        "sampler_gap/max_nats": sums[:, 3].max().item() if known else math.nan,
        "sampler_gap/missing_tokens": missing,
    }


def adapter_share(
    sampler: Float[Tensor, " tokens"], adapted: Float[Tensor, " tokens"], plain: Float[Tensor, " tokens"]
) -> tuple[float, float]:
    """The share of the adapter's changes that the sampler shows: 0 is the policy without it, 1 the policy with it.

    The slope of sampler - plain on adapted - plain, through the origin. Above one half the sampler is the nearer to the
    policy with the adapter, in squared distance. Its standard error is the one that is robust against noise that
    differs from token to token and against few tokens that carry all of the change (HC3, MacKinnon and White 1985).

    Returns:
        The share and its standard error; NaN where the tokens determine neither.
    """
    change, shown = (adapted - plain).double(), (sampler - plain).double()
    total = change.square().sum()
    share = (shown * change).sum() / total
    residuals = (shown - share * change) / (1 - change.square() / total)
    error = (residuals * change).square().sum().sqrt() / total
    return share.item(), error.item()


def adapter_reached(
    sampler: Float[Tensor, " tokens"],
    adapted: Float[Tensor, " tokens"],
    plain: Float[Tensor, " tokens"],
    noise_nats: float = NOISE_NATS,
) -> bool:
    """Whether the sampler's log-probabilities show that it wrote with the adapter, `STANDARD_ERRORS` from one half.

    A sampler in bfloat16 holds base and update rounded together, which loses an update below half a step of the grid:
    that counts as not reached, for it is not.

    Args:
        sampler: log p of the tokens written, as the sampler gave them, nats; NaN is left out.
        adapted: the same by the policy with its adapter.
        plain: the same by the policy with its adapter switched off.
        noise_nats: the mean difference between ``adapted`` and ``plain`` up to which nothing can be told.

    Returns:
        True where the sampler is nearer to the policy with the adapter; False where that cannot be told, because the
        adapter changes too little yet, or the tokens are too few or too noisy.

    Raises:
        RuntimeError: the sampler is nearer to the policy without the adapter.
    """
    known = ~sampler.isnan()
    effect = (adapted - plain)[known].abs().double().mean().item()
    if not effect > noise_nats:
        return False
    share, error = adapter_share(sampler[known], adapted[known], plain[known])
    if share + STANDARD_ERRORS * error < 0.5:
        raise RuntimeError(
            f"the adapter did not reach the sampler: of the {effect:.2g} nats a token that it changes, the sampler's "
            f"log-probs show {share:.0%} (standard error {error:.1%}); the weights it samples with are stale, or the "
            "update is lost in their rounding"
        )
    return share - STANDARD_ERRORS * error > 0.5
