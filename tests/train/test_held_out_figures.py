"""Held-out figures against closed forms: what a message would be paid, what is best, and when a fall is one."""

import math
from typing import Any, cast

import numpy as np
import pytest

from eval.analysis.significance import SHARE, clustered_mean, standard_error
from eval.record import Record
from train.early_warning.watch import best, fallen, figures_of, mean_reward, pays_information
from train.sections.reward import RewardConfig, ScheduleConfig

BITS = math.log(2)


def record(accuracy: float | None, tokens: int, bits: float | None, document: str = "d", parts: int = 1) -> Record:
    nats = None if bits is None else bits * BITS
    fields: dict[str, Any] = {
        "task": "t",
        "document_id": document,
        "stage": "held out",
        "accuracy": accuracy,
        "message_tokens": tokens,
        "message_sentences": [1] * parts,
        "information_nats": nats,
        "information_ceiling_nats": None if bits is None else 3.0 * BITS,
        "information_upper_nats": nats,
        "saturated": None if bits is None else bits == 3.0,
        "task_information_nats": None,
        "answer_nll_nats": None,
        "answer_tokens": None,
    }
    return cast(Record, fields)


def test_a_message_is_paid_by_accuracy_information_and_length_as_they_weigh() -> None:
    reward = RewardConfig(accuracy=1.0, information=0.5, length=2.0, task_information=4.0)
    right, wrong = record(1.0, 10, 1.5), record(0.0, 2, 3.0)
    assert mean_reward([right], reward, 40) == pytest.approx(1.0 + 0.5 * 0.5 + 2.0 * 0.75)
    assert mean_reward([right, wrong], reward, 40) == pytest.approx((1.0 + 0.25 + 1.5 + 0.5) / 2)
    assert mean_reward([record(1.0, 20, 1.5, parts=2)], reward, 40) == pytest.approx(1.0 + 0.25 + 1.5)


def test_a_component_weighs_what_it_weighs_when_its_course_is_run() -> None:
    courses: Any = {"length": ScheduleConfig(to=3.0, from_step=2, to_step=4)}
    reward = RewardConfig(accuracy=1.0, information=0.0, length=1.0, schedules=courses)
    assert mean_reward([record(1.0, 10, None)], reward, 40) == pytest.approx(1.0 + 3.0 * 0.75)


def test_a_score_that_has_failed_is_left_out_and_never_zero() -> None:
    reward = RewardConfig(accuracy=1.0, information=1.0, length=0.0)
    known = record(1.0, 10, 3.0)
    assert mean_reward([known, record(1.0, 10, None)], reward, 40) == mean_reward([known], reward, 40) == 2.0
    assert mean_reward([record(1.0, 10, None)], reward, 40) is None


def test_a_question_without_a_metric_earns_by_information_alone() -> None:
    assert mean_reward([record(None, 10, 1.5)], RewardConfig(), 40) == pytest.approx(0.5)


def test_the_floor_of_the_information_is_the_rewards() -> None:
    reward = RewardConfig(accuracy=0.0, information=1.0, length=0.0, information_floor=-2.0)
    assert mean_reward([record(0.0, 5, -90.0)], reward, 40) == pytest.approx(-2.0)


@pytest.mark.parametrize(
    ("reward", "pays"),
    [
        (RewardConfig(information=0.0), False),
        (RewardConfig(information=0.5), True),
        (RewardConfig(information=0.0, token_information=1.0), True),
        (RewardConfig(information=0.0, schedules={"information": ScheduleConfig(to=1.0, to_step=2)}), True),
    ],
)
def test_information_is_measured_where_something_is_paid_for_it(reward: RewardConfig, pays: bool) -> None:
    assert pays_information(reward) == pays


def test_the_figures_are_those_of_an_evaluation_with_a_standard_error() -> None:
    records = [record(1.0, 4, 3.0, "a"), record(0.0, 8, 1.0, "a"), record(1.0, 6, 2.0, "b")]
    figures = figures_of(records, RewardConfig(), 40)
    assert figures["held_out/accuracy"] == pytest.approx(2 / 3)
    assert figures["held_out/message_tokens"] == 6 and figures["held_out/questions"] == 3
    assert figures["held_out/information_bits"] == pytest.approx(2.0)
    assert figures["held_out/information_ceiling_bits"] == pytest.approx(3.0)
    assert figures["held_out/bits_per_token"] == pytest.approx(6 / 18)
    # Residuals of the documents from 2/3: -1/3 and +1/3 over three questions; n / (n - 1) = 2.
    assert figures["held_out/accuracy_standard_error"] == pytest.approx(math.sqrt(2 * 2 / 81))


def test_the_standard_error_of_one_question_a_document_is_that_of_a_mean() -> None:
    values = np.random.default_rng(0).random(30).tolist()
    expected = np.std(values, ddof=1) / math.sqrt(30)
    assert standard_error(clustered_mean(values, range(30))) == pytest.approx(expected)


def test_the_standard_error_where_all_documents_agree_is_never_zero() -> None:
    """Wilson's bound of one standard error for n of n: 1 / (n + 1) below 1."""
    right = clustered_mean([1.0] * 9, range(9), limits=SHARE)
    assert standard_error(right) == pytest.approx(0.1)
    assert standard_error(clustered_mean([1.0] * 9, range(9))) is None
    assert standard_error(clustered_mean([1.0, 0.0], ["a", "a"], limits=SHARE)) is None


def line(step: int, accuracy: float | None, error: float | None = 0.05, reward: float | None = 1.0) -> dict[str, Any]:
    return {
        "step": step,
        "held_out/accuracy": accuracy,
        "held_out/accuracy_standard_error": error,
        "held_out/reward": reward,
    }


def test_the_best_line_is_the_later_of_equal_ones_and_never_one_without_a_figure() -> None:
    lines = [line(0, 0.5, reward=None), line(2, 0.8, reward=0.1), line(4, 0.8, reward=0.3), line(6, None, reward=0.2)]
    by_accuracy, by_reward = best(lines, "accuracy"), best(lines, "reward")
    assert by_accuracy is not None and by_accuracy["step"] == 4
    assert by_reward is not None and by_reward["step"] == 4
    assert best([line(0, None)], "accuracy") is None and best([], "reward") is None


def test_a_fall_is_told_where_it_exceeds_the_standard_error() -> None:
    earlier = [line(0, 0.5), line(2, 0.8), line(4, 0.7)]
    assert fallen(6, line(6, 0.76), earlier) is None
    # A thousandth of a billionth more is the rounding of sums.
    assert fallen(6, line(6, 0.975, error=0.025), [line(0, 1.0)]) is None and 1.0 - 0.975 > 0.025
    assert fallen(6, line(6, 0.9), earlier) is None and fallen(0, line(0, 0.0), []) is None
    assert fallen(6, line(6, 0.6, error=None), earlier) is None and fallen(6, line(6, None), earlier) is None
    assert fallen(6, line(6, 0.6), earlier) == (
        "step 6: held-out accuracy has fallen to 60.0%, 20.0 points below the 80.0% of step 2, more than its standard "
        "error of 5.0 points"
    )
