"""Estimators of the information a message passes, over the log-prob matrix ``L[j, l] = log s(z_j | x_l, q_j)``.

Formulas: Poole et al. 2019, "On variational bounds of mutual information" (contrastive, leave-one-out, interpolated),
Barber and Agakov 2003 (rate, task information, reconstruction), Cheng et al. 2020 (CLUB). Bounds from a critic are in
`objectives.critics`, confidence intervals in `eval.analysis.significance`. Everything is in nats and computed in
float64, whatever the precision of the scores.

A bound's side holds in expectation and rests on assumptions. Lower bounds hold for any scorer, but take negatives for
independent draws of the context: versions of a document that were changed to differ are not. The upper bounds hold for
messages sampled from the scorer itself, and no longer once the policy has moved away from it.

A missing score is NaN and stays missing. ``-inf`` is a score, and arithmetic with it follows the extended reals: a
term is infinite where its formula is, and missing where its formula is ``inf - inf``. No term is ever replaced by 0.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from objectives.comparison import compare_columns, require_message_scores

Side = Literal["lower", "upper", "neither"]
"""The side of the true information that an estimate stands on."""

Nats = TypeVar("Nats", float, Tensor)

SATURATION_TOLERANCE = 0.01
"""Nats below its ceiling within which a term counts as saturated: a contrastive term is there once a message is a
hundred times likelier under its own context than under all others together."""


@dataclass(frozen=True)
class Estimate:
    """Per-message terms of one estimator; their mean is the estimate.

    Attributes:
        terms: nats per message; NaN where the term is missing.
        side: which side of the true information the mean stands on, in expectation and under the estimator's
            assumptions.
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

    def of(self, messages: Bool[Tensor, " messages"]) -> "Estimate":
        """The terms of some of the messages; negatives that are missing are counted for all."""
        ceiling = None if self.ceiling is None else self.ceiling[messages]
        return replace(self, terms=self.terms[messages], ceiling=ceiling, saturated=self.saturated[messages])

    @classmethod
    def without_ceiling(cls, terms: Float[Tensor, " messages"], side: Side, missing_negatives: int = 0) -> "Estimate":
        """The estimate with these terms, nats, which nothing bounds from above."""
        return cls(terms, side, None, torch.zeros_like(terms, dtype=torch.bool), missing_negatives)


def contrastive(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
    tolerance: float = SATURATION_TOLERANCE,
) -> Estimate:
    """Lower bound ``L_ji - LSE_l L_jl + log N`` (InfoNCE with a known conditional; Poole et al. 2019).

    It holds in expectation for any scorer, where negatives are independent draws of the context. Where they were made
    to differ from the own one, contexts are not exchangeable and the value can exceed the information: call it the
    bound under hard negatives, and give the value with independent negatives beside it.

    N counts a message's usable columns, its own included, and ``log N`` is the term's ceiling. A missing negative (NaN)
    leaves the message's columns and N shrinks; without its own score, or without any negative's, the term is missing.
    A message impossible (``-inf``) under its own context and possible under another has the term ``-inf``; one
    impossible under every context has none. Terms are not clipped at 0: that would bias the mean.

    Args:
        log_probs: nats, summed over the message's tokens, end token included; NaN is a missing score.
        own: the column of each message's own context.
        valid: the columns that belong to each message, where messages have negatives of their own; None means all.
        tolerance: nats below the ceiling within which a term counts as saturated.

    Raises:
        ValueError: shapes disagree, a message has no negative, its own column is not valid, or a score is ``+inf``.
    """
    columns = compare_columns(log_probs, own, valid)
    ceiling = columns.missing_as_nan(columns.usable.sum(dim=1).double().log())
    terms = columns.missing_as_nan(columns.own_lead - columns.log_sum() + ceiling)
    return Estimate(terms, "lower", ceiling, ceiling - terms <= tolerance, columns.missing_negatives)


def leave_one_out(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
) -> Estimate:
    """Upper bound ``L_ji - LSE_{l != i} L_jl + log(N - 1)`` if the scorer is the true conditional (Poole et al. 2019).

    The scorer is that for messages of its own alone. Messages of a policy that has moved away from the scorer have no
    upper bound here; scored by the policy itself they do.

    Arguments, errors and missing scores are those of :func:`contrastive`. A message impossible under every negative has
    the term ``+inf``, under its own context alone ``-inf``, under all contexts none.
    """
    columns = compare_columns(log_probs, own, valid)
    terms = columns.missing_as_nan(columns.own_lead - columns.log_mean_of_negatives())
    return Estimate.without_ceiling(terms, "upper", columns.missing_negatives)


def club(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
) -> Estimate:
    """Upper bound ``L_ji - mean_{l != i} L_jl`` (Cheng et al. 2020), very loose on text: a diagnostic.

    Like :func:`leave_one_out` it is one for messages of the scorer itself. Arguments, errors and missing scores are
    those of :func:`contrastive`. A message impossible under a negative has the term ``+inf``, under its own context
    ``-inf``, under both none.
    """
    columns = compare_columns(log_probs, own, valid)
    terms = columns.missing_as_nan(columns.own_lead - columns.mean_of_negatives(columns.lead))
    return Estimate.without_ceiling(terms, "upper", columns.missing_negatives)


def interpolated(
    log_probs: Float[Tensor, "messages contexts"],
    own: Int[Tensor, " messages"],
    log_baseline: Float[Tensor, " messages"],
    alpha: float,
    valid: Bool[Tensor, "messages contexts"] | None = None,
    tolerance: float = SATURATION_TOLERANCE,
) -> Estimate:
    """Lower bound I_alpha between the contrastive bound (alpha 1) and TUBA (towards 0): less bias, more variance.

    ``1 + mean_{k != i} [L_ji - log a_j(k)] - mean_{l != i} s_jl / a_j(i)``, where ``a_j(k) = alpha m_j(k) + (1 - alpha)
    r_j`` and ``m_j(k)`` is the mean of ``s_jl = exp L_jl`` over the columns but k (Poole et al. 2019, section 2.3, and
    their published code). Both expectations of the bound are over equally many contexts, so with N columns each uses
    N - 1: the joint term leaves out every negative in turn, the correction leaves out the own context. At alpha 1 the
    correction is 1 and the term is the contrastive one over N - 1 columns.

    A term's ceiling is ``log((N - 1) / alpha) + 1 - correction``, reached when the own context outweighs all others
    and the baseline. It is the published ``log(N / alpha)`` where the correction is 1, and up to a nat more where it is
    less. A message impossible under every context has the term ``-inf``, and none where its baseline is 0 too.

    Args:
        log_probs: as in :func:`contrastive`.
        own: as in :func:`contrastive`.
        log_baseline: ``log r_j`` of each message, nats: any positive function of message and question, e.g. the scorer
            shown no context; ``-inf`` is its limit 0, NaN makes the term missing.
        alpha: the weight of the contrastive baseline, above 0 and at most 1.
        valid: as in :func:`contrastive`.
        tolerance: nats below the ceiling within which a term counts as saturated.

    Raises:
        ValueError: as :func:`contrastive`; alpha is out of range; or baselines are not one a message, or ``+inf``.
    """
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be above 0 and at most 1, got {alpha} (at 0 the bound is critics.tuba)")
    columns = compare_columns(log_probs, own, valid)
    baseline = columns.relative(log_baseline)
    log_baseline_weight = math.log1p(-alpha) if alpha < 1 else -math.inf
    mixtures = torch.logaddexp(
        math.log(alpha) + columns.log_means_without_each(), (log_baseline_weight + baseline)[:, None]
    )
    joint = columns.own_lead - columns.mean_of_negatives(mixtures)
    # m / (alpha m + (1 - alpha) r) by way of m / r, which may be 0 or infinite.
    odds = columns.log_mean_of_negatives(baseline).exp()
    correction = 1 / (alpha + (1 - alpha) / odds) if alpha < 1 else torch.ones_like(odds)
    terms = columns.missing_as_nan(1 + joint - correction)
    ceiling = columns.missing_as_nan(1 - correction + (columns.negative.sum(dim=1) / alpha).log())
    return Estimate(terms, "lower", ceiling, ceiling - terms <= tolerance, columns.missing_negatives)


def rate_against_prior(
    own_log_probs: Float[Tensor, " messages"], prior_log_probs: Float[Tensor, " messages"]
) -> Estimate:
    """Upper bound ``L_ji - log r(z_j | q)`` for any normalised prior r (Barber and Agakov; the IB rate). No ceiling.

    Like :func:`leave_one_out` it is one for messages of the scorer itself. It is too high by the divergence of the
    messages' marginal from the prior.

    A message impossible under the prior alone has the term ``+inf``, one impossible under its own context alone
    ``-inf``, one impossible under both none.

    Args:
        own_log_probs: log s(z | x, q) of each message under its own context, nats; NaN is a missing score.
        prior_log_probs: log r(z | q), nats, e.g. the scorer shown no context; NaN is a missing score.

    Raises:
        ValueError: shapes disagree or a score is ``+inf``.
    """
    require_message_scores(own_log_probs, prior_log_probs)
    return Estimate.without_ceiling(own_log_probs.double() - prior_log_probs.double(), "upper")


def task_information(
    answer_log_probs: Float[Tensor, " messages"],
    null_log_probs: Float[Tensor, " messages"],
    tolerance: float = SATURATION_TOLERANCE,
) -> Estimate:
    """What each message tells about the answer: ``log p(a | z, q) - log p(a | q)`` (V-information; PVI per sample).

    A lower bound on I(A;Z given Q), up to the gap between the null model and the true p(a given q). A term's ceiling is
    ``-log p(a | q)``, reached when the message makes the answer certain; its mean is H(A given Q) up to the same gap.
    An answer impossible with and without the message has no term.

    Args:
        answer_log_probs: log-prob of the gold answer given message and question, nats; NaN is a missing score.
        null_log_probs: log-prob of the gold answer given the question alone, nats; NaN is a missing score.
        tolerance: nats below the ceiling within which a term counts as saturated.

    Raises:
        ValueError: shapes disagree or a score is ``+inf``.
    """
    require_message_scores(answer_log_probs, null_log_probs)
    return _barber_agakov(answer_log_probs.double(), -null_log_probs.double(), tolerance)


def reconstruction(
    context_log_probs: Float[Tensor, " messages"], context_entropy: float, tolerance: float = SATURATION_TOLERANCE
) -> Estimate:
    """Lower bound ``log s(x | z, q) + H(X | Q)``: how well the context is told from the message (Barber and Agakov).

    Contexts are discrete, so ``H(X | Q)`` is every term's ceiling, reached when the message makes the context certain.
    For sources of known entropy; no command uses it, since that of real documents is unknown.

    Args:
        context_log_probs: log s(x | z, q) of each message's own context, nats; NaN is a missing score.
        context_entropy: H(X given Q), nats, a constant of the source: log N for N equally likely contexts.
        tolerance: nats below the ceiling within which a term counts as saturated.

    Raises:
        ValueError: a score is ``+inf`` or the entropy is not finite.
    """
    if not math.isfinite(context_entropy):
        raise ValueError(f"context_entropy must be finite, got {context_entropy}")
    require_message_scores(context_log_probs, context_log_probs)
    scores = context_log_probs.double()
    return _barber_agakov(scores, torch.full_like(scores, context_entropy), tolerance)


def contrastive_token_terms(
    token_log_probs: Float[Tensor, "messages contexts tokens"],
    mask: Bool[Tensor, "messages tokens"],
    own: Int[Tensor, " messages"],
    valid: Bool[Tensor, "messages contexts"] | None = None,
) -> Float[Tensor, "messages tokens"]:
    """The contrastive term of each message token by token, nats; a message's entries sum to its contrastive term.

    Token t adds ``log s(z_t | z_<t, x_i) - log sum_l w_l(t) s(z_t | z_<t, x_l)``, where w starts uniform and is updated
    by Bayes' rule: the contrastive term of the message up to t, less that up to t - 1, which is how it is computed.
    Tokens outside the mask get 0, and so do tokens after the one that made the message impossible under its own context
    and cost it ``-inf``. A message whose term is missing is NaN at each of its tokens.

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
    steps = torch.where(torch.isneginf(before), 0.0, reached - before).masked_fill(reached[:, -1:].isnan(), math.nan)
    return torch.where(mask, steps, 0.0)


def nats_to_bits(nats: Nats) -> Nats:
    """Nats to bits: a division by log 2."""
    return nats / math.log(2)


def _barber_agakov(
    log_probs: Float[Tensor, " messages"], surprisal: Float[Tensor, " messages"], tolerance: float
) -> Estimate:
    """The lower bound ``log_probs + surprisal``, nats, whose ceiling is the surprisal: reached at certainty."""
    terms = log_probs + surprisal
    # Compared on the log-prob itself: the ceiling less the term is infinity less infinity at an infinite surprisal.
    return Estimate(terms, "lower", surprisal, (-log_probs <= tolerance) & ~terms.isnan())
