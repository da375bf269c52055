"""The first sentence of the report: what it claims, and what it does not."""

from eval.report.headline import headline
from tests.records import summary


def test_shorter_denser_and_as_accurate_is_better() -> None:
    results = summary((0.8, 0.776), (-0.024, -0.06, 0.02), (4.6, 4.2, 5.0), (5.1, 4.6, 5.7))
    results["change"]["accuracy_ratio"] = {"value": 0.97, "low": 0.93, "high": 1.02}
    answer = headline(results)
    assert answer.standing == "better"
    assert answer.sentence == (
        "The adapter keeps 97% [93%, 102%] of the accuracy in 22% of the tokens [20%, 24%], "
        "at 5.1x the bits per token [4.6x, 5.7x]."
    )
    assert answer.evidence.startswith("On 40 questions about 20 documents")


def test_a_clear_rise_in_accuracy_is_named_with_both_figures() -> None:
    answer = headline(summary((0.6, 0.8), (0.2, 0.1, 0.3), (2.0, 1.8, 2.2), (2.0, 1.8, 2.2)))
    assert (
        "raises accuracy from 60.0% to 80.0% [+10.0, +30.0 points] in 50% of the tokens [45%, 56%]" in answer.sentence
    )


def test_results_without_a_ratio_of_accuracies_have_the_interval_of_the_change() -> None:
    answer = headline(summary((0.8, 0.776), (-0.024, -0.06, 0.02), (4.6, 4.2, 5.0), (5.1, 4.6, 5.7)))
    assert "keeps 97% of the accuracy [-6.0, +2.0 points] in 22%" in answer.sentence


def test_getting_worse_everywhere_is_said_first() -> None:
    answer = headline(summary((0.8, 0.4), (-0.4, -0.5, -0.3), (0.5, 0.4, 0.6), (0.5, 0.4, 0.6)))
    assert answer.standing == "worse"
    assert answer.sentence.startswith("Training made the compressor worse: it keeps 50%")
    assert "but takes 2.0x the tokens [1.7x, 2.5x], at only 0.50x the bits per token [0.40x, 0.60x]" in answer.sentence
    assert answer.evidence.startswith("What got worse: accuracy, length, bits per token.")


def test_a_gain_bought_with_a_loss_names_the_loss() -> None:
    answer = headline(summary((0.8, 0.6), (-0.2, -0.3, -0.1), (4.0, 3.5, 4.5), (4.0, 3.5, 4.5)))
    assert answer.standing == "mixed"
    assert answer.evidence.startswith("What got worse: accuracy.")


def test_intervals_that_hold_no_change_claim_nothing() -> None:
    answer = headline(summary((0.8, 0.81), (0.01, -0.1, 0.1), (1.05, 0.9, 1.2), (1.1, 0.8, 1.4)))
    assert answer.standing == "unchanged"
    assert answer.sentence.startswith(
        "Training changed nothing these questions can show: the adapter keeps the accuracy "
        "(80.0% before, 81.0% after [-10.0, +10.0 points]) in 95% of the tokens"
    )


def test_without_pairs_the_sentence_says_that_nothing_can_be_compared() -> None:
    nothing = (None, None, None)
    assert headline(summary((0.8, 0.8), nothing, nothing, nothing)).standing == "unknown"


def test_an_unmeasured_density_is_left_out_of_the_sentence() -> None:
    answer = headline(summary((0.8, 0.8), (0.0, -0.1, 0.1), (2.0, 1.8, 2.2), (None, None, None)))
    assert answer.sentence.endswith("in 50% of the tokens [45%, 56%].")


def test_an_interval_without_an_end_says_so() -> None:
    answer = headline(summary((0.8, 0.8), (0.0, None, None), (2.0, 1.8, None), (2.0, 1.8, 2.2)))
    assert "80.0% after [no interval]) in 50% of the tokens [no bound, 56%]" in answer.sentence


def test_where_nothing_has_an_accuracy_perplexity_takes_its_place() -> None:
    nothing = (None, None, None)
    results = summary((0.8, 0.8), nothing, (1.0, 0.9, 1.1), (1.0, 0.9, 1.1))
    results["overall"]["after"]["perplexity"] = {"value": 0.8, "low": 0.75, "high": 0.85}
    answer = headline(results)
    assert answer.sentence.startswith(
        "The adapter lowers the perplexity of the answers from 1.00 [0.90, 1.10] to 0.80 [0.75, 0.85]"
    )
    assert answer.standing == "better"
    results["overall"]["after"]["perplexity"] = {"value": 1.3, "low": 1.2, "high": 1.4}
    assert headline(results).evidence.startswith("What got worse: perplexity.")
