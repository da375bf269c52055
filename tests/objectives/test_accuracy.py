"""Metrics against hand-computed values and against what QASPER's official evaluator prints over real papers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from objectives.accuracy import (
    METRICS,
    chosen_option,
    qasper_f1,
    score,
)

QASPER = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "qasper"
OPTIONS = ("Metformin", "Insulin, 5 mg", "Hepatitis A", "E. coli infection", "None of these")

Reference = tuple[str, str, list[str]]
Rule = Callable[[str, list[Reference]], tuple[str, list[str]] | None]


@pytest.mark.parametrize("metric", ["multiple_choice", "exact"])
@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("  Chronic\u00a0 lymphocytic leukemia. ", "chronic lymphocytic leukemia", 1.0),
        ("**Metformin**", "Metformin", 1.0),
        ("“Patient’s choice”", '"patient\'s choice"', 1.0),
        ("1.5 mg", "15 mg", 0.0),
        ("0.5 mg", "5 mg", 0.0),
        (".5 mg", "5 mg", 0.0),
        ("-5", "5", 0.0),
        ("<5 mg", ">5 mg", 0.0),
        ("hepatitis A", "hepatitis", 0.0),
        ("10² cells", "102 cells", 0.0),
        ("Metformin and insulin", "Metformin", 0.0),
        ("", "Metformin", 0.0),
        ("...", "?!", 0.0),
        ("?", "?", 1.0),
        ("", "", 0.0),
    ],
)
def test_exact_match_ignores_form_and_keeps_values_apart(
    metric: str, prediction: str, answer: str, expected: float
) -> None:
    assert score(metric, prediction, [answer]) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("$1,577 million", "$1577.00", 1.0),
        ("The total was $1,577.00.", "1577", 1.0),
        ("65.4 %", "65.4%", 1.0),
        ("about 65.4 percent", "65.4%", 1.0),
        ("65.40", "65.4%", 1.0),
        ("65.41", "65.4%", 0.0),
        ("5mg twice daily", "5", 1.0),
        ("$8.7 billion", "$8,700 million", 1.0),
        ("$8.7 billion", "$8.7 million", 0.0),
        ("$8.7 billion", "8.7", 1.0),
        ("-$0.02", "-0.02", 1.0),
        ("$-0.02", "-0.02", 1.0),
        ("−0.02", "-0.02", 1.0),
        ("(3.7)", "-3.7", 1.0),
        ("It grew (3.7%)", "3.7", 1.0),
        ("0.02", "-0.02", 0.0),
        (".5", "0.5", 1.0),
        ("1.5e3", "1500", 1.0),
        ("In FY2019 COVID-19 cost 500", "500", 1.0),
        ("v1.5 took 7 days", "7", 1.0),
        ("between 10-20", "10", 1.0),
        ("no idea", "5", 0.0),
        ("", "5", 0.0),
        ("5 then 6", "6", 0.0),
        ("9" * 5000, "9", 0.0),
        ("1e999999999 million", "1e3 million", 0.0),
        ("12,3456", "12", 1.0),
    ],
)
def test_numeric_compares_the_first_number(prediction: str, answer: str, expected: float) -> None:
    assert score("numeric", prediction, [answer]) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("He was given Metformin, 500 mg, daily.", "metformin, 500 mg", 1.0),
        ("He was given metformins", "metformin", 0.0),
        ("1.5 mg", "5 mg", 0.0),
        ("500 mg of metformin", "metformin 500 mg", 0.0),
        ("anything", "", 0.0),
        ("", "metformin", 0.0),
    ],
)
def test_contains_looks_for_whole_neighbouring_tokens(prediction: str, answer: str, expected: float) -> None:
    assert score("contains", prediction, [answer]) == expected


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("the cat sat", "a cat sat down", 0.8),
        ("Yes", "yes.", 1.0),
        ("cat cat", "cat", 2 / 3),
        ("dog", "cat", 0.0),
        ("", "cat", 0.0),
        ("cat", "", 0.0),
        ("", "", 0.0),
        ("the", "a", 0.0),
        ("F1-score", "f1 score", 0.0),
    ],
)
def test_token_f1_matches_values_worked_out_by_hand(prediction: str, answer: str, expected: float) -> None:
    assert qasper_f1(prediction, answer) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_takes_the_best_reference_and_stays_in_bounds(metric: str) -> None:
    assert score(metric, "answer 42", ["answer 7", "answer 42"]) == 1.0
    assert score(metric, "answer 42", ["answer 42", "answer 7"]) == 1.0
    assert 0.0 <= score(metric, "no such thing", ["answer 7"]) < 1.0


def test_scoring_without_a_known_metric_or_a_usable_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown metric 'rouge': choose one of multiple_choice, numeric"):
        score("rouge", "x", ["x"])
    with pytest.raises(ValueError, match="at least one gold answer"):
        score("exact", "x", [])
    with pytest.raises(ValueError, match="numeric gold answer 'n/a' has no number"):
        score("numeric", "5", ["n/a"])


RULES: dict[str, Rule] = {
    "first_reference": lambda question, references: (references[0][0], references[0][2]),
    "always_unanswerable": lambda question, references: ("Unanswerable", []),
    "always_yes": lambda question, references: ("Yes", []),
    "question_words_as_answer": lambda question, references: (question, []),
    "last_reference_text_evidence_only": lambda question, references: (references[-1][0], references[-1][2]),
    "empty_predictions_file": lambda question, references: None,
    # The last reference followed by a word that no reference has; the first paragraph of its evidence.
    "last_reference_answer_with_first_para": lambda question, references: (
        f"{references[-1][0]} indeed",
        references[-1][2][:1],
    ),
}


def reference_of(annotation: dict[str, Any], text_evidence_only: bool) -> Reference:
    evidence = [text for text in annotation["evidence"] if not (text_evidence_only and "FLOAT SELECTED" in text)]
    if annotation["unanswerable"]:
        return "Unanswerable", "none", evidence
    if annotation["extractive_spans"]:
        return ", ".join(annotation["extractive_spans"]), "extractive", evidence
    if annotation["free_form_answer"]:
        return annotation["free_form_answer"], "abstractive", evidence
    return "Yes" if annotation["yes_no"] else "No", "boolean", evidence


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def evidence_f1(predicted: list[str], gold: list[str]) -> float:
    """QASPER's paragraph F1, which no answer of ours is measured by; nothing against nothing is 1."""
    common = len(set(predicted) & set(gold))
    return 2 * common / (len(predicted) + len(gold)) if predicted or gold else 1.0


def evaluated(questions: list[tuple[str, list[Reference]]], rule: Rule) -> dict[str, Any]:
    """What the official evaluator prints: the type of an answer is that of the first reference it scores best on."""
    answers, evidence, missing = [], [], 0
    by_type: dict[str, list[float]] = {"extractive": [], "abstractive": [], "boolean": [], "none": []}
    for question, references in questions:
        predicted = rule(question, references)
        if predicted is None:
            missing += 1
        answer, paragraphs = predicted or ("", [])
        best, kind = max(((qasper_f1(answer, text), kind) for text, kind, _ in references), key=lambda pair: pair[0])
        answers.append(best)
        best_evidence = max(evidence_f1(paragraphs, gold) for _, _, gold in references)
        evidence.append(0.0 if predicted is None else best_evidence)
        if predicted is not None:
            by_type[kind].append(best)
    return {
        "Answer F1": mean(answers),
        "Answer F1 by type": {kind: mean(values) for kind, values in by_type.items()},
        "Evidence F1": mean(evidence),
        "Missing predictions": missing,
    }


@pytest.mark.skipif(not QASPER.is_dir(), reason="the published QASPER papers are not beside the project")
@pytest.mark.parametrize("name", RULES)
def test_f1_over_real_papers_is_what_the_official_evaluator_prints(name: str) -> None:
    papers = json.loads((QASPER / "qasper-train-first10.official-layout.json").read_text())
    expected = json.loads((QASPER / "official_evaluator_expected.json").read_text())["results"]
    assert set(expected) == set(RULES)
    questions = [
        (entry["question"], [reference_of(given["answer"], "text_evidence" in name) for given in entry["answers"]])
        for paper in papers.values()
        for entry in paper["qas"]
    ]
    printed = evaluated(questions, RULES[name])
    assert printed.pop("Answer F1 by type") == pytest.approx(expected[name].pop("Answer F1 by type"), abs=1e-9)
    assert printed == pytest.approx(expected[name], abs=1e-9)


@pytest.mark.parametrize(
    ("prediction", "index"),
    [
        ("Insulin, 5 mg", 1),
        (" insulin, 5 MG.\n", 1),
        ("**Metformin**", 0),
        ("A", 0),
        ("b", 1),
        ("(c)", 2),
        ("C)", 2),
        ("C.", 2),
        ("d:", 3),
        ("Answer: B", 1),
        ("**Answer:** B", 1),
        ("Option E", 4),
        ("The answer is hepatitis A", 2),
        ("The correct answer is C: Hepatitis A.", 2),
        ("The correct answer is C: the liver's inflammation.", 2),
        ("B Insulin, 5 mg", 1),
        ("B\n\nInsulin is in the record.", 1),
        ("Metformin\nIt is in the record.", 0),
        ("The record names a bacterium.\nSo the answer is D.", 3),
        ("E. coli infection", 3),
    ],
)
def test_an_option_is_chosen_by_its_text_or_its_letter(prediction: str, index: int) -> None:
    assert chosen_option(prediction, OPTIONS) == OPTIONS[index]


@pytest.mark.parametrize(
    "prediction",
    [
        "",
        " \n",
        "F",
        "Z)",
        "I do not know",
        "A patient with diabetes",
        "A or B",
        "A) or B)",
        "A, B",
        "A: Insulin, 5 mg",
        "E. coli",
        "Metformin is wrong",
        "Not insulin, 5 mg",
        "Hepatitis",
        "The answer is",
    ],
)
def test_what_names_no_option_or_two_is_none_and_never_the_first(prediction: str) -> None:
    assert chosen_option(prediction, OPTIONS) == ""
    assert score("multiple_choice", prediction, ["Metformin"], OPTIONS) == 0.0


def test_every_option_is_chosen_by_its_own_text_and_letter() -> None:
    for index, option in enumerate(OPTIONS):
        assert chosen_option(option, OPTIONS) == chosen_option(chr(ord("A") + index), OPTIONS) == option
        assert score("multiple_choice", f"({chr(ord('a') + index)}) {option}", [option], OPTIONS) == 1.0


DISHES = ("Rice", "Beans", "Lentils")


@pytest.mark.parametrize(
    ("prediction", "option"),
    [
        ("B, Beans", "Beans"),
        ("B; Beans", "Beans"),
        ("B (Beans)", "Beans"),
        ("(B), Beans", "Beans"),
        ("B = Beans", "Beans"),
        ("B \u2013 Beans", "Beans"),
        ("B, since the note says so", "Beans"),
        ("B because it is named", "Beans"),
        ("I believe that it is B", "Beans"),
        ("I'd say B.", "Beans"),
        ("We would choose option (b)", "Beans"),
        ("In my opinion, the answer should be B", "Beans"),
        ("Most likely C", "Lentils"),
        ("It's lentils.", "Lentils"),
        ("My answer: **A**", "Rice"),
        ("I think the right option is:\nC", "Lentils"),
        # Another's text, two letters, a denial, or no letter at all.
        ("B, Rice", ""),
        ("A, B", ""),
        ("(A), (B)", ""),
        ("A, B and C", ""),
        ("B, C", ""),
        ("I think it is not B", ""),
        ("I don't think it is B", ""),
        ("It is unlikely B", ""),
        ("A dish of beans", ""),
        ("I think it is a dish", ""),
        ("D, Bread", ""),
        ("I, too, wonder", ""),
    ],
)
def test_an_option_is_named_in_the_words_of_an_answer(prediction: str, option: str) -> None:
    assert chosen_option(prediction, DISHES) == option
