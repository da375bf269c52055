"""Correlations against scipy's, against resampled copies spelt out, and against known truth."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from eval.analysis.correlation import MEASURES, METHODS, correlation, correlations, pearson, spearman
from eval.analysis.significance import Bootstrap
from eval.record import Record
from tests.records import changed, evaluation_record


def made(x: float, y: float, document: int, **fields: Any) -> Record:
    """A record of ``x`` nats of information and accuracy ``y``."""
    measured: dict[str, Any] = {"information_nats": x, "task_information_nats": x, "accuracy": y, "message_tokens": 4}
    gold = {"answer_nll_nats": 2.0, "answer_tokens": 2}
    return evaluation_record(document=str(document), **{"task": "t", **measured, **gold, **fields})


def normal_pairs(generator: np.random.Generator, documents: int, questions: int, rho: float) -> list[Record]:
    """Pairs of correlation ``rho``, half of whose variance the questions of a document share."""
    covariance = [[1, rho], [rho, 1]]
    shared = generator.multivariate_normal([0, 0], covariance, documents)
    own = generator.multivariate_normal([0, 0], covariance, (documents, questions))
    pairs = (shared[:, None] + own) / math.sqrt(2)
    return [made(float(x), float(y), index) for index, group in enumerate(pairs) for x, y in group]


def test_both_coefficients_over_samples_are_scipys() -> None:
    records = normal_pairs(np.random.default_rng(0), 20, 3, -0.6)
    records = [changed(record, accuracy=round(record["accuracy"] or 0.0)) for record in records]
    x, y = ([record[name] for record in records] for name in ("information_nats", "accuracy"))
    for method, reference in zip(METHODS, (stats.pearsonr, stats.spearmanr), strict=True):
        found = correlation(records, "information_bits", "accuracy", method, bootstrap=Bootstrap(50))
        assert found.coefficient.value == pytest.approx(reference(x, y)[0], abs=1e-12)


@pytest.mark.parametrize(
    ("coefficient", "reference"), [(pearson, stats.pearsonr), (spearman, stats.spearmanr)], ids=["pearson", "spearman"]
)
def test_a_point_of_weight_w_counts_as_w_points(
    coefficient: Callable[..., float], reference: Callable[..., tuple[float, float]]
) -> None:
    generator = np.random.default_rng(1)
    x, y = generator.integers(0, 6, 30).astype(float), generator.normal(size=30)
    weights = generator.integers(0, 4, 30)
    expected = reference(np.repeat(x, weights), np.repeat(y, weights))[0]
    assert coefficient(x, y, weights.astype(float)) == pytest.approx(expected, abs=1e-12)


def test_perplexity_is_the_exponential_of_the_mean_over_an_answers_tokens() -> None:
    records = [made(float(i), 1.0, i, answer_nll_nats=3.0 * i * i, answer_tokens=3) for i in range(6)]
    found = correlation(records, "information_bits", "perplexity", "pearson", bootstrap=Bootstrap(50))
    expected = stats.pearsonr(np.arange(6), np.exp(np.arange(6) ** 2))[0]
    assert found.coefficient.value == pytest.approx(expected)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    hits = []
    for draw in range(200):
        records = normal_pairs(generator, 30, 3, 0.6)
        found = correlation(
            records, "information_bits", "accuracy", "pearson", bootstrap=Bootstrap(300, draw)
        ).coefficient
        assert found.low is not None and found.high is not None
        hits.append(found.low <= 0.6 <= found.high)
    assert 0.91 <= np.mean(hits) <= 0.99


def test_the_interval_widens_where_questions_share_a_document() -> None:
    records = [record for record in normal_pairs(np.random.default_rng(3), 60, 1, 0.5) for _ in range(4)]
    apart = [changed(record, document_id=str(index)) for index, record in enumerate(records)]

    def width(chosen: list[Record]) -> float:
        found = correlation(chosen, "information_bits", "accuracy", "spearman", bootstrap=Bootstrap(500)).coefficient
        assert found.low is not None and found.high is not None
        return found.high - found.low

    # Four copies of a question are four times the sample, and half the width, to one who takes them for independent.
    assert width(records) == pytest.approx(2 * width(apart), rel=0.25)


def test_documents_of_two_tasks_with_one_id_are_two() -> None:
    records = [made(float(i), float(i % 2), 0, task=f"t{i}") for i in range(4)]
    assert correlation(records, "information_bits", "accuracy", "pearson", bootstrap=Bootstrap(50)).documents == 4


def test_missing_scores_are_left_out_and_counted() -> None:
    records = normal_pairs(np.random.default_rng(4), 10, 2, 0.5)
    lost = [made(1.0, 1.0, 0, information_nats=missing) for missing in (None, math.nan)]
    found = correlation([*records, *lost], "information_bits", "accuracy", "pearson", bootstrap=Bootstrap(50))
    assert (found.n, found.missing, found.documents) == (20, 2, 10)
    assert (
        found.coefficient
        == correlation(records, "information_bits", "accuracy", "pearson", bootstrap=Bootstrap(50)).coefficient
    )


def test_where_every_score_is_missing_there_is_no_coefficient() -> None:
    records = [made(1.0, 1.0, 0, answer_nll_nats=None, answer_tokens=None)]
    for by in ((), ("task",)):
        found = correlation(records, "information_bits", "perplexity", "pearson", by)
        assert found.coefficient.value is None and (found.n, found.missing) == (0, 1)


def test_what_never_varies_correlates_with_nothing() -> None:
    records = [made(float(i), 0.1, i) for i in range(8)]
    for method in ("pearson", "spearman"):
        found = correlation(records, "information_bits", "accuracy", method, bootstrap=Bootstrap(50))
        assert found.coefficient.value is None


def test_one_document_has_a_coefficient_and_no_interval() -> None:
    records = [made(float(i), float(i**2), 0) for i in range(5)]
    found = correlation(records, "information_bits", "accuracy", "spearman", bootstrap=Bootstrap(50)).coefficient
    assert (found.value, found.low, found.high) == (1.0, None, None)


def test_over_cells_each_compressor_and_task_is_one_point_made_of_ratios_of_sums() -> None:
    generator = np.random.default_rng(5)
    records, x, y = [], [], []
    for compressor in range(3):
        for task in ("a", "b"):
            bits = generator.normal(compressor, 1, 8)
            nll, tokens = generator.uniform(1, 4, 8), generator.integers(1, 5, 8)
            cell = {"compressor": compressor, "task": task}
            records += [
                made(float(b), 1.0, i, answer_nll_nats=float(n), answer_tokens=int(t)) | cell
                for i, (b, n, t) in enumerate(zip(bits, nll, tokens, strict=True))
            ]
            x.append(bits.mean())
            y.append(math.exp(nll.sum() / tokens.sum()))
    for method, reference in zip(METHODS, (stats.pearsonr, stats.spearmanr), strict=True):
        found = correlation(
            records, "information_bits", "perplexity", method, ("compressor", "task"), bootstrap=Bootstrap(50)
        )
        assert found.coefficient.value == pytest.approx(reference(x, y)[0])
        assert (found.n, found.documents, found.over) == (6, 16, "compressor, task")


def test_the_interval_over_cells_tightens_as_the_cells_get_more_documents() -> None:
    def width(documents: int) -> float:
        generator = np.random.default_rng(6)
        records = [
            made(float(cell + generator.normal(0, 4)), float(cell + generator.normal(0, 4)), document, compressor=cell)
            for document in range(documents)
            for cell in range(5)
        ]
        found = correlation(
            records, "information_bits", "accuracy", "pearson", ("compressor",), Bootstrap(400)
        ).coefficient
        assert found.low is not None and found.high is not None
        assert found.low <= 1.0
        return found.high - found.low

    assert width(800) < 0.3 * width(20)


def test_every_pair_comes_by_both_methods_in_the_form_of_the_report() -> None:
    found = correlations(normal_pairs(np.random.default_rng(7), 10, 2, 0.5), bootstrap=Bootstrap(50))
    assert [(c.x, c.y, c.method) for c in found] == [
        ("information_bits", "perplexity", "pearson"),
        ("information_bits", "perplexity", "spearman"),
        ("information_bits", "accuracy", "pearson"),
        ("information_bits", "accuracy", "spearman"),
    ]
    assert found[2].as_dict()["coefficient"] == found[2].coefficient.as_dict()
    assert {"x", "y", "method", "coefficient", "n"} <= found[2].as_dict().keys()


def test_an_unknown_measure_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=f"no measure 'speed': there are {MEASURES[0]}"):
        correlation([made(1.0, 1.0, 0)], "speed", "accuracy", "pearson")


def test_cells_by_a_field_that_records_lack_are_refused() -> None:
    with pytest.raises(ValueError, match="cells by 'seed' need that field"):
        correlations([made(1.0, 1.0, 0)], by=("seed", "task"))
