"""What a right answer depends on most: logistic regression of correctness on the compressor's and the predictor's kind.

Accuracies between 0 and 1, as of token F1, make it a fractional logit (Papke and Wooldridge 1996): the same quasi-
likelihood, whose covariance has to be robust. It is, and clustered by document (Liang and Zeger 1986), since many
questions and every compressor share a document. Fitted by statsmodels.

Intervals speak about other documents. The models under test are taken as they are: few families or sizes say little
about the next.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import statsmodels.api as sm
from jaxtyping import Float
from scipy.optimize import linprog
from scipy.stats import f as f_distribution
from scipy.stats import t as t_distribution

from eval.analysis.significance import Interval
from eval.record import SweepRecord, cluster

# Factor by record field. Sizes enter as binary logarithms of parameters, so that a unit is a doubling.
SIZES = {"compressor_size": "compressor_parameters", "predictor_size": "predictor_parameters"}
LEVELS = {"compressor_family": "compressor_family", "predictor_family": "predictor_family", "task": "task"}
MATCHING = "matching_families"
"""Whether compressor and predictor are of one family."""

FACTORS = ("compressor_family", "compressor_size", "predictor_size")
"""What the study ranks (He et al., arXiv 2512.21720: in this order, and matching families brings nothing)."""

KNOWN_FACTORS = ("compressor_family", "compressor_size", "predictor_family", "predictor_size", MATCHING)


@dataclass(frozen=True)
class Coefficient:
    """One column of the regression.

    Attributes:
        factor: the factor it belongs to.
        level: what is compared with the reference; ``doubling`` for a size.
        reference: the level of odds ratio 1, the factor's first by name; empty for a size.
        log_odds: change in log-odds (nats) against the reference, or by doubling the parameters, with 95% interval.
        odds_ratio: its exponential.
        standardised: log-odds by one standard deviation of the column over the records.
        p_value: probability under no change, two-sided, by Student's t with one degree of freedom less than there are
            documents.
    """

    factor: str
    level: str
    reference: str
    log_odds: Interval
    odds_ratio: Interval
    standardised: float
    p_value: float

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``results.json``."""
        return vars(self) | {"log_odds": self.log_odds.as_dict(), "odds_ratio": self.odds_ratio.as_dict()}


@dataclass(frozen=True)
class Factor:
    """All columns of one factor together.

    Attributes:
        name: in `KNOWN_FACTORS`.
        rank: 1 is the factor there is most evidence for: that of the smallest ``p_value``.
        wald: Wald's statistic, b' V^-1 b of its coefficients b, with their clustered covariance V.
        degrees_of_freedom: how many coefficients.
        p_value: probability of Wald's statistic, as an F.
        effect: standard deviation over the records of what the factor adds to the log-odds. For a size it is the
            standardised coefficient without its sign; it compares families with sizes.
    """

    name: str
    rank: int
    wald: float
    degrees_of_freedom: int
    p_value: float
    effect: float

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``results.json``."""
        return dict(vars(self))


@dataclass(frozen=True)
class Regression:
    """A fitted regression, or none, and the sentence that says what was fitted or why nothing was.

    Attributes:
        statement: one line.
        factors: in the order of their rank; empty where nothing was fitted.
        coefficients: the coefficients of the factors; not those of the intercept and the tasks, which are held fixed.
        n: records fitted.
        documents: clusters.
        missing: records left out because they lack the accuracy or a factor.
        constant: factors that were asked for and left out because they do not vary (or no record has them).
        tasks_left_out: tasks whose answers all are right or all wrong, which say nothing about the factors.
    """

    statement: str
    factors: list[Factor] = field(default_factory=list)
    coefficients: list[Coefficient] = field(default_factory=list)
    n: int = 0
    documents: int = 0
    missing: int = 0
    constant: list[str] = field(default_factory=list)
    tasks_left_out: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The form it has in ``results.json``."""
        return vars(self) | {
            "factors": [factor.as_dict() for factor in self.factors],
            "coefficients": [coefficient.as_dict() for coefficient in self.coefficients],
        }


class _Column(NamedTuple):
    """A column of the design: its factor, the level it stands for and that it is compared with, and its values."""

    factor: str
    level: str
    reference: str
    values: Float[np.ndarray, " records"]


def regress(records: Sequence[SweepRecord], factors: Sequence[str] = FACTORS, level: float = 0.95) -> Regression:
    """Rank what correctness depends on.

    Args:
        records: one an answer, with ``accuracy`` in [0, 1], ``task``, ``document_id``, ``compressor_family``,
            ``compressor_parameters``, ``predictor_family`` and ``predictor_parameters``; None where unknown.
        factors: names in `KNOWN_FACTORS`; tasks are held fixed whatever they are.
        level: confidence of the intervals.

    Returns:
        The regression; without factors, and with the reason as its statement, where none vary, where they cannot be
        told apart, where a factor separates right answers from wrong ones (its odds ratio has no finite value), or
        where there are too few documents for the covariance.

    Raises:
        ValueError: an unknown factor, or an accuracy outside [0, 1].
    """
    if unknown := [name for name in factors if name not in KNOWN_FACTORS]:
        raise ValueError(f"no factor {unknown[0]!r}: there are {', '.join(KNOWN_FACTORS)}")
    known = [name for name in factors if any(_value(record, name) is not None for record in records)]
    complete = [record for record in records if _accuracy(record) is not None and _has_all(record, known)]
    usable, tasks_left_out = _informative_tasks(complete)
    columns = [column for name in known for column in _columns(usable, name)]
    named = list(dict.fromkeys(column.factor for column in columns))
    documents = len({cluster(record) for record in usable})
    left_out = {
        "missing": len(records) - len(complete),
        "constant": [name for name in factors if name not in named],
        "tasks_left_out": tasks_left_out,
    }
    design = [*columns, *_columns(usable, "task")]
    if reason := _refusal(usable, columns, design, documents, tasks_left_out):
        return Regression(f"No regression: {reason}.", n=len(usable), documents=documents, **left_out)
    fitted, wide = _fit(usable, columns, design, level)
    statement = (
        f"Fitted to {len(usable):,} answers on {documents:,} documents; by evidence: "
        f"{' > '.join(factor.name for factor in fitted)}."
    )
    return Regression(statement, fitted, wide, len(usable), documents, **left_out)


def _accuracy(record: SweepRecord) -> float | None:
    value = record["accuracy"]
    if value is None or not math.isfinite(value):
        return None
    if not 0 <= value <= 1:
        raise ValueError(f"accuracy {value} is outside [0, 1], and has no odds")
    return float(value)


def _value(record: SweepRecord, factor: str) -> str | float | None:
    """What a record says about a factor: a level, or a size in doublings."""
    if factor == MATCHING:
        families = record["compressor_family"], record["predictor_family"]
        return None if None in families else ("same" if families[0] == families[1] else "different")
    if factor in SIZES:
        parameters = record[SIZES[factor]]
        return math.log2(parameters) if parameters else None
    return record[LEVELS[factor]]


def _has_all(record: SweepRecord, factors: Sequence[str]) -> bool:
    return all(_value(record, factor) is not None for factor in factors)


def _informative_tasks(records: Sequence[SweepRecord]) -> tuple[list[SweepRecord], list[str]]:
    """The records of tasks with right and wrong answers, and the names of the other tasks.

    Held fixed, the odds of a task without both are infinite, and its records have no weight in the other coefficients.
    """
    by_task: dict[str, list[SweepRecord]] = {}
    for record in records:
        by_task.setdefault(record["task"], []).append(record)
    dull = sorted(task for task, group in by_task.items() if {_accuracy(record) for record in group} in ({0.0}, {1.0}))
    return [record for record in records if record["task"] not in dull], dull


def _columns(records: Sequence[SweepRecord], factor: str) -> list[_Column]:
    """A factor's columns; none where it does not vary. A size is centred, which moves the intercept alone."""
    values = [_value(record, factor) for record in records]
    levels = sorted(set(values), key=lambda value: (str(type(value)), value))
    if len(levels) < 2:
        return []
    if factor in SIZES:
        sizes = np.array(values, dtype=float)
        return [_Column(factor, "doubling", "", sizes - sizes.mean())]
    reference, *others = map(str, levels)
    return [_Column(factor, other, reference, np.array([float(str(v) == other) for v in values])) for other in others]


def _refusal(
    records: Sequence[SweepRecord],
    columns: Sequence[_Column],
    design: Sequence[_Column],
    documents: int,
    tasks_left_out: Sequence[str],
) -> str:
    """Why there can be no regression; empty where there can."""
    if not records:
        return (
            "all answers are right or all are wrong in every task" if tasks_left_out else "no record has what it needs"
        )
    if not columns:
        return "no factor varies between the records"
    if documents <= len(design) + 1:
        return f"{documents} documents are too few for {len(design) + 1} coefficients with clustered errors"
    matrix = _matrix(design, len(records))
    if factor := _dependent(matrix, design):
        return f"{factor} follows from the other factors in these records, so they cannot be told apart"
    if factor := _separating(matrix, design, np.array([_accuracy(record) for record in records], dtype=float)):
        return f"{factor} separates right answers from wrong ones, so its odds ratio has no finite value"
    return ""


def _matrix(design: Sequence[_Column], records: int) -> Float[np.ndarray, "records coefficients"]:
    return np.column_stack([np.ones(records), *(column.values for column in design)])


def _dependent(matrix: Float[np.ndarray, "records coefficients"], design: Sequence[_Column]) -> str:
    """The first factor with a column that the ones before it already make up; empty where there is none."""
    for width in range(2, matrix.shape[1] + 1):
        if np.linalg.matrix_rank(matrix[:, :width]) < width:
            return design[width - 2].factor
    return ""


def _separating(
    matrix: Float[np.ndarray, "records coefficients"],
    design: Sequence[_Column],
    accuracy: Float[np.ndarray, " records"],
) -> str:
    """Factors along which right answers lie on one side and wrong ones on the other, completely or nearly.

    The maximum of the likelihood is finite unless some b has x'b >= 0 for every right answer, <= 0 for every wrong one
    (= 0 for one in between) and not 0 for all (Albert and Anderson 1984). A linear program finds it (Konis 2007).
    """
    cells, place = np.unique(matrix, axis=0, return_inverse=True)
    shares = np.bincount(place.ravel(), accuracy) / np.bincount(place.ravel())
    right, wrong = cells[shares == 1], cells[shares == 0]
    mixed = cells[(shares > 0) & (shares < 1)]
    signed = np.concatenate([right, -wrong])
    if not len(signed):
        return ""
    found = linprog(
        -signed.sum(axis=0),
        A_ub=-signed,
        b_ub=np.zeros(len(signed)),
        A_eq=mixed if len(mixed) else None,
        b_eq=np.zeros(len(mixed)) if len(mixed) else None,
        bounds=(-1, 1),
    )
    if found.fun > -1e-6:
        return ""
    guilty = [column.factor for column, b in zip(design, found.x[1:], strict=True) if abs(b) > 1e-6]
    return " and ".join(dict.fromkeys(guilty))


def _fit(
    records: Sequence[SweepRecord], columns: Sequence[_Column], design: Sequence[_Column], level: float
) -> tuple[list[Factor], list[Coefficient]]:
    """The factors in the order of their rank, and the coefficients."""
    index = {document: number for number, document in enumerate(dict.fromkeys(map(cluster, records)))}
    model = sm.GLM(
        np.array([_accuracy(record) for record in records], dtype=float),
        _matrix(design, len(records)),
        family=sm.families.Binomial(),
    )
    groups = np.array([index[cluster(record)] for record in records])
    result: Any = model.fit(cov_type="cluster", cov_kwds={"groups": groups})
    slopes, covariance = result.params[1:], result.cov_params()[1:, 1:]
    errors, freedom = np.sqrt(covariance.diagonal()), len(index) - 1
    coefficients = [
        _coefficient(column, float(slope), float(error), freedom, level)
        for column, slope, error in zip(columns, slopes, errors, strict=False)
    ]
    return _ranked(columns, slopes, covariance, freedom), coefficients


def _ranked(
    columns: Sequence[_Column],
    slopes: Float[np.ndarray, " coefficients"],
    covariance: Float[np.ndarray, "coefficients coefficients"],
    freedom: int,
) -> list[Factor]:
    """The factors by their evidence; where probabilities are too small to tell apart, by Wald's statistic."""
    found = []
    for name in dict.fromkeys(column.factor for column in columns):
        places = [place for place, column in enumerate(columns) if column.factor == name]
        b = slopes[places]
        wald = float(b @ np.linalg.solve(covariance[np.ix_(places, places)], b))
        p_value = float(f_distribution.sf(wald / len(places), len(places), freedom))
        effect = sum(slopes[place] * columns[place].values for place in places)
        found.append(Factor(name, 0, wald, len(places), p_value, float(np.std(effect))))
    found.sort(key=lambda factor: (factor.p_value, -factor.wald / factor.degrees_of_freedom))
    return [replace(factor, rank=rank) for rank, factor in enumerate(found, start=1)]


def _coefficient(column: _Column, slope: float, error: float, freedom: int, level: float) -> Coefficient:
    width = error * float(t_distribution.ppf(0.5 + level / 2, freedom))
    ends = (slope, slope - width, slope + width)
    return Coefficient(
        column.factor,
        column.level,
        column.reference,
        Interval(*map(float, ends)),
        Interval(*(float(np.exp(end)) for end in ends)),
        float(slope * column.values.std()),
        float(2 * t_distribution.sf(abs(slope) / error, freedom)),
    )
