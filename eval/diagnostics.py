"""Further estimators of the information passed, on the log-prob matrices of the evaluation: diagnostics.

They cost one column more, the scorer shown no context, whose log-probability is the prior r(z given q) of each message;
the critic of a message under a context is ``L - log r``. Formulas stand with each estimator in
`objectives.mutual_information` and `objectives.critics`. A bound is on its side of the truth in expectation, and only
where negatives are drawn independently of the context: twins with changed facts are not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from eval.analysis.significance import clustered_mean, interval
from eval.parts import Pieces
from eval.record import Record, cluster, finite
from models.channel import BoundScorer
from models.compressor import Message
from models.scorer import NO_CONTEXT
from objectives.critics import donsker_varadhan, jensen_shannon, nwj, tuba
from objectives.mutual_information import (
    Estimate,
    Side,
    club,
    interpolated,
    nats_to_bits,
    rate_against_prior,
)
from objectives.negatives import Columns

ALPHA = 0.01
"""The weight of the contrastive baseline in I_alpha: its ceiling is log2(1 / 0.01) = 6.6 bits above the contrastive."""

Matrix = Float[Tensor, "messages contexts"]
Prior = Float[Tensor, " messages"]


@dataclass(frozen=True)
class Diagnostic:
    """An estimator beside the two that every evaluation reports.

    Attributes:
        label: what tables call it.
        side: the side of the truth that its mean stands on.
        estimate: the estimate from the log-prob matrix, the prior of each message (nats) and the columns.
    """

    label: str
    side: Side
    estimate: Callable[[Matrix, Prior, Columns], Estimate]


DIAGNOSTICS: dict[str, Diagnostic] = {
    "prior_rate": Diagnostic(
        "Rate against the prior",
        "upper",
        lambda matrix, prior, columns: rate_against_prior(matrix.gather(1, columns.own[:, None])[:, 0], prior),
    ),
    "club": Diagnostic("CLUB", "upper", lambda matrix, prior, columns: club(matrix, columns.own, columns.valid)),
    "interpolated": Diagnostic(
        f"I_alpha, alpha {ALPHA}",
        "lower",
        lambda matrix, prior, columns: interpolated(matrix, columns.own, prior, ALPHA, columns.valid),
    ),
    "jensen_shannon": Diagnostic(
        "Jensen-Shannon",
        "lower",
        lambda matrix, prior, columns: jensen_shannon(matrix, columns.own, prior, columns.valid),
    ),
    "tuba": Diagnostic("TUBA", "lower", lambda matrix, prior, columns: tuba(matrix, columns.own, prior, columns.valid)),
    "nwj": Diagnostic("NWJ", "lower", lambda matrix, prior, columns: nwj(matrix, columns.own, prior, columns.valid)),
    "donsker_varadhan": Diagnostic(
        "Donsker-Varadhan",
        "neither",
        lambda matrix, prior, columns: donsker_varadhan(matrix, columns.own, prior, columns.valid),
    ),
}
"""The diagnostics by their keys in records and results."""


class DiagnosticFigure(TypedDict):
    """The mean of a diagnostic over records."""

    side: Side
    """The side of the truth that it stands on."""

    value: float | None
    """The mean in bits. None where no record has a finite term."""

    low: float | None
    """The lower end of the 95% interval by document, in bits. None where it has none."""

    high: float | None
    """The upper end of the 95% interval by document, in bits. None where it has none."""

    missing: int
    """Records without a finite term: a score is missing, or an exponential of the critic overflows."""


def diagnose(
    scorer: BoundScorer, pieces: Pieces, messages: Sequence[Message], columns: Columns, matrix: Matrix
) -> list[dict[str, float | None]]:
    """Every diagnostic of each sample's message, nats; None where its term is missing or infinite.

    The message is scored once more, without any context. Donsker and Varadhan's partition is taken over the messages
    passed together: those of one batch.

    Args:
        scorer: what filled the matrix.
        pieces: what the messages were written for.
        messages: one a piece.
        columns: the contexts that each message is compared over.
        matrix: log-probabilities of the messages under those contexts, nats.
    """
    alone = torch.ones(len(messages), 1, dtype=torch.bool)
    prior = scorer.score(pieces.samples, messages, [NO_CONTEXT], alone).log_probs[:, 0]
    totals = {
        name: pieces.totals(diagnostic.estimate(matrix, prior, columns).terms)
        for name, diagnostic in DIAGNOSTICS.items()
    }
    return [{name: finite(nats[number]) for name, nats in totals.items()} for number in range(pieces.count)]


def summarise_diagnostics(records: Sequence[Record]) -> dict[str, dict[str, DiagnosticFigure]]:
    """The diagnostics of every stage by their keys, in bits, over the records that have them; empty where none has."""
    stages = dict.fromkeys(record["stage"] for record in records if "diagnostics_nats" in record)
    return {
        stage: {name: _figure([r for r in records if r["stage"] == stage], name) for name in DIAGNOSTICS}
        for stage in stages
    }


def _figure(records: Sequence[Record], name: str) -> DiagnosticFigure:
    nats = [record.get("diagnostics_nats", {}).get(name) for record in records]
    bits = [None if value is None else nats_to_bits(value) for value in nats]
    mean = interval(clustered_mean(bits, [cluster(record) for record in records]))
    missing = sum(value is None for value in nats)
    return {
        "side": DIAGNOSTICS[name].side,
        "value": mean.value,
        "low": mean.low,
        "high": mean.high,
        "missing": missing,
    }
