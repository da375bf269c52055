"""The proof of an export: the program that will run it, beside PyTorch, on the same token ids.

Equal greedy tokens alone prove little, for an adapter that does nothing often leaves them equal too. So the change that
the adapter makes is measured in the runtime: the log-probabilities there less those of the base alone in PyTorch,
beside the same change in PyTorch. Where it computes the same, that difference is the adapter's change and nothing else;
where the file packs weights into few bits, packing adds noise, and the part of the adapter's change that arrives is a
slope near 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.export.runtime import Runtime
from models.export.trained import Trained, next_log_probs
from models.naming import ModelError
from models.shared_prefix import generate

EXACT_ERROR = 0.1
"""The most by which a runtime's change may miss the adapter's, as a share of it, where weights are not packed. float16
misses it by a hundredth, a projection whose rows lie in the wrong order by a third and more."""

SLOPES = (0.8, 1.25)
"""Where the slope of the adapter's change lies in a file of packed weights: noise that packing adds is not along it. An
adapter that is left out has 0, one at twice its scale about 2."""

LEAST_CHANGE_NATS = 1e-4
"""The mean change of a log-probability below which an adapter does too little for its absence to be seen."""

KEPT_SHARE = 1e-6
"""Tokens less likely than this, with and without the adapter, tell nothing: their log-probabilities are noise."""


@dataclass(frozen=True)
class Arrived:
    """How much of an adapter's change a runtime shows.

    Attributes:
        change_nats: root mean square of the change that the adapter makes in PyTorch.
        error_share: root mean square of what the runtime's change misses of it, as a share of ``change_nats``.
        slope: the part of the change that arrives: 0 is none, 1 all of it.
    """

    change_nats: float
    error_share: float
    slope: float

    def problem(self, exact: bool) -> str | None:
        """What is wrong, in words; None where nothing is.

        Args:
            exact: whether the runtime has the very weights, up to rounding to float16.
        """
        if self.change_nats < LEAST_CHANGE_NATS:
            return f"the adapter changes log-probabilities by {self.change_nats:.1g} nats, too little to prove anything"
        if self.slope < 0.5:
            # A base that came from a packed file lies on that packing's grid, and a small change is rounded back to it.
            why = "" if exact else ", or packing has rounded it away (export it beside its base, as gguf-lora)"
            return f"the adapter is not applied{why}: {self.slope:.0%} of its change arrives"
        if exact and self.error_share > EXACT_ERROR:
            return f"the runtime computes another change than the adapter's: it misses {self.error_share:.0%} of it"
        if not SLOPES[0] <= self.slope <= SLOPES[1]:
            return f"the runtime computes another change than the adapter's: {self.slope:.0%} of it"
        return None


@dataclass(frozen=True)
class Verification:
    """What was compared, and what came out.

    Attributes:
        runtime: the program, with its version.
        prompts: how many prompts were read.
        tokens: how many tokens were written after each.
        equal_prompts: prompts after which all tokens are those of PyTorch.
        equal_tokens: mean tokens until the first that differs; ``tokens`` where none does.
        largest_difference: the largest difference between log-probabilities of one token, nats, over all tokens that
            are not all but impossible.
        arrived: what the adapter changes there.
        problem: what is wrong, in words; None where nothing is.
    """

    runtime: str
    prompts: int
    tokens: int
    equal_prompts: int
    equal_tokens: float
    largest_difference: float
    arrived: Arrived
    problem: str | None

    def lines(self) -> list[str]:
        """What is printed."""
        arrived = self.arrived
        return [
            f"runtime: {self.runtime}",
            f"greedy tokens: {self.equal_prompts} of {self.prompts} prompts equal over {self.tokens} tokens "
            f"(the first that differs comes after {self.equal_tokens:.1f} on average)",
            f"log-probabilities: at most {self.largest_difference:.2g} nats apart",
            f"adapter: changes log-probabilities by {arrived.change_nats:.2g} nats; {arrived.slope:.1%} of that "
            f"arrives, {arrived.error_share:.1%} is missed",
        ]


@dataclass(frozen=True)
class Reference:
    """What PyTorch computes in float32, once for all runtimes.

    Attributes:
        prompts: token ids.
        tokens: the most likely tokens after each prompt, written on after an end token.
        adapted: log p of every token after each prompt, nats, with the adapter.
        plain: the same without it.
    """

    prompts: list[list[int]]
    tokens: list[list[int]]
    adapted: list[Float[Tensor, " vocabulary"]]
    plain: list[Float[Tensor, " vocabulary"]]

    @classmethod
    def of(cls, trained: Trained, prompts: list[list[int]], count: int) -> "Reference":
        """Compute it.

        Args:
            trained: what is exported.
            prompts: token ids.
            count: how many tokens are written after each prompt.
        """
        # No token has this number, so that nothing ends a reply.
        replies = generate(trained.adapted, prompts, count, end_token_id=-1)
        adapted, plain = (next_log_probs(trained.adapted, prompts, with_adapter) for with_adapter in (True, False))
        return cls(prompts, [reply.token_ids for reply in replies], adapted, plain)


def verify(reference: Reference, runtime: Runtime, exact: bool) -> Verification:
    """Compare a runtime with PyTorch.

    Args:
        reference: what PyTorch computes.
        runtime: has the exported files loaded.
        exact: whether the files hold the very weights, up to rounding to float16.

    Raises:
        ModelError: the runtime refuses a prompt, or has another vocabulary.
    """
    prompts, count = reference.prompts, len(reference.tokens[0])
    there = [
        _of_vocabulary(runtime.next_log_probs(ids), ours) for ids, ours in zip(prompts, reference.adapted, strict=True)
    ]
    agreements = [
        _agreement(runtime.greedy(ids, count), tokens) for ids, tokens in zip(prompts, reference.tokens, strict=True)
    ]
    arrival = arrived(there, reference.adapted, reference.plain)
    differences = [(a - b).abs()[_likely(b)].max() for a, b in zip(there, reference.adapted, strict=True)]
    return Verification(
        runtime=runtime.name,
        prompts=len(prompts),
        tokens=count,
        equal_prompts=sum(agreement == count for agreement in agreements),
        equal_tokens=sum(agreements) / len(agreements),
        largest_difference=max(map(float, differences)),
        arrived=arrival,
        problem=arrival.problem(exact),
    )


def arrived(
    runtime: Sequence[Float[Tensor, " vocabulary"]],
    adapted: Sequence[Float[Tensor, " vocabulary"]],
    plain: Sequence[Float[Tensor, " vocabulary"]],
) -> Arrived:
    """How much of the adapter's change a runtime shows, over the tokens that are not all but impossible.

    Args:
        runtime: log p of every token after each prompt there, nats.
        adapted: the same in PyTorch with the adapter.
        plain: the same in PyTorch without it.
    """
    changes, found = [], []
    for there, ours, base in zip(runtime, adapted, plain, strict=True):
        likely = _likely(ours) | _likely(base)
        changes.append((ours - base)[likely].double())
        found.append((there - base)[likely].double())
    change, shown = torch.cat(changes), torch.cat(found)
    size = change.square().mean().sqrt()
    missed = (shown - change).square().mean().sqrt()
    slope = (shown * change).sum() / change.square().sum().clamp(min=1e-30)
    return Arrived(float(size), float(missed / size.clamp(min=1e-30)), float(slope))


def _likely(log_probs: Float[Tensor, " vocabulary"]) -> Tensor:
    return log_probs > torch.tensor(KEPT_SHARE).log()


def _of_vocabulary(
    log_probs: Float[Tensor, " tokens"], reference: Float[Tensor, " vocabulary"]
) -> Float[Tensor, " vocabulary"]:
    if len(log_probs) > len(reference) or not log_probs.isfinite().any():
        raise ModelError(f"the runtime has a vocabulary of {len(log_probs)} tokens, and the model of {len(reference)}")
    if len(log_probs) < len(reference):
        log_probs = torch.nn.functional.pad(log_probs, (0, len(reference) - len(log_probs)), value=-torch.inf)
    return log_probs


def _agreement(one: Sequence[int], other: Sequence[int]) -> int:
    """The tokens up to the first that differs."""
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), len(one))
