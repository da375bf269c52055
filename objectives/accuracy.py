"""Metrics of an answer against its gold references: one number in [0, 1], the best over the references.

Token F1 follows QASPER's official definition (Dasigi et al. 2021, with SQuAD's normalisation). FinanceBench (Islam et
al. 2023) is judged by people; its matcher decides what a number or a yes or no decides. Only the standard library is
imported, so that tasks and configurations can name a metric without loading anything heavy.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

Metric = Callable[[str, str], float]
"""The value of a prediction against one gold answer, in [0, 1]."""

_TYPOGRAPHY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "‐": "-", "‑": "-", "–": "-", "−": "-"})
# The dot of ".5" is no punctuation: without it the value would be 5.
_EDGE_PUNCTUATION = re.compile(r"^(?:(?!\.\d)[.,;:!?\"'`*_()\[\]{}])+|[.,;:!?\"'`*_()\[\]{}]+$")
_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")
# A number does not start inside a word, after a word's hyphen or inside another number ("FY2019", "COVID-19", "v1.5");
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
# Words that may precede an option, in any number: "So the correct answer is:", "I think it is", "Probably".
_ANSWER_WORDS = re.compile(
    r"\A\s*(?:(?:so|therefore|thus|hence|overall|in (?:my (?:opinion|view)|conclusion|short)"
    r"|(?:most )?(?:probably|likely|certainly|definitely|clearly)"
    r"|(?:i|we) (?:think|believe|guess|suppose|conclude|am (?:sure|certain|confident))(?: that)?"
    r"|(?:i|we)(?: would|'d| will|'ll)? (?:choose|pick|select|take|say|answer|go (?:with|for))"
    r"|(?:it|this|that)(?: (?:is|must be|should be|would be|has to be)|'s)"
    r"|(?:(?:the|my) )?(?:(?:correct|right|best|final|(?:most )?likely) )?(?:answer|option|choice)"
    r"(?: (?:is|must be|should be|would be))?)(?!\w)[,:]?\s*)+",
    re.IGNORECASE,
)
# An option's letter in brackets, or followed by a mark, a reason or the end of a line; the "E." of "E. coli" is none.
_LABEL = re.compile(
    r"\s*(?:\((?P<inside>[a-z])\)\s*[,;:]?|(?P<bare>[a-z])(?:\s*[):,;=]|\.(?!\s?(?-i:[a-z]))|\s+[-–—]\s|\s+(?=\()"
    r"|\s+(?=(?:because|since)\b)|[^\S\n]*(?=\n|\Z)))\s*(?P<rest>.*)",
    re.IGNORECASE,
)
# What follows the letter of an answer that names a second option: "A or B", "A, B".
_ANOTHER_LABEL = re.compile(r"(?i:or|and)\b|[&/]|\(?[A-Z]\)?\s*(?:[,;:)&/]|\.(?!\s?[a-z])|(?:or|and)\b|\Z)")
# A yes or no that begins a text; "no evidence" and its like take no stance.
_STANCE = re.compile(
    r"\W*(?P<stance>yes|no)\b(?!\s+(?:answer|data|details?|evidence|indication|information|mention)\b)", re.IGNORECASE
)
_PURE_NUMBER = re.compile(r"\(?[-+]?\s*[$€£¥]?\s*[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)\s*%?\)?")
_CURRENCY = re.compile(r"[$€£¥]")
_PERCENT = re.compile(r"\s*(?:%|per\s?cent|percentage points?)", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d")
# The company 3M, whose name reads like three million.
_NUMBER_NAMES = re.compile(r"\b3M\b")
# What makes the number after it negative: a bracket at the start or after a currency, as in accounts, or a word.
_NEGATES = re.compile(r"(?:^\s*|[$€£¥]\s*)\($|\b(?:minus|negative)\s+$", re.IGNORECASE)
RELATIVE_ROUNDING = Decimal("0.005")
"""How far a number may be from FinanceBench's, as a share of it, where rounding to its decimals does not meet it.

Rounding to three significant digits moves no number by more. Of the 104 numeric answers in the published labels, 99 are
then decided as people decided them; up to 1% decides the same, 2% accepts two more that people refused.
"""

AnswerKind = Literal["numeric", "stance", "open"]
"""What a gold answer of FinanceBench is judged by: see ``answer_kind``."""


@dataclass(frozen=True)
class Quantity:
    """A number as a text states it.

    Attributes:
        value: as written, with its sign.
        scale: the factor of the scale word after it, None without one.
        percent: whether a percent sign or word follows it.
        currency: whether a currency sign precedes it.
    """

    value: Decimal
    scale: int | None
    percent: bool
    currency: bool


def score(metric: str, prediction: str, answers: Sequence[str], options: Sequence[str] = ()) -> float:
    """The best value of a metric over the gold answers, in [0, 1].

    Args:
        metric: a key of ``METRICS``.
        prediction: what the predictor answered.
        answers: gold references.
        options: those of a multiple-choice question; the prediction is then read as one of them, see ``chosen_option``.

    Raises:
        ValueError: the metric is not in ``METRICS``, there is no gold answer, or a numeric gold answer has no number.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}: choose one of {', '.join(METRICS)}")
    if not answers:
        raise ValueError(f"metric {metric!r} needs at least one gold answer, got none")
    if options:
        prediction = chosen_option(prediction, options)
    return max(METRICS[metric](prediction, answer) for answer in answers)


def chosen_option(prediction: str, options: Sequence[str]) -> str:
    """The option a prediction names, word for word; empty where it names none or contradicts itself.

    The whole prediction, its first line and its last are read in turn. An option is named by its text ("Metformin") or
    by its letter in the order of the options ("B", "(b)", "B) ...", "B: ..."), with or without words like "The correct
    answer is" before it. A letter with the text of another option names none.
    """
    lines = [line for line in prediction.splitlines() if line.strip(" *_`")]
    for passage in (prediction, *lines[:1], *lines[-1:]):
        plain = passage.replace("*", "").replace("`", "")
        if option := _option_text(plain, options) or _named_option(_ANSWER_WORDS.sub("", plain, count=1), options):
            return option
    return ""


def exact_match(prediction: str, answer: str) -> float:
    """1 if the two agree up to white space, case and the punctuation around words, else 0.

    What tells values apart counts: "1.5 mg" is not "15 mg", "-5" is not "5", "hepatitis A" is not "hepatitis".
    """
    if prediction.strip() == answer.strip() != "":
        return 1.0
    tokens = normalised_tokens(answer)
    return float(bool(tokens) and normalised_tokens(prediction) == tokens)


def contains(prediction: str, answer: str) -> float:
    """1 if the answer's normalised tokens occur next to each other in the prediction's, else 0."""
    words, gold = normalised_tokens(prediction), normalised_tokens(answer)
    starts = range(len(words) - len(gold) + 1)
    return float(bool(gold) and any(words[start : start + len(gold)] == gold for start in starts))


def numeric_match(prediction: str, answer: str) -> float:
    """1 if the first number of the prediction equals the answer's, else 0; a prediction without a number is 0.

    Thousands separators, currency, percent signs and units are ignored. Scale words ("million") are compared where both
    sides have one, and ignored where one side leaves it to the question ("in USD millions").

    Raises:
        ValueError: the gold answer has no number.
    """
    gold, stated = first_number(answer), first_number(prediction)
    if gold is None:
        raise ValueError(f"numeric gold answer {answer!r} has no number")
    if stated is None:
        return 0.0
    (gold_value, gold_scale), (value, scale) = gold, stated
    if gold_scale is None or scale is None:
        return float(value == gold_value)
    return float(value * scale == gold_value * gold_scale)


def qasper_f1(prediction: str, answer: str) -> float:
    """Harmonic mean of token precision and recall under SQuAD normalisation; empty against anything is 0."""
    predicted, gold = squad_tokens(prediction), squad_tokens(answer)
    common = sum((Counter(predicted) & Counter(gold)).values())
    if common == 0:
        return 0.0
    precision, recall = common / len(predicted), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def financebench_match(prediction: str, answer: str) -> float:
    """1 where ``financebench_verdict`` is correct, else 0: what it cannot decide counts as wrong."""
    return float(financebench_verdict(prediction, answer) is True)


def financebench_verdict(prediction: str, answer: str) -> bool | None:
    """Whether a prediction is correct by its number or its yes or no; None where neither decides.

    Against a purely numeric answer, the first or the last number of the prediction has to be the same quantity (see
    ``same_quantity``; the last, since a prediction may derive its answer; years count only where there is no other
    number). Against an answer that begins with yes or no, the prediction has to begin with the same one. Any other
    answer is decided only by a prediction of the same words, which is correct.
    """
    kind = answer_kind(answer)
    if kind == "open":
        return True if exact_match(prediction, answer) else None
    if kind == "stance":
        stance, gold_stance = _STANCE.match(prediction), _STANCE.match(answer)
        return stance["stance"].lower() == gold_stance["stance"].lower() if stance and gold_stance else None
    (gold,) = quantities(answer)
    stated = quantities(prediction)
    if not stated:
        # "There were none" is no number and may still be right.
        return None if gold.value == 0 else False
    return any(same_quantity(quantity, gold) for quantity in (stated[0], stated[-1]))


def answer_kind(answer: str) -> AnswerKind:
    """What decides whether a prediction meets a gold answer.

    A number where the answer is nothing else (sign, currency and percent sign apart), a stance where it begins with yes
    or no; any other answer is open.
    """
    if _PURE_NUMBER.fullmatch(answer.translate(_TYPOGRAPHY).strip()):
        return "numeric"
    return "stance" if _STANCE.match(answer) else "open"


def same_quantity(stated: Quantity, gold: Quantity) -> bool:
    """Whether a number is the gold one, up to its unit and rounding.

    The two may differ by half a unit of the gold number's last decimal (trailing zeros apart) or by a share of
    ``RELATIVE_ROUNDING``. A fraction may stand for a percentage and the reverse; an amount of money may be stated in
    full, in thousands, millions or billions. Signs must agree.
    """
    exponent = gold.value.normalize().as_tuple().exponent
    decimals = -min(exponent, 0) if isinstance(exponent, int) else 0
    half_a_unit = Decimal(5).scaleb(-decimals - 1)
    allowed = max(half_a_unit, abs(gold.value) * RELATIVE_ROUNDING) if gold.value else Decimal(0)
    return any(abs(value - gold.value) <= allowed and value * gold.value >= 0 for value in _in_units_of(gold, stated))


def quantities(text: str) -> list[Quantity]:
    """The numbers of a text, in order; without bare years, unless there is no other number."""
    plain = _NUMBER_NAMES.sub("", text.translate(_TYPOGRAPHY))
    numbers = [(match, _quantity(match, plain)) for match in _NUMBER.finditer(plain)]
    no_years = [number for match, number in numbers if not _YEAR.fullmatch(match.group().strip()) or number.percent]
    return no_years or [number for _, number in numbers]


def normalised_tokens(text: str) -> list[str]:
    """Case-folded words without the punctuation around them; typographic quotes and dashes read as plain ones."""
    words = unicodedata.normalize("NFC", text).translate(_TYPOGRAPHY).casefold().split()
    return [bare for word in words if (bare := _EDGE_PUNCTUATION.sub("", word))]


def squad_tokens(text: str) -> list[str]:
    """Words under SQuAD's normalisation: lower case, no ASCII punctuation, no articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_DROP_PUNCTUATION)).split()


def first_number(text: str) -> tuple[Decimal, int | None] | None:
    """The first number of a text and the factor of the scale word after it (None without one); None if no number.

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


def _option_text(text: str, options: Sequence[str]) -> str:
    """The option that a text consists of; empty where it is none."""
    return next((option for option in options if exact_match(text, option)), "")


def _named_option(text: str, options: Sequence[str]) -> str:
    """The option that a text opens with, by its text or its letter; empty where it names none, or two."""
    label = _LABEL.match(text)
    if label is None:
        return _option_text(text, options) or _lettered_text(text, options)
    index = ord((label["inside"] or label["bare"]).lower()) - ord("a")
    named = _option_text(label["rest"], options)
    if index >= len(options):
        return ""
    # An option's own text may look like a second letter.
    if named != options[index] and (named or _ANOTHER_LABEL.match(label["rest"])):
        return ""
    return options[index]


def _lettered_text(text: str, options: Sequence[str]) -> str:
    """The option in "B Metformin": a letter without a mark may be a word, so the option's text has to follow."""
    letter, _, rest = text.strip().partition(" ")
    option = _option_text(rest, options)
    return option if option and letter.lower() == chr(ord("a") + list(options).index(option)) else ""


def _quantity(match: re.Match[str], text: str) -> Quantity:
    """The number of a match in a text, with what stands around it."""
    value = Decimal(match["digits"].replace(",", "") + (match["exponent"] or ""))
    negative = "-" in (match["sign"], match["inner_sign"]) or _NEGATES.search(text[: match.start()]) is not None
    return Quantity(
        value=-value if negative else value,
        scale=_SCALES[match["scale"].lower()] if match["scale"] else None,
        percent=_PERCENT.match(text, match.end()) is not None,
        currency=_CURRENCY.search(match.group()) is not None,
    )


def _in_units_of(gold: Quantity, stated: Quantity) -> list[Decimal]:
    """The value of a stated number in each unit that the question may have named for the gold one.

    An amount written out in full may be asked for in millions ("in USD millions: 415"), with or without the currency's
    sign in the gold answer. Without one, the gold answer may also be a ratio, which is below ten.
    """
    if gold.percent:
        return [stated.value] if stated.percent else [stated.value, stated.value * 100]
    if stated.percent:
        return [stated.value / 100]
    in_full = stated.scale is not None or abs(stated.value) >= 1000
    amount_of_no_currency = abs(gold.value) >= 10 and (stated.currency or abs(stated.value) >= 10**6)
    if not (in_full and (gold.currency or amount_of_no_currency)):
        return [stated.value]
    amount = stated.value * (stated.scale or 1)
    return [stated.value, *(amount / unit for unit in (10**3, 10**6, 10**9))]


METRICS: dict[str, Metric] = {
    "multiple_choice": exact_match,
    "numeric": numeric_match,
    "qasper_f1": qasper_f1,
    "exact": exact_match,
    "contains": contains,
    "financebench": financebench_match,
}
"""The metrics by the names that tasks give them."""
