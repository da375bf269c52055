"""Bounds on information from a critic: how much likelier a message is under a context than under a prior.

The critic is ``f_jl = L[j, l] - log r(z_j | q_j)``, nats; a message's negatives stand for draws of the context that are
independent of it. Formulas: Poole et al. 2019 (TUBA), Nguyen et al. 2010 (NWJ), Donsker and Varadhan 1983,
Goodfellow et al. 2014 (Jensen-Shannon). Diagnostics: but for the last, their variance grows exponentially with the
information (McAllester and Stratos 2020), and beyond 709 nats ``exp f`` is ``inf`` and its term ``-inf``.
"""

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid

from objectives.comparison import ColumnComparison, compare_columns
from objectives.mutual_information import SATURATION_TOLERANCE, Estimate

# The arguments that all critics share; `tuba` says what they hold.
LogProbMatrix = Float[Tensor, "messages contexts"]
OwnColumns = Int[Tensor, " messages"]
MessageLogProbs = Float[Tensor, " messages"]
ColumnMask = Bool[Tensor, "messages contexts"]


def tuba(
    log_probs: LogProbMatrix, own: OwnColumns, log_prior: MessageLogProbs, valid: ColumnMask | None = None
) -> Estimate:
    """Lower bound ``1 + f_ji - mean_{l != i} exp f_jl`` for any positive r; exact at the true marginal. No ceiling.

    Scores that are missing or ``-inf`` are treated as in :func:`~objectives.mutual_information.contrastive`. A message
    impossible under the prior has no critic, and no term.

    Args:
        log_probs: the log-prob matrix, nats; NaN is a missing score.
        own: the column of each message's own context.
        log_prior: log r(z | q) of each message, nats, e.g. the scorer shown no context; NaN is a missing score.
        valid: the columns that belong to each message; None means all.

    Raises:
        ValueError: as ``contrastive``; or there is not one prior a message, or one is ``+inf``.
    """
    columns = compare_columns(log_probs, own, valid)
    return _tuba(columns, _prior(columns, log_prior))


def nwj(
    log_probs: LogProbMatrix, own: OwnColumns, log_prior: MessageLogProbs, valid: ColumnMask | None = None
) -> Estimate:
    """Lower bound ``f_ji - mean_{l != i} exp(f_jl - 1)``: TUBA with e times the prior; 1/e short at the true marginal.

    Arguments, errors and missing terms are those of :func:`tuba`.
    """
    columns = compare_columns(log_probs, own, valid)
    return _tuba(columns, _prior(columns, log_prior) + 1)


def donsker_varadhan(
    log_probs: LogProbMatrix, own: OwnColumns, log_prior: MessageLogProbs, valid: ColumnMask | None = None
) -> Estimate:
    """``mean_j f_ji - log Z`` with ``Z = mean_j mean_{l != i} exp f_jl``: a lower bound for the population's Z alone.

    A sample's log Z is too low on average, so the estimate stands on neither side. Its terms are those of TUBA with Z
    times the prior, ``f_ji - log Z + 1 - Z_j / Z``: their mean is the estimate, and their spread holds that of Z to
    first order. A message's term therefore depends on the others of its batch.

    Arguments, errors and missing terms are those of :func:`tuba`; only messages with a term enter Z. Where no message
    is possible under any negative, Z is 0 and terms are ``+inf``.
    """
    columns = compare_columns(log_probs, own, valid)
    prior = _prior(columns, log_prior)
    has_term = ~columns.missing_as_nan(columns.own_lead - prior).isnan()
    partitions = columns.log_mean_of_negatives(prior)[has_term]
    log_partition = partitions.logsumexp(dim=0) - math.log(max(len(partitions), 1))
    return replace(_tuba(columns, prior + log_partition), side="neither")


def jensen_shannon(
    log_probs: LogProbMatrix,
    own: OwnColumns,
    log_prior: MessageLogProbs,
    valid: ColumnMask | None = None,
    tolerance: float = SATURATION_TOLERANCE,
) -> Estimate:
    """Lower bound ``log 4 + log sigmoid(f_ji) + mean_{l != i} log sigmoid(-f_jl)``: loose, and low in variance.

    In expectation at most ``2 JS``, twice the Jensen-Shannon divergence between own and other pairs, which it equals at
    the true marginal, and which is at most log 2 times the information. Its ceiling is log 4.

    Arguments, errors and missing terms are those of :func:`tuba`; tolerance is nats below the ceiling within which a
    term counts as saturated.
    """
    columns = compare_columns(log_probs, own, valid)
    prior = _prior(columns, log_prior)
    of_negatives = columns.mean_of_negatives(logsigmoid(prior[:, None] - columns.lead))
    terms = columns.missing_as_nan(math.log(4) + logsigmoid(columns.own_lead - prior) + of_negatives)
    ceiling = columns.missing_as_nan(torch.full_like(terms, math.log(4)))
    return Estimate(terms, "lower", ceiling, ceiling - terms <= tolerance, columns.missing_negatives)


def _prior(columns: ColumnComparison, log_prior: MessageLogProbs) -> MessageLogProbs:
    """The prior on the scale of the columns' lead; missing where it is 0, since no critic is finite there."""
    return columns.relative(log_prior.masked_fill(torch.isneginf(log_prior), math.nan))


def _tuba(columns: ColumnComparison, log_baseline: MessageLogProbs) -> Estimate:
    """TUBA's terms with a baseline on the scale of the columns' lead, nats."""
    correction = columns.log_mean_of_negatives(log_baseline).exp()
    terms = columns.missing_as_nan(1 + columns.own_lead - log_baseline - correction)
    return Estimate.without_ceiling(terms, "lower", columns.missing_negatives)
