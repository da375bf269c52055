"""How far a judge agrees with human labels: shares and Cohen's kappa, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from eval.analysis.significance import BOOTSTRAP, Bootstrap, Estimate, Interval, interval
from eval.judge.judge import VERDICTS, Verdict
from eval.judge.labels import HumanLabel


@dataclass(frozen=True)
class Agreement:
    """How far a judge agrees with people.

    Attributes:
        kappa: 1 is full agreement, 0 what chance alone brings; None where it is undefined.
        interval: the 95% interval over documents.
        n: answers both judged.
        undecided: answers the judge gave no verdict on; they are in nothing else here.
    """

    kappa: float | None
    interval: Interval
    n: int
    undecided: int


def agreement(
    verdicts: Sequence[Verdict | bool | None],
    labels: Sequence[HumanLabel],
    bootstrap: Bootstrap = BOOTSTRAP,
) -> Agreement:
    """Cohen's kappa between a judge and people.

    Args:
        verdicts: the judge's verdicts, in the order of the labels; True and False only say whether an answer is
            correct, and are compared with that; None is undecided.
        labels: the labels that people gave.
        bootstrap: how documents are resampled.

    Raises:
        ValueError: not one verdict for each label, no verdict that can be one, or verdicts of both kinds.
    """
    if len(verdicts) != len(labels):
        raise ValueError(f"{len(verdicts)} verdicts for {len(labels)} labels: one for each is needed")
    pairs = zip(verdicts, labels, strict=True)
    decided: list[tuple[Verdict | bool, HumanLabel]] = [(said, label) for said, label in pairs if said is not None]
    undecided = len(labels) - len(decided)
    if not decided:
        return Agreement(None, Interval(None, None, None), 0, undecided)
    found = interval(_estimate(_tables(decided), bootstrap))
    return Agreement(found.value, found, len(decided), undecided)


def _tables(
    decided: Sequence[tuple[Verdict | bool, HumanLabel]],
) -> Float[np.ndarray, "documents outcomes outcomes"]:
    """The confusion table of each document, judge by people."""
    binary = {isinstance(verdict, bool) for verdict, _ in decided}
    if len(binary) > 1:
        raise ValueError("verdicts are either outcomes or true and false, not both")
    outcomes: tuple[Verdict | bool, ...] = (True, False) if binary == {True} else VERDICTS
    documents = sorted({label.document for _, label in decided})
    tables = np.zeros((len(documents), len(outcomes), len(outcomes)))
    for verdict, label in decided:
        if verdict not in outcomes:
            raise ValueError(f"verdict {verdict!r} of {label.id} should be one of {', '.join(VERDICTS)}")
        human = label.verdict == "correct" if binary == {True} else label.verdict
        tables[documents.index(label.document), outcomes.index(verdict), outcomes.index(human)] += 1
    return tables


def cohen_kappa(table: Float[np.ndarray, "*batch outcomes outcomes"]) -> Float[np.ndarray, "*batch"]:
    """Cohen's kappa of confusion tables: (observed - expected) / (1 - expected) agreement.

    Args:
        table: counts, one rater by the other.

    Returns:
        One for each table; nan where it is empty, or where both raters gave one and the same outcome alone.
    """
    total = table.sum(axis=(-2, -1))
    with np.errstate(divide="ignore", invalid="ignore"):
        observed = np.trace(table, axis1=-2, axis2=-1) / total
        expected = (table.sum(axis=-1) * table.sum(axis=-2)).sum(axis=-1) / total**2
        return (observed - expected) / (1 - expected)


def _estimate(tables: Float[np.ndarray, "documents outcomes outcomes"], bootstrap: Bootstrap) -> Estimate:
    counts = bootstrap.counts(len(tables))
    value = float(cohen_kappa(tables.sum(axis=0)))
    draws = cohen_kappa(np.tensordot(counts, tables, axes=1))
    return Estimate(value, draws, kappa_influence(tables), len(tables))


def kappa_influence(tables: Float[np.ndarray, "documents outcomes outcomes"]) -> Float[np.ndarray, " documents"]:
    """The derivative of kappa in each document's weight; nan where kappa is undefined."""
    whole, size = tables.sum(axis=0), tables.sum(axis=(1, 2))
    total = size.sum()
    rows, columns = whole.sum(axis=1) / total, whole.sum(axis=0) / total
    observed, expected = np.trace(whole) / total, rows @ columns
    by_observed = (np.trace(tables, axis1=1, axis2=2) - observed * size) / total
    by_expected = (tables.sum(axis=2) @ columns + tables.sum(axis=1) @ rows - 2 * expected * size) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        return by_observed / (1 - expected) - by_expected * (1 - observed) / (1 - expected) ** 2
