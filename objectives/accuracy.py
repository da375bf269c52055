"""Metrics of an answer against its gold references: one number in [0, 1], the best over the references.

Token and evidence F1 follow QASPER's official definition (Dasigi et al. 2021, with SQuAD's normalisation).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal

Metric = Callable[[str, str], float]

_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-", "−": "-"})
# The dot of ".5" is no punctuation: without it the value is another.
_EDGE_PUNCTUATION = re.compile(r"^(?:(?!\.\d)[.,;:!?\"'`*_()\[\]{}])+|[.,;:!?\"'`*_()\[\]{}]+$")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# A number does not start inside a word, behind a word's hyphen or inside another number ("FY2019", "COVID-19", "v1.5");
# its sign may stand on either side of the currency ("-$5", "$-5").
_NUMBER = re.compile(
    r"(?<!\w)(?<!\d[-.,/])(?<![^\W\d]-)(?P<sign>[-+])?(?:[$€£¥]\s*(?P<inner_sign>[-+])?)?"
    r"(?P<digits>(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?P<exponent>e[-+]?\d{1,3}(?!\d))?"
    r"(?:\s*(?P<scale>thousand|million|billion|trillion|k|mn|m|bn|b|tn)\b)?",
    re.IGNORECASE,
)
_BRACKETED = re.compile(r"\s*\((?P<inside>[^()]*)\)[\s.]*")
_SCALES = {
    "thousand": 10**3,
    "k": 10**3,
    "million": 10**6,
    "mn": 10**6,
    "m": 10**6,
    "billion": 10**9,
    "bn": 10**9,
    "b": 10**9,
    "trillion": 10**12,
    "tn": 10**12,
}


def score(metric: str, prediction: str, answers: Sequence[str]) -> float:
    """The best value of a metric over the gold answers, in [0, 1].

    Raises:
        ValueError: the metric is not in ``METRICS``, there is no gold answer, or a numeric gold answer has no number.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: choose one of {', '.join(METRICS)}")
    if not answers:
        raise ValueError(f"metric {metric!r} needs at least one gold answer, got none")
    return max(METRICS[metric](prediction, answer) for answer in answers)


def exact_match(prediction: str, answer: str) -> float:
    """1 if the two agree up to white space, case and the punctuation around words, else 0.

    What tells values apart stays: "1.5 mg" is not "15 mg", "-5" is not "5", "hepatitis A" is not "hepatitis".
    """
    if prediction.strip() == answer.strip() != "":
        return 1.0
    tokens = normalised_tokens(answer)
    return float(bool(tokens) and normalised_tokens(prediction) == tokens)


def contains(prediction: str, answer: str) -> float:
    """1 if the answer's normalised tokens occur next to each other in the prediction's, else 0."""
    words, sought = normalised_tokens(prediction), normalised_tokens(answer)
    starts = range(len(words) - len(sought) + 1)
    return float(bool(sought) and any(words[start : start + len(sought)] == sought for start in starts))


def numeric_match(prediction: str, answer: str) -> float:
    """1 if the first number of the prediction equals the answer's, else 0; a prediction without a number is 0.

    Thousands separators, currency, percent signs and units are ignored. Scale words ("million") are compared where both
    sides have one, and ignored where one side leaves it to the question ("in USD millions").

    Raises:
        ValueError: the gold answer has no number.
    """
    gold, found = first_number(answer), first_number(prediction)
    if gold is None:
        raise ValueError(f"numeric gold answer {answer!r} has no number")
    if found is None:
        return 0.0
    (gold_value, gold_scale), (value, scale) = gold, found
    if gold_scale is None or scale is None:
        return float(value == gold_value)
    return float(value * scale == gold_value * gold_scale)


def qasper_f1(prediction: str, answer: str) -> float:
    """Harmonic mean of token precision and recall under SQuAD normalisation; empty against anything is 0."""
    predicted, gold = squad_tokens(prediction), squad_tokens(answer)
    return _f1(sum((Counter(predicted) & Counter(gold)).values()), len(predicted), len(gold))


def evidence_f1(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """QASPER's paragraph F1 of the evidence, the best over the references; nothing against nothing is 1.

    Raises:
        ValueError: there is no reference.
    """
    if not references:
        raise ValueError("evidence F1 needs at least one reference, got none")
    return max(_evidence_f1(predicted, reference) for reference in references)


def normalised_tokens(text: str) -> list[str]:
    """Case-folded words without the punctuation around them; typographic quotes and dashes read as plain ones."""
    words = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).casefold().split()
    return [bare for word in words if (bare := _EDGE_PUNCTUATION.sub("", word))]


def squad_tokens(text: str) -> list[str]:
    """Words under SQuAD's normalisation: lower case, no ASCII punctuation, no articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_DROP_PUNCTUATION)).split()


def first_number(text: str) -> tuple[Decimal, int | None] | None:
    """The first number of a text and the factor of the scale word behind it (None without one); None if no number.

    A text that is nothing but a number in brackets is negative, as in accounts: "(1,234)".
    """
    plain = text.translate(_TYPOGRAPHY)
    bracketed = _BRACKETED.fullmatch(plain)
    match = _NUMBER.search(bracketed["inside"] if bracketed else plain)
    if match is None:
        return None
    value = Decimal(match["digits"].replace(",", "") + (match["exponent"] or ""))
    negative = bracketed is not None or "-" in (match["sign"], match["inner_sign"])
    return -value if negative else value, _SCALES[match["scale"].lower()] if match["scale"] else None


def _evidence_f1(predicted: Sequence[str], reference: Sequence[str]) -> float:
    if not predicted and not reference:
        return 1.0
    return _f1(len(set(predicted) & set(reference)), len(predicted), len(reference))


def _f1(common: int, n_predicted: int, n_gold: int) -> float:
    if common == 0:
        return 0.0
    precision, recall = common / n_predicted, common / n_gold
    return 2 * precision * recall / (precision + recall)


METRICS: dict[str, Metric] = {
    "multiple_choice": exact_match,
    "numeric": numeric_match,
    "qasper_f1": qasper_f1,
    "exact": exact_match,
    "contains": contains,
}
