"""What messages carry: bounds on the information they pass, by sample, from the scorers' log-prob matrices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from data.sample import Sample
from eval.diagnostics import diagnose
from eval.parts import Pieces
from eval.record import InformationFields, TokenFields, finite
from models.channel import BoundScorer
from models.compressor import Message
from models.loading import context_window
from models.scorer import Scores
from objectives.mutual_information import contrastive, contrastive_token_terms, leave_one_out, nats_to_bits
from objectives.negatives import Columns


@dataclass(frozen=True)
class Measurement:
    """What the messages of some samples carry, one entry a sample.

    Attributes:
        information: bounds on the information passed, nats.
        tokens: the tokens of the message and what each adds to the lower bound, bits.
    """

    information: list[InformationFields]
    tokens: list[TokenFields]


def measure(
    scorers: Sequence[BoundScorer],
    pieces: Pieces,
    messages: Sequence[Message],
    columns: Columns,
    scored: Bool[Tensor, " pieces"] | None = None,
    skip_long_messages: bool = False,
    diagnostics: bool = False,
) -> Measurement:
    """What messages carry; None where a score is missing.

    Args:
        scorers: the first measures; a second measures the lower bound again.
        pieces: what the messages were written for.
        messages: one a piece.
        columns: the contexts that each message is compared over.
        scored: which messages are measured at all; None measures all of them.
        skip_long_messages: leave out messages that are too long to be scored beside their contexts.
        diagnostics: add the estimators of `eval.diagnostics`, by the first scorer.

    Raises:
        ModelError: a message is too long to be scored beside its contexts, and those are not left out.
    """

    def scores_of(scorer: BoundScorer) -> Scores:
        valid = columns.valid if scored is None else columns.valid & scored[:, None]
        if skip_long_messages:
            valid = valid & fits_window(scorer, pieces.samples, messages, columns)[:, None]
        return scorer.score(pieces.samples, messages, columns.contexts, valid)

    scores = scores_of(scorers[0])
    information = _bounds(scores, pieces, columns)
    for scorer in scorers[1:]:
        terms = contrastive(scores_of(scorer).log_probs, columns.own, columns.valid).terms
        for fields, nats in zip(information, pieces.totals(terms), strict=True):
            fields["second_information_nats"] = finite(nats)
    if diagnostics:
        estimates = diagnose(scorers[0], pieces, messages, columns, scores.log_probs)
        for fields, by_name in zip(information, estimates, strict=True):
            fields["diagnostics_nats"] = by_name
    return Measurement(information, _token_bits(scores, pieces, columns))


def fits_window(
    bound: BoundScorer, pieces: Sequence[Sample], messages: Sequence[Message], columns: Columns
) -> Bool[Tensor, " pieces"]:
    """Which messages the scorer's window takes beside the longest of their contexts."""
    window = context_window(bound.scorer.model.config)
    if window is None:
        return torch.ones(len(pieces), dtype=torch.bool)
    prompts = bound.scorer.prompts
    contexts = torch.tensor([len(prompts.prefix(context)[0]) for context in columns.contexts])
    rest = [
        len(prompts.suffix(piece.compressor_question))
        + (message.tokens if bound.shares_vocabulary else len(prompts.format.text_ids(message.text)) + message.ended)
        for piece, message in zip(pieces, messages, strict=True)
    ]
    return (columns.valid * contexts).amax(1) + torch.tensor(rest) <= window


def _bounds(scores: Scores, pieces: Pieces, columns: Columns) -> list[InformationFields]:
    lower = contrastive(scores.log_probs, columns.own, columns.valid)
    upper = leave_one_out(scores.log_probs, columns.own, columns.valid)
    assert lower.ceiling is not None
    lower_nats, upper_nats, ceilings = map(pieces.totals, (lower.terms, upper.terms, lower.ceiling))
    saturated = [all(reached) for reached in pieces.by_sample(lower.saturated.tolist())]
    return [
        {
            "information_nats": finite(lower_nats[number]),
            "information_upper_nats": finite(upper_nats[number]),
            "information_ceiling_nats": finite(ceilings[number]),
            "saturated": None if finite(lower_nats[number]) is None else saturated[number],
        }
        for number in range(pieces.count)
    ]


def _token_bits(scores: Scores, pieces: Pieces, columns: Columns) -> list[TokenFields]:
    terms = contrastive_token_terms(scores.token_log_probs, scores.token_mask, columns.own, columns.valid)
    fields: list[TokenFields] = []
    for rows in pieces.by_sample(range(len(pieces.samples))):
        bits = [float(nats_to_bits(nats)) for row in rows for nats in terms[row, : len(scores.token_ids[row])]]
        fields.append(
            {
                "tokens": [token for row in rows for token in scores.token_texts[row]],
                "token_bits": [round(value, 4) for value in bits] if all(map(math.isfinite, bits)) else None,
            }
        )
    return fields
