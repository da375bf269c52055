"""A message's scores under every context, compared with its score under its own: the common ground of the estimators.

Estimates are written in differences ``L_jl - L_ji`` (nats, float64): what a row of the log-prob matrix shares then
changes nothing, and a small difference between large scores is not lost.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class ColumnComparison:
    """Each message's columns, compared with its own.

    Attributes:
        lead: how far each column leads the own one, ``L_jl - L_ji``, nats; the bare score where the own one is not
            finite.
        own_lead: 0; ``-inf`` where the message is impossible under its own context, NaN where that score is missing.
        offset: what was subtracted from each row, nats.
        usable: the columns that belong to the message and have a score.
        negative: the usable columns that are not the message's own.
        missing_negatives: how many negatives belong to a message and have no score.
    """

    lead: Float[Tensor, "messages contexts"]
    own_lead: Float[Tensor, " messages"]
    offset: Float[Tensor, " messages"]
    usable: Bool[Tensor, "messages contexts"]
    negative: Bool[Tensor, "messages contexts"]
    missing_negatives: int

    def missing_as_nan(self, values: Float[Tensor, " messages"]) -> Float[Tensor, " messages"]:
        """Values with NaN for the messages that lack their own score or every negative's."""
        return values.masked_fill(self.own_lead.isnan() | ~self.negative.any(dim=1), math.nan)

    def relative(self, log_baseline: Float[Tensor, " messages"]) -> Float[Tensor, " messages"]:
        """A log-probability of each message, nats, on the scale of ``lead``.

        Raises:
            ValueError: there is not one number a message, or one is ``+inf``.
        """
        require_message_scores(self.offset, log_baseline)
        return log_baseline.double() - self.offset

    def log_sum(self) -> Float[Tensor, " messages"]:
        """Log of the summed probability under the usable columns, over the own one."""
        return _log_sum(self.lead, self.usable)

    def mean_of_negatives(self, values: Float[Tensor, "messages contexts"]) -> Float[Tensor, " messages"]:
        """Mean of the values at each message's negatives."""
        return torch.where(self.negative, values, 0.0).sum(dim=1) / self.negative.sum(dim=1)

    def log_mean_of_negatives(self, baseline: Float[Tensor, " messages"] | None = None) -> Float[Tensor, " messages"]:
        """Log of the mean probability under the negatives, over the own one or a baseline on the scale of ``lead``.

        A context under which the message is impossible adds nothing to the mean, whatever the baseline.
        """
        ratios = self.lead if baseline is None else self.lead - baseline[:, None]
        possible = self.negative & ~torch.isneginf(self.lead)
        return _log_sum(ratios, possible) - self.negative.sum(dim=1).double().log()

    def log_means_without_each(self) -> Float[Tensor, "messages contexts"]:
        """For each column, the log of the mean probability under the other usable ones; exact whichever dominates."""
        lead = torch.where(self.usable, self.lead, -math.inf)
        nothing = torch.full_like(lead[:, :1], -math.inf)
        before = torch.cat([nothing, lead.logcumsumexp(dim=1)[:, :-1]], dim=1)
        after = torch.cat([nothing, lead.flip(1).logcumsumexp(dim=1)[:, :-1]], dim=1).flip(1)
        return torch.logaddexp(before, after) - self.negative.sum(dim=1, keepdim=True).double().log()


def compare_columns(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None,
) -> ColumnComparison:
    """Compare each message's columns with its own.

    Args:
        log_probs: the log-prob matrix, nats; NaN is a missing score.
        own: the column of each message's own context.
        valid: the columns that belong to each message; None means all.

    Raises:
        ValueError: shapes disagree, a message has no negative, its own column is not valid, or a score is ``+inf``.
    """
    is_own, valid = _column_masks(log_probs, own, valid)
    scores = torch.where(valid, log_probs.double(), -math.inf)
    if (scores == math.inf).any():
        raise ValueError("log_probs holds +inf: a log-probability is at most 0")
    missing = scores.isnan()
    own_scores = scores.gather(1, own[:, None].long())[:, 0]
    offset = torch.where(own_scores.isfinite(), own_scores, 0.0)
    usable = valid & ~missing
    return ColumnComparison(
        lead=scores - offset[:, None],
        own_lead=own_scores - offset,
        offset=offset,
        usable=usable,
        negative=usable & ~is_own,
        missing_negatives=int((missing & ~is_own).sum()),
    )


def require_message_scores(first: Float[Tensor, " messages"], second: Float[Tensor, " messages"]) -> None:
    """Refuse two vectors of log-probabilities that do not hold one score for each message.

    Raises:
        ValueError: shapes disagree or a score is ``+inf``.
    """
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"one score a message on either side: got shapes {tuple(first.shape)}, {tuple(second.shape)}")
    if (first == math.inf).any() or (second == math.inf).any():
        raise ValueError("a score is +inf: a log-probability is at most 0")


def _column_masks(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None,
) -> tuple[Bool[Tensor, "messages contexts"], Bool[Tensor, "messages contexts"]]:
    """The mask of own columns and the mask of valid ones.

    Raises:
        ValueError: shapes disagree, an own column does not exist or is not valid, or a message has no negative.
    """
    n_messages, n_contexts = log_probs.shape
    if own.shape != (n_messages,):
        raise ValueError(f"own must name one column for each of {n_messages} messages, got shape {tuple(own.shape)}")
    if valid is None:
        valid = torch.ones(n_messages, n_contexts, dtype=torch.bool, device=log_probs.device)
    if valid.shape != log_probs.shape:
        raise ValueError(f"valid must have the shape of log_probs {tuple(log_probs.shape)}, got {tuple(valid.shape)}")
    is_own = torch.arange(n_contexts, device=log_probs.device) == own[:, None]
    if not (is_own & valid).any(dim=1).all():
        message = int((is_own & valid).any(dim=1).int().argmin())
        raise ValueError(f"own[{message}] = {int(own[message])} is not a valid column of that message")
    counts = valid.sum(dim=1)
    if (counts < 2).any():
        message = int(counts.argmin())
        raise ValueError(f"message {message} has 1 context: the bound needs its own and at least 1 negative (N >= 2)")
    return is_own, valid


def _log_sum(
    values: Float[Tensor, "messages contexts"], where: Bool[Tensor, "messages contexts"]
) -> Float[Tensor, " messages"]:
    return torch.where(where, values, -math.inf).logsumexp(dim=1)
