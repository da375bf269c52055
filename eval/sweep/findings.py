"""The study's findings beside a sweep's: what was found there, what is found here, and whether the two agree.

Every verdict follows from an interval. A direction is established where the whole interval lies on one side of no
effect; else it cannot be told, and it is said whether an effect of the study's size is left out.
"""

from dataclasses import dataclass
from typing import Any, Literal

from eval.report.formats import figure_text, number, percent, points
from eval.report.results import Figure
from eval.sweep.results import Results

Verdict = Literal["agrees", "disagrees", "cannot be told", "not measured"]

# He et al., arXiv 2512.21720: Qwen-2.5 1.5B -> 7B on LongHealth, predictors 70B -> 405B, FineWeb's extractive questions
STUDY_ACCURACY_RATIO = 1.6
STUDY_TOKENS_RATIO = 4.6
STUDY_DENSITY_RATIO = 5.4
STUDY_CORRELATION = -0.84
STUDY_PREDICTOR_MARGIN = 1.12
"""Within 12% on LongHealth, within 1% on FinanceBench."""
STUDY_ORDER = ("compressor_family", "compressor_size", "predictor_size")

HARDLY_MORE = 1.1
"""FLOPs per generation up to here count as the study's +1.3%."""
NOTHING = 1.25
"""Odds ratios between its inverse and it count as nothing."""
SIGNIFICANT = 0.05

SEES_NOTHING = "the scorer finds no information in anybody's messages: it may not know such documents; choose another"
"""Why nothing is said of information where the bound is 0 everywhere."""


@dataclass(frozen=True)
class Finding:
    """One question of the study's.

    Attributes:
        question: what is asked.
        study: what it found, and where.
        here: the sweep's figure in words.
        verdict: whether the two agree.
        why: what about the interval says so.
    """

    question: str
    study: str
    here: str
    verdict: Verdict
    why: str

    def as_dict(self) -> dict[str, str]:
        """The form it has in ``sweep.json``."""
        return dict(vars(self))


def findings(results: Results) -> list[Finding]:
    """All of them, from what `eval.sweep.results.summarise` returns."""
    return [
        _compressor_pays(results),
        _predictor_pays(results),
        _pays_more(results),
        _shorter(results),
        _denser(results),
        _cheaper(results),
        _perplexity(results),
        _ranking(results),
        _matching(results),
        _sentences(results),
    ]


def scorer_sees_nothing(results: Results) -> bool:
    """Whether information was measured, and the messages of no compressor have any on average, by the first scorer.

    A bound of 0 on messages that are answered from says something of the scorer, and nothing of who wrote them.
    """
    bits = [cell["information_bits"]["value"] for cell in results["messages"] if cell["task"] is None]
    measured = [value for value in bits if value is not None]
    return bool(measured) and max(measured) <= 0


def direction(figure: Figure, study: float | None, neutral: float, sign: int = 1) -> tuple[Verdict, str]:
    """Whether an effect goes the study's way.

    Args:
        figure: a figure with its interval.
        study: the study's figure on the same scale; None where it gives none.
        neutral: the value of no effect.
        sign: 1 where the study's effect lies above it, -1 where below.
    """
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return "cannot be told", "there is no interval"
    nearest, farthest = sorted((sign * low, sign * high))
    ahead, behind = ("above", "below") if sign > 0 else ("below", "above")
    if nearest > sign * neutral:
        return "agrees", f"the whole interval lies {ahead} no effect{_size(low, high, study)}"
    if farthest < sign * neutral:
        return "disagrees", f"the whole interval lies {behind} no effect"
    if study is None:
        return "cannot be told", "the interval holds no effect"
    if low <= study <= high:
        return "cannot be told", "the interval holds both no effect and the study's figure"
    return "cannot be told", "the interval holds no effect; one of the study's size is left out"


def _size(low: float, high: float, study: float | None) -> str:
    if study is None:
        return ""
    place = "within it" if low <= study <= high else "above it" if study > high else "below it"
    return f"; the study's figure lies {place}"


def within(figure: Figure, lowest: float, highest: float, what: str) -> tuple[Verdict, str]:
    """Whether a figure keeps to a range, of which ``what`` is the name."""
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return "cannot be told", "there is no interval"
    if lowest <= low and high <= highest:
        return "agrees", f"the whole interval lies within {what}"
    if high < lowest or low > highest:
        return "disagrees", f"the whole interval lies outside {what}"
    return "cannot be told", f"the interval reaches out of {what}"


def _contrast(results: Results, axis: str) -> dict[str, Any] | None:
    """The widest pair of the first setting, over all tasks and all models of the other side."""
    return next(iter(_overall(results, axis)), None)


def _overall(results: Results, axis: str) -> list[dict[str, Any]]:
    return [c for c in results["contrasts"] if c["axis"] == axis and c["held"] is None and c["task"] is None]


def _absent(question: str, study: str, why: str) -> Finding:
    return Finding(question, study, "", "not measured", why)


def _pair(contrast: dict[str, Any]) -> str:
    one, other = contrast["families"]
    crossed = "" if one == other else f", of family {other} and not {one}"
    times = number(contrast["parameters_ratio"])
    return f"{contrast['large']} against {contrast['small']} ({times} times the parameters{crossed})"


def _ratio(figure: Figure) -> str:
    return figure_text(figure, lambda value: f"{number(value)}x")


def _compressor_pays(results: Results) -> Finding:
    question, study = "Does a larger compressor raise accuracy?", "1.6x (Qwen-2.5 1.5B to 7B, LongHealth)"
    contrast = _contrast(results, "compressor")
    if contrast is None or "accuracy_ratio" not in contrast:
        return _absent(question, study, "the grid has compressors of one size")
    verdict, why = direction(contrast["accuracy_ratio"], STUDY_ACCURACY_RATIO, 1)
    change = figure_text(contrast["accuracy_difference"], points)
    here = f"{_pair(contrast)}: {_ratio(contrast['accuracy_ratio'])}, {change} points"
    return Finding(question, study, here, verdict, why)


def _predictor_pays(results: Results) -> Finding:
    question = "Does a larger predictor bring little?"
    study = "accuracy within 12% (LongHealth) and within 1% (FinanceBench), 70B to 405B"
    contrast = _contrast(results, "predictor")
    if contrast is None or "accuracy_ratio" not in contrast:
        return _absent(question, study, "the grid has predictors of one size")
    margin = STUDY_PREDICTOR_MARGIN
    verdict, why = within(contrast["accuracy_ratio"], 1 / margin, margin, "12%")
    change = figure_text(contrast["accuracy_difference"], points)
    here = f"{_pair(contrast)}: {_ratio(contrast['accuracy_ratio'])}, {change} points"
    return Finding(question, study, here, verdict, why)


def _pays_more(results: Results) -> Finding:
    question = "Does scaling the compressor pay more than scaling the predictor?"
    study = "yes: 1.6x for the compressor's 4.7-fold, at most 12% for the predictor's 5.8-fold"
    if not results["comparisons"]:
        return _absent(question, study, "the grid has one size on a side")
    comparison = results["comparisons"][0]
    verdict, why = direction(comparison["per_doubling"], None, 0)
    here = (
        f"the compressor's gain less the predictor's: {figure_text(comparison['per_doubling'], points)} points for "
        f"each doubling of parameters, {figure_text(comparison['difference'], points)} points from smallest to largest"
    )
    return Finding(question, study, here, verdict, why)


def _shorter(results: Results) -> Finding:
    question, study = "Do larger compressors write shorter messages?", "4.6x fewer tokens (Qwen-2.5 1.5B to 7B)"
    contrast = _contrast(results, "compressor")
    if contrast is None or "message_tokens_ratio" not in contrast:
        return _absent(question, study, "the grid has compressors of one size")
    verdict, why = direction(contrast["message_tokens_ratio"], STUDY_TOKENS_RATIO, 1)
    here = f"{_pair(contrast)}: {_ratio(contrast['message_tokens_ratio'])} fewer tokens (below 1: more)"
    return Finding(question, study, here, verdict, why)


def _denser(results: Results) -> Finding:
    question = "Do larger compressors pass more information per token?"
    study = "5.4x bits per token (Qwen-2.5 1.5B to 7B)"
    contrast = _contrast(results, "compressor")
    if contrast is None or "bits_per_token_ratio" not in contrast:
        return _absent(question, study, "the grid has compressors of one size")
    verdict, why = direction(contrast["bits_per_token_ratio"], STUDY_DENSITY_RATIO, 1)
    if scorer_sees_nothing(results):
        return Finding(question, study, "0 bits in the messages of every compressor", "cannot be told", SEES_NOTHING)
    here = f"{_pair(contrast)}: {_ratio(contrast['bits_per_token_ratio'])}"
    second = contrast["second_bits_per_token_ratio"]
    if second["value"] is not None:
        here += f"; by the second scorer {_ratio(second)}"
        if direction(second, STUDY_DENSITY_RATIO, 1)[0] != verdict:
            return Finding(question, study, here, "cannot be told", "the two scorers do not say the same")
        why += ", by both scorers"
    return Finding(question, study, here, verdict, why)


def _cheaper(results: Results) -> Finding:
    question = "Does a larger compressor cost hardly more FLOPs per generation?"
    study = "+1.3% (Qwen-2.5 1.5B to 7B), as its messages are shorter"
    contrast = _contrast(results, "compressor")
    if contrast is None or contrast.get("generation_flops_ratio", {}).get("value") is None:
        return _absent(question, study, "the grid has compressors of one size, or their FLOPs cannot be counted")
    ratio = contrast["generation_flops_ratio"]
    verdict, why = within(ratio, 0, HARDLY_MORE, f"{percent(HARDLY_MORE - 1)} above the smaller one's")
    prefill = _ratio(contrast["prefill_flops_ratio"])
    here = f"{_pair(contrast)}: {_ratio(ratio)} for writing a message; {prefill} for reading its context"
    return Finding(question, study, here, verdict, why)


def _perplexity(results: Results) -> Finding:
    question = "Does more information go with lower perplexity of the right answer?"
    study = "r = -0.84 (FineWeb, extractive questions)"
    pair = ("information_bits", "perplexity", "pearson")
    correlation = next(c for c in results["correlations"] if (c["x"], c["y"], c["method"]) == pair)
    if scorer_sees_nothing(results):
        return Finding(question, study, "0 bits in the messages of every compressor", "cannot be told", SEES_NOTHING)
    if correlation["coefficient"]["value"] is None:
        return _absent(
            question, study, "information or perplexity does not vary, or no predictor tells log-probabilities"
        )
    shown = figure_text(correlation["coefficient"], lambda value: f"{value:+.2f}")
    here = f"r = {shown} over {correlation['n']} cells of {correlation['over']}"
    verdict, why = direction(correlation["coefficient"], STUDY_CORRELATION, 0, sign=-1)
    return Finding(question, study, here, verdict, why)


def _ranking(results: Results) -> Finding:
    question = "What does a right answer depend on most?"
    study = "compressor family > compressor size > predictor size (logistic regression)"
    regression = results["regression"]
    if not regression["factors"]:
        return _absent(question, study, regression["statement"])
    here = "by evidence: " + " > ".join(
        f"{f['name'].replace('_', ' ')} ({_p(f['p_value'])})" for f in regression["factors"]
    )
    if regression["constant"]:
        here += f"; constant in this grid: {', '.join(regression['constant']).replace('_', ' ')}"
    established = [f["name"] for f in regression["factors"] if f["p_value"] < SIGNIFICANT]
    named = ", ".join(established).replace("_", " ")
    if not established:
        return Finding(question, study, here, "cannot be told", f"no factor is established at p < {SIGNIFICANT}")
    compared = [name for name in STUDY_ORDER if name not in regression["constant"]]
    if established == compared[: len(established)]:
        return Finding(
            question, study, here, "agrees", f"established at p < {SIGNIFICANT}, in the study's order: {named}"
        )
    return Finding(question, study, here, "disagrees", f"established at p < {SIGNIFICANT}, not in its order: {named}")


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _matching(results: Results) -> Finding:
    question, study = "Does it help when compressor and predictor are of one family?", "no"
    regression = results["regression_with_matching"]
    coefficients = [c for c in regression["coefficients"] if c["factor"] == "matching_families"]
    if not coefficients:
        constant = "matching_families" in regression["constant"]
        why = "families match everywhere in the grid or nowhere" if constant else regression["statement"]
        return _absent(question, study, why)
    # The column stands for families that match, against the reference: families that differ.
    odds = coefficients[0]["odds_ratio"]
    low, high = odds["low"], odds["high"]
    here = f"odds of a right answer {_ratio(odds)} where they match"
    verdict, why = within(odds, 1 / NOTHING, NOTHING, f"a factor of {NOTHING} either way, which counts as nothing")
    if verdict != "agrees" and (low > 1 or high < 1):
        return Finding(question, study, here, "disagrees", "the whole interval lies on one side of no effect")
    return Finding(question, study, here, verdict, why)


def _sentences(results: Results) -> Finding:
    question = "Does scaling go the same way when messages have an exact number of sentences?"
    study = "yes, at 3, 6 and 9"
    by_setting = [c for c in _overall(results, "compressor") if "sentences" in c["setting"] and "accuracy_ratio" in c]
    contrasts = list({c["setting"]: c for c in reversed(by_setting)}.values())[::-1]
    if len(contrasts) < 2:
        return _absent(question, study, "the grid asks for fewer than two numbers of sentences")
    here = "; ".join(f"{c['setting']}: {_ratio(c['accuracy_ratio'])}" for c in contrasts)
    ways = {direction(c["accuracy_ratio"], None, 1)[0] for c in contrasts}
    if ways in ({"agrees"}, {"disagrees"}):
        return Finding(question, study, here, "agrees", "every interval lies on the same side of no effect")
    if {"agrees", "disagrees"} <= ways:
        return Finding(question, study, here, "disagrees", "intervals lie on both sides of no effect")
    return Finding(question, study, here, "cannot be told", "not every interval lies on one side of no effect")
