"""Estimators of the information a message passes, over the log-prob matrix ``L[j, l] = log s(z_j | x_l, q_j)``.

Formulas: Poole et al. 2019 (contrastive, leave-one-out), Barber and Agakov 2003 (rate, task information), Cheng et al.
2020 (CLUB). Everything is in nats and computed in float64, whatever the precision of the scores.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Side = Literal["lower", "upper", "neither"]
Nats = TypeVar("Nats", float, Tensor)

SATURATION_TOLERANCE = 0.01


@dataclass(frozen=True)
class Estimate:
    """Per-message terms of one estimator; their mean is the estimate.

    Attributes:
        terms: nats per message; NaN where a score it needs is missing.
        side: which side of the true information the mean stands on, in expectation.
        ceiling: the largest value each term can take, nats; None where the estimator has none.
        saturated: terms within the tolerance of their ceiling; False where there is no ceiling or no term.
        missing_negatives: how many negatives were left out because their score is missing.
    """

    terms: Float[Tensor, " messages"]
    side: Side
    ceiling: Float[Tensor, " messages"] | None
    saturated: Bool[Tensor, " messages"]
    missing_negatives: int = 0

    @property
    def mean(self) -> float:
        """Mean of the terms that are there, nats; NaN if none is."""
        return self.terms[~self.terms.isnan()].mean().item()

    @property
    def missing(self) -> int:
        """How many messages have no term."""
        return int(self.terms.isnan().sum())

    @property
    def saturated_share(self) -> float:
        """Share of the messages with a term whose term is at its ceiling; NaN if no message has one."""
        return self.saturated[~self.terms.isnan()].double().mean().item()


def contrastive(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
    tolerance: float = SATURATION_TOLERANCE,
) -> Estimate:
    """Lower bound ``L_ji - LSE_l L_jl + log N`` (InfoNCE with a known conditional; Poole et al. 2019).

    N counts a message's usable columns, its own included, and ``log N`` is the term's ceiling. A missing negative (NaN)
    leaves the message's columns and N shrinks; without its own score, or without any negative's, the term is missing.
    A message impossible under its own context and possible under another has the term ``-inf``; one impossible under
    every context tells none of them apart, and its term is 0. Terms are not clipped at 0: that would bias the mean.

    Args:
        log_probs: nats, summed over the message's tokens, end token included; NaN is a missing score.
        own: the column of each message's own context.
        valid: the columns that belong to each message, where messages have negatives of their own; None means all.
        tolerance: nats below the ceiling within which a term counts as saturated.

    Raises:
        ValueError: shapes disagree, a message has no negative, its own column is not valid, or a score is ``+inf``.
    """
    columns = _compare(log_probs, own, valid)
    ceiling = columns.without_missing(columns.usable.sum(dim=1).double().log())
    terms = columns.without_missing(ceiling - _logsumexp(columns.lead, columns.usable))
    return Estimate(terms, "lower", ceiling, ceiling - terms <= tolerance, columns.missing_negatives)


def leave_one_out(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
) -> Estimate:
    """Upper bound ``L_ji - LSE_{l != i} L_jl + log(N - 1)`` if the scorer is the true conditional (Poole et al. 2019).

    Arguments, errors and missing scores are those of :func:`contrastive`. A message impossible under every negative has
    the term ``+inf``, under its own context alone ``-inf``, under all contexts 0.
    """
    columns = _compare(log_probs, own, valid)
    log_count = columns.negative.sum(dim=1).double().log()
    terms = columns.without_missing(log_count - _logsumexp(columns.lead, columns.negative))
    return _without_ceiling(terms, "upper", columns.missing_negatives)


def club(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
) -> Estimate:
    """Upper bound ``L_ji - mean_{l != i} L_jl`` (Cheng et al. 2020), very loose on text: a diagnostic.

    Arguments, errors and missing scores are those of :func:`contrastive`; infinite scores are compared pair by pair as
    in :func:`leave_one_out`.
    """
    columns = _compare(log_probs, own, valid)
    total = torch.where(columns.negative, columns.lead, 0.0).sum(dim=1)
    terms = columns.without_missing(-total / columns.negative.sum(dim=1))
    return _without_ceiling(terms, "upper", columns.missing_negatives)


def rate_against_prior(
    own_log_probs: Float[Tensor, " messages"], prior_log_probs: Float[Tensor, " messages"]
) -> Estimate:
    """Upper bound ``L_ji - log r(z_j | q)`` for any normalised prior r (Barber and Agakov; the IB rate). No ceiling.

    A message impossible under the prior alone has the term ``+inf``, one impossible under its own context alone
    ``-inf``, one impossible under both 0.

    Args:
        own_log_probs: log s(z | x, q) of each message under its own context, nats; NaN is a missing score.
        prior_log_probs: log r(z | q), nats, e.g. the scorer shown no context; NaN is a missing score.

    Raises:
        ValueError: shapes disagree or a score is ``+inf``.
    """
    _require_scores(own_log_probs, prior_log_probs)
    return _without_ceiling(_difference(own_log_probs.double(), prior_log_probs.double()), "upper")


def task_information(
    answer_log_probs: Float[Tensor, " messages"],
    null_log_probs: Float[Tensor, " messages"],
    tolerance: float = SATURATION_TOLERANCE,
) -> Estimate:
    """What each message tells about the answer: ``log p(a | z, q) - log p(a | q)`` (V-information; PVI per sample).

    A lower bound on I(A;Z given Q), up to the gap between the null model and the true p(a given q). A term's ceiling is
    ``-log p(a | q)``, reached when the message makes the answer certain; its mean is H(A given Q) up to the same gap.

    Args:
        answer_log_probs: log-prob of the gold answer given message and question, nats; NaN is a missing score.
        null_log_probs: log-prob of the gold answer given the question alone, nats; NaN is a missing score.
        tolerance: nats below the ceiling within which a term counts as saturated.

    Raises:
        ValueError: shapes disagree or a score is ``+inf``.
    """
    _require_scores(answer_log_probs, null_log_probs)
    terms = _difference(answer_log_probs.double(), null_log_probs.double())
    # Compared on the answer's log-prob itself: the ceiling less the term is infinity less infinity at a null of -inf.
    saturated = (-answer_log_probs.double() <= tolerance) & ~terms.isnan()
    return Estimate(terms, "lower", -null_log_probs.double(), saturated)


def contrastive_token_terms(
    token_log_probs: Float[Tensor, "messages contexts tokens"],
    mask: Bool[Tensor, "messages tokens"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
) -> Float[Tensor, "messages tokens"]:
    """The contrastive term of each message token by token, nats; a message's entries sum to its contrastive term.

    Token t adds ``log s(z_t | z_<t, x_i) - log sum_l w_l(t) s(z_t | z_<t, x_l)``, where w starts uniform and is updated
    by Bayes' rule: the contrastive term of the message up to t, less that up to t - 1, which is how it is computed.
    Tokens outside the mask get 0. Tokens after the message became impossible under its own context get 0; a message
    impossible under every context gets 0 throughout. A message whose term is missing is NaN at each of its tokens.

    Args:
        token_log_probs: log s(z_t | z_<t, x_l, q), nats; NaN is a missing score and costs the message that column.
        mask: True at the message's tokens, end token included.
        own: the column of each message's own context.
        valid: the columns that belong to each message; None means all.

    Raises:
        ValueError: as :func:`contrastive`.
    """
    n_messages, n_contexts, n_tokens = token_log_probs.shape
    if mask.shape != (n_messages, n_tokens):
        raise ValueError(f"mask must be messages x tokens {(n_messages, n_tokens)}, got {tuple(mask.shape)}")
    prefixes = torch.where(mask[:, None, :], token_log_probs.double(), 0.0).cumsum(dim=2)
    # A column that is missing at some token is missing for the whole message, so that N stays the same throughout.
    prefixes = prefixes.masked_fill(prefixes.isnan().any(dim=2, keepdim=True), math.nan)
    repeated_valid = None if valid is None else valid.repeat_interleave(n_tokens, dim=0)
    flat = prefixes.transpose(1, 2).reshape(n_messages * n_tokens, n_contexts)
    reached = contrastive(flat, own.repeat_interleave(n_tokens), repeated_valid).terms.view(n_messages, n_tokens)
    before = torch.cat([torch.zeros_like(reached[:, :1]), reached[:, :-1]], dim=1)
    impossible = torch.isneginf(prefixes).any(dim=2).gather(1, own[:, None].long())
    impossible_everywhere = impossible & reached[:, -1:].isfinite()
    return torch.where(mask, _difference(reached, before), 0.0).masked_fill(impossible_everywhere, 0.0)


def nats_to_bits(nats: Nats) -> Nats:
    """Nats to bits: a division by log 2."""
    return nats / math.log(2)


class _Columns(NamedTuple):
    """Each message's columns, compared with its own."""

    lead: Float[Tensor, "messages contexts"]
    usable: Bool[Tensor, "messages contexts"]
    negative: Bool[Tensor, "messages contexts"]
    missing_negatives: int

    def without_missing(self, values: Float[Tensor, " messages"]) -> Float[Tensor, " messages"]:
        """Values with NaN for the messages that lack their own score or every negative's."""
        own_is_there = (self.usable & ~self.negative).any(dim=1)
        return values.masked_fill(~(own_is_there & self.negative.any(dim=1)), math.nan)


def _compare(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None,
) -> _Columns:
    """How far each column leads the own one (``L_jl - L_ji``), and which columns count.

    Estimates written in these differences are unchanged by what a row shares, and exact at any magnitude of it.
    """
    is_own, valid = _checked_columns(log_probs, own, valid)
    scores = torch.where(valid, log_probs.double(), -math.inf)
    if (scores == math.inf).any():
        raise ValueError("log_probs holds +inf: a log-probability is at most 0")
    missing = scores.isnan()
    own_scores = scores.gather(1, own[:, None].long())
    usable = valid & ~missing
    missing_negatives = int((missing & ~is_own).sum())
    return _Columns(_difference(scores, own_scores), usable, usable & ~is_own, missing_negatives)


def _checked_columns(
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


def _difference(left: Float[Tensor, "..."], right: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """``left - right``, where ``-inf`` less ``-inf`` is 0: two impossible events cannot be told apart."""
    both_impossible = torch.isneginf(left) & torch.isneginf(right)
    return torch.where(both_impossible, 0.0, left - right)


def _logsumexp(
    values: Float[Tensor, "messages contexts"], where: Bool[Tensor, "messages contexts"]
) -> Float[Tensor, " messages"]:
    return torch.where(where, values, -math.inf).logsumexp(dim=1)


def _without_ceiling(terms: Float[Tensor, " messages"], side: Side, missing_negatives: int = 0) -> Estimate:
    return Estimate(terms, side, None, torch.zeros_like(terms, dtype=torch.bool), missing_negatives)


def _require_scores(first: Float[Tensor, " messages"], second: Float[Tensor, " messages"]) -> None:
    if first.shape != second.shape:
        raise ValueError(f"one score a message on either side: got shapes {tuple(first.shape)}, {tuple(second.shape)}")
    if (first == math.inf).any() or (second == math.inf).any():
        raise ValueError("a score is +inf: a log-probability is at most 0")
