"""The first sentences of the report: what they claim, and what they do not."""

import math
from collections.abc import Sequence
from typing import Any

import pytest

from eval.analysis.density import summarise
from eval.record import Record
from eval.report.headline import headline
from tests.records import Ends, evaluation_record, summary

BIT = math.log(2)
NOTHING = (None, None, None)


def decoded(accuracy: tuple[float, float], change: Ends, tokens: tuple[float, float], bits: tuple[float, float]) -> Any:
    """Results with lengths and information of their own, and clear changes in both."""
    ratio, moved = tokens[0] / tokens[1], bits[1] - bits[0]
    made = summary(accuracy, change, (ratio, 0.9 * ratio, 1.1 * ratio), (5.0, 4.5, 5.5))
    for stage, length, information in zip(("before", "after"), tokens, bits, strict=True):
        made["overall"][stage] |= {
            "message_tokens": {"value": length, "low": length - 0.1, "high": length + 0.1},
            "information_bits": {"value": information, "low": information - 0.1, "high": information + 0.1},
            "information_ceiling_bits": {"value": 3.0, "low": None, "high": None},
        }
    made["change"] |= {
        "information_bits": {"value": moved, "low": moved - 0.05, "high": moved + 0.05},
        "information_ratio": {"value": bits[1] / bits[0], "low": None, "high": None},
    }
    return made


def test_greedy_messages_come_first_and_sampled_ones_after_them_both_with_their_information() -> None:
    sampled = decoded((0.692, 0.945), (0.253, 0.21, 0.298), (41.8, 6.76), (2.32, 2.66))
    greedy = decoded((0.968, 0.975), (0.007, -0.013, 0.022), (58.9, 6.76), (2.96, 2.76))
    answer = headline(sampled | {"greedy": greedy})
    assert answer.sentence == (
        "Greedy messages show no clear change in accuracy (96.8% before, 97.5% after [-1.3, +2.2 points]), "
        "take 6.76 tokens instead of 58.9 (8.7x fewer [7.8, 9.6]), "
        "and each passes 2.76 bits instead of 2.96 [-0.25, -0.15], of at most 3.00."
    )
    assert answer.second.startswith("Sampled messages raise accuracy from 69.2% to 94.5% [+21.0, +29.8 points], ")
    assert "2.66 bits instead of 2.32 [+0.29, +0.39], of at most 3.00" in answer.second


def test_information_that_falls_is_explained_and_counts_as_a_loss() -> None:
    answer = headline(decoded((0.968, 0.975), (0.007, -0.013, 0.022), (58.9, 6.76), (2.96, 2.76)))
    assert answer.standing == "mixed" and answer.evidence.startswith("What got worse: information.")
    assert "5.00x the bits per token are 8.71x fewer tokens times 0.93x the information" in answer.explanation
    assert "though still what the answers need; the gain is brevity alone" in answer.explanation
    risen = headline(decoded((0.968, 0.975), (0.007, -0.013, 0.022), (58.9, 6.76), (2.32, 2.66)))
    assert "brevity" not in risen.explanation and risen.standing == "better"


def test_information_that_falls_together_with_accuracy_is_not_excused() -> None:
    answer = headline(decoded((0.9, 0.5), (-0.4, -0.5, -0.3), (58.9, 6.76), (2.96, 1.0)))
    assert "still what the answers need" not in answer.explanation and "brevity alone" in answer.explanation


def never_right(tokens: Sequence[int]) -> list[Record]:
    return [
        evaluation_record(0, stage, document=f"d{number}", accuracy=0.0, message_tokens=length, answer_nll_nats=20.0)
        for stage, length in zip(("before", "after"), tokens, strict=True)
        for number in range(6)
    ]


@pytest.mark.parametrize("tokens", [(40, 40), (40, 10)])
def test_where_nothing_is_ever_right_nothing_is_kept_and_no_ratio_is_claimed(tokens: tuple[int, int]) -> None:
    results: Any = summarise(never_right(tokens))
    answer = headline(results)
    assert answer.sentence.startswith("The predictor answers nothing right before or after training: ")
    assert "its accuracy is 0.0% [0.0%, 39.0%]" in answer.sentence
    assert f"{tokens[0]}.0 tokens before and {tokens[1]}.0 after" in answer.sentence
    assert "perplexity of 22,026" in answer.sentence
    everything = answer.sentence + answer.second + answer.explanation
    assert "keep" not in everything and "fewer" not in everything and "1.0x" not in everything


def test_a_length_that_every_document_changes_alike_is_told_without_an_interval() -> None:
    answer = headline(summary((0.8, 0.8), (0.0, -0.1, 0.1), (2.0, None, None), NOTHING))
    assert "(2.0x fewer [no interval])" in answer.sentence and "no clear change in length" not in answer.sentence
    alike = headline(summary((0.8, 0.8), (0.0, -0.1, 0.1), (1.0, None, None), NOTHING))
    assert "no clear change in length" in alike.sentence


def test_one_document_has_accuracies_without_a_verdict() -> None:
    answer = headline(summary((0.5, 1.0), (0.5, None, None), (2.0, 1.8, 2.2), NOTHING))
    assert "have an accuracy of 100.0% after training and 50.0% before [no interval]" in answer.sentence


def test_shorter_denser_and_no_less_accurate_is_better() -> None:
    answer = headline(summary((0.8, 0.776), (-0.024, -0.06, 0.02), (4.6, 4.2, 5.0), (5.1, 4.6, 5.7)))
    assert answer.standing == "better"
    assert answer.sentence.startswith(
        "Messages show no clear change in accuracy (80.0% before, 77.6% after [-6.0, +2.0 points]), take "
    )
    assert "(4.6x fewer [4.2, 5.0])" in answer.sentence
    assert answer.evidence.startswith("On 40 questions about 20 documents")


def test_a_clear_rise_in_accuracy_is_named_with_both_figures() -> None:
    answer = headline(summary((0.6, 0.8), (0.2, 0.1, 0.3), (2.0, 1.8, 2.2), (2.0, 1.8, 2.2)))
    assert "raise accuracy from 60.0% to 80.0% [+10.0, +30.0 points], take " in answer.sentence


def test_getting_worse_everywhere_is_said_first() -> None:
    answer = headline(summary((0.8, 0.4), (-0.4, -0.5, -0.3), (0.5, 0.4, 0.6), (0.5, 0.4, 0.6)))
    assert answer.standing == "worse"
    assert answer.sentence.startswith("Training made the compressor worse. Messages lose accuracy, from 80.0% to 40.0%")
    assert "(2.0x more [1.7, 2.5])" in answer.sentence
    assert answer.evidence.startswith("What got worse: accuracy, length, bits per token.")


def test_a_gain_bought_with_a_loss_names_the_loss() -> None:
    answer = headline(summary((0.8, 0.6), (-0.2, -0.3, -0.1), (4.0, 3.5, 4.5), (4.0, 3.5, 4.5)))
    assert answer.standing == "mixed"
    assert answer.evidence.startswith("What got worse: accuracy.")


def test_intervals_that_hold_no_change_claim_nothing() -> None:
    answer = headline(summary((0.8, 0.81), (0.01, -0.1, 0.1), (1.05, 0.9, 1.2), (1.1, 0.8, 1.4)))
    assert answer.standing == "unchanged" and answer.explanation == ""
    assert answer.sentence.startswith(
        "Training changed nothing that these questions can show. Messages show no clear change in accuracy "
        "(80.0% before, 81.0% after [-10.0, +10.0 points]), with no clear change in length "
    )


def test_without_pairs_the_sentence_says_that_nothing_can_be_compared() -> None:
    nothing = (None, None, None)
    assert headline(summary((0.8, 0.8), nothing, nothing, nothing)).standing == "unknown"


def test_an_unmeasured_density_is_not_explained() -> None:
    results = decoded((0.8, 0.8), (0.0, -0.1, 0.1), (58.9, 6.76), (2.96, 2.76))
    results["change"]["bits_per_token_ratio"] = {"value": None, "low": None, "high": None}
    assert headline(results).explanation == ""


def test_an_interval_without_an_end_says_so() -> None:
    answer = headline(summary((0.8, 0.8), (0.0, None, None), (2.0, 1.8, None), (2.0, 1.8, 2.2)))
    assert "80.0% before [no interval], take " in answer.sentence and "fewer [1.8, no bound])" in answer.sentence


def test_where_nothing_has_an_accuracy_perplexity_takes_its_place() -> None:
    nothing = (None, None, None)
    results = summary((0.8, 0.8), nothing, (1.0, 0.9, 1.1), (1.0, 0.9, 1.1))
    results["overall"]["after"]["perplexity"] = {"value": 0.8, "low": 0.75, "high": 0.85}
    answer = headline(results)
    assert answer.sentence.startswith(
        "Messages lower the perplexity of the answers from 1.00 [0.90, 1.10] to 0.80 [0.75, 0.85]"
    )
    assert answer.standing == "better"
    results["overall"]["after"]["perplexity"] = {"value": 1.3, "low": 1.2, "high": 1.4}
    assert headline(results).evidence.startswith("What got worse: perplexity.")
