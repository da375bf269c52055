"""The matcher of FinanceBench's answers, against hand-made cases and against people's verdicts on published answers."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from objectives.accuracy import answer_kind, financebench_match, financebench_verdict, quantities, score

FINANCEBENCH = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "financebench"


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        # The unit is left to the question: millions, billions, written out.
        ("$1,577 million", "$1577.00", True),
        ("1577", "$1577.00", True),
        ("$1.577 billion", "$1577.00", True),
        ("$1,577,000,000", "$1577.00", True),
        ("1,577,000 thousand", "$1577.00", True),
        ("$1,677 million", "$1577.00", False),
        ("$15.77 million", "$1577.00", False),
        ("$8.738 billion", "$8.70", True),
        ("$8,738 million", "$8.70", True),
        ("$8.8 billion", "$8.70", False),
        ("$389 million", "$0.40", True),
        ("389", "$0.40", False),
        # The same where the answer has no currency's sign: in millions, in billions, in thousands.
        ("Receivables were $231,818,000 at year's end.", "232", True),
        ("It paid $58,437,000 in dividends, in USD millions.", "58", True),
        ("Revenue came to $12.4 billion.", "12400", True),
        ("Revenue came to $12.4 million.", "12400", True),
        ("The number of shares was 231,818,000", "232", True),
        ("Receivables were $251,818,000.", "232", False),
        ("Receivables were $231,818.", "415", False),
        ("It is $1,730,000,000.", "1.73", False),
        ("66,000 units", "66%", False),
        # Percentages and fractions.
        ("1.9%", "1.9%", True),
        ("1.9", "1.9%", True),
        ("0.019", "1.9%", True),
        ("1.9 percent", "1.9%", True),
        ("0.019%", "1.9%", False),
        ("190%", "1.9%", False),
        ("66%", "0.66", True),
        ("0.66%", "0.66", False),
        ("66", "0.66", False),
        # Rounding: to the answer's decimals, trailing zeros apart, or by half a per cent.
        ("0.8", "0.8", True),
        ("0.7982", "0.8", True),
        ("0.75", "0.8", True),
        ("0.74", "0.8", False),
        ("93.9", "93.86", True),
        ("94", "93.86", True),
        ("97.97", "93.86", False),
        ("101.4%", "101.5%", True),
        ("0.0153", "0.02", True),
        ("7", "0.01", False),
        ("0", "0.01", False),
        # Signs.
        ("-3.7", "-3.7", True),
        ("(3.7)", "-3.7", True),
        ("(3.7) days", "-3.7", True),
        ("minus 3.7 days", "-3.7", True),
        ("negative 3.7", "-3.7", True),
        ("\u22123.7", "-3.7", True),
        ("3.7", "-3.7", False),
        ("-$5,466 million", "$5466.00", False),
        ("$(5,466) million", "$5466.00", False),
        ("It fell (by 5,466)", "$5466.00", True),
        ("-0.004", "0.01", False),
        # Which number: the first or the last, years and the company's name apart.
        ("The FY2018 capital expenditure of 3M in 2018 is $1,577 million.", "$1577.00", True),
        ("1,577 in 2018", "$1577.00", True),
        ("1001 / 578 = 1.73", "1.73", True),
        ("0.68 (5,121.3 / 7,491.5)", "0.68", True),
        ("1.1, 1.73, 2.2", "1.73", False),
        ("2018", "$2018.00", True),
        # Nothing and none.
        ("0", "0", True),
        ("0.4", "0", False),
        ("500", "0", False),
        ("There were none.", "0", None),
        ("I cannot tell", "0.66", False),
        ("", "0.66", False),
        # Yes and no.
        ("Yes", "Yes, there was a decline of 42%.", True),
        ("yes, it did", "Yes", True),
        ("**No**, it did not.", "No. It fell.", True),
        ("No, it rose by 42%.", "Yes, there was a decline of 42%.", False),
        ("No information is given.", "No. It fell.", None),
        ("Nothing fell.", "No. It fell.", None),
        ("It fell.", "No. It fell.", None),
        ("Answer yes", "Yes", None),
        ("", "Yes", None),
        # Open answers.
        ("data center.", "Data Center", True),
        ("The gaming segment", "Data Center", None),
        ("Sales rose by 3%", "Sales grew by 3%", None),
    ],
)
def test_financebench_is_decided_by_number_and_stance(prediction: str, answer: str, expected: bool | None) -> None:
    assert financebench_verdict(prediction, answer) is expected
    assert (
        financebench_match(prediction, answer) == score("financebench", prediction, [answer]) == float(bool(expected))
    )


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("$1577.00", "numeric"),
        ("-0.02", "numeric"),
        ("(3.7)", "numeric"),
        ("65.4%", "numeric"),
        ("$ 12,645", "numeric"),
        (".5", "numeric"),
        ("0", "numeric"),
        ("$400,000,000 increase.", "open"),
        ("3 stores", "open"),
        ("Yes", "stance"),
        ("No the margins declined", "stance"),
        ("Northern America", "open"),
        ("There are none", "open"),
        ("", "open"),
    ],
)
def test_the_kind_of_an_answer_is_read_off_its_form(answer: str, kind: str) -> None:
    assert answer_kind(answer) == kind


def test_quantities_carry_their_unit_and_leave_out_years() -> None:
    numbers = [
        (str(number.value), number.scale, number.percent, number.currency)
        for number in quantities("In 2018 and FY2019, 3M spent $1.5 billion, -4 % or (2.0).")
    ]
    assert numbers == [("1.5", 10**9, False, True), ("-4", None, True, False), ("2.0", None, False, False)]
    assert [str(number.value) for number in quantities("2018")] == ["2018"]


@pytest.mark.skipif(not FINANCEBENCH.is_dir(), reason="the published FinanceBench labels are not beside the project")
def test_the_matcher_agrees_with_people_on_published_answers_of_two_models() -> None:
    questions = [
        json.loads(line) for line in (FINANCEBENCH / "financebench_open_source.jsonl").read_text().splitlines()
    ]
    answers = {question["financebench_id"]: question["answer"] for question in questions}
    decided: Counter[tuple[str, bool]] = Counter()
    for file in sorted((FINANCEBENCH / "human_labels").glob("*.jsonl.gz")):
        for row in map(json.loads, gzip.decompress(file.read_bytes()).decode().splitlines()):
            answer = answers[row["financebench_id"]]
            verdict = financebench_verdict(row["model_answer"], answer)
            if verdict is not None:
                decided[answer_kind(answer), verdict == (row["label"] == "Correct Answer")] += 1
    assert decided["numeric", True] + decided["numeric", False] == 2 * 52
    assert decided["numeric", True] >= 99
    assert decided["stance", True] >= 16 and decided["stance", False] <= 1
