"""The answer first: what training did to accuracy, tokens and information, greedy and sampled, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.report.formats import Format, ends_text, number, percent, signed
from eval.report.results import Changes, Decoding, Figure, Results, StageFigures, Stages, Summary, decodings

Standing = Literal["better", "mixed", "worse", "unchanged", "unknown"]

OPENINGS: dict[Standing, str] = {
    "worse": "Training made the compressor worse. ",
    "unchanged": "Training changed nothing that these questions can show. ",
}


@dataclass(frozen=True)
class Headline:
    """The answer first.

    Attributes:
        sentence: what training did to accuracy, tokens and information, on one line; 95% intervals in brackets. Of
            greedy messages where there are some, for these are what a compressor writes when it is used.
        second: the same of sampled messages, where the first sentence is about greedy ones; empty otherwise.
        explanation: what the change of bits per token is made of; empty where it was not measured.
        standing: "better" has no clear loss, "worse" no clear gain; clear means that the interval excludes no change.
            It is that of ``sentence``.
        evidence: what the sentences rest on, and what got worse.
    """

    sentence: str
    second: str
    explanation: str
    standing: Standing
    evidence: str


def headline(results: Results) -> Headline:
    """What a reader needs who reads no further, gain or loss as it came out.

    Args:
        results: the contents of ``results.json``; where no question has an accuracy, perplexity takes its place. Of a
            compressor that was held against nothing it says what it does, instead of what changed.
    """
    first, *others = decodings(results)
    second = " ".join(filter(None, map(_sentence, others)))
    overall = first.summary["overall"]
    if not overall["before"]["n"]:
        return Headline(_sentence(first), second, "", "unknown", _evidence(overall, []))
    if not _is_comparable(first.summary):
        nothing = "Nothing to compare: no question was scored both before and after training."
        return Headline(nothing, second, "", "unknown", "")
    if _is_never_right(overall):
        return Headline(_sentence(first), second, "", "unknown", _evidence(overall, []))
    gains, losses = _clear_changes(first.summary)
    standing = _standing(gains, losses)
    opening = OPENINGS.get(standing, "")
    explanation = "" if standing == "unchanged" else _explanation(first, losses)
    return Headline(f"{opening}{_sentence(first)}", second, explanation, standing, _evidence(overall, losses))


def _sentence(decoding: Decoding) -> str:
    """The sentence about one way of choosing tokens; empty where nothing can be compared."""
    overall, change = decoding.summary["overall"], decoding.summary["change"]
    if not overall["before"]["n"]:
        return _alone(decoding, overall["after"])
    if not _is_comparable(decoding.summary):
        return ""
    if _is_never_right(overall):
        return _never_right(decoding, overall)
    clauses = (
        _quality_clause(overall, change),
        _token_clause(overall, change["message_tokens_ratio"]),
        _information_clause(overall, change),
    )
    return f"{decoding.title} {', '.join(filter(None, clauses))}."


def _is_comparable(summary: Summary) -> bool:
    overall, change = summary["overall"], summary["change"]
    sides = (overall["before"]["perplexity"]["value"], overall["after"]["perplexity"]["value"])
    scored = change["accuracy"]["value"] is not None or None not in sides
    return scored and change["message_tokens_ratio"]["value"] is not None


def _is_never_right(overall: Stages) -> bool:
    """Whether every scored answer is wrong at both stages, so that nothing is there to keep, to gain or to lose."""
    return overall["before"]["accuracy"]["value"] == 0 == overall["after"]["accuracy"]["value"]


def _never_right(decoding: Decoding, overall: Stages) -> str:
    before, after = overall["before"], overall["after"]
    tokens = [number(side["message_tokens"]["value"] or 0.0) for side in (before, after)]
    text = (
        f"The predictor answers nothing right before or after training: with {decoding.title.lower()} its accuracy is "
        f"{_stated(after['accuracy'], percent)}. The messages take {tokens[0]} tokens before and {tokens[1]} after"
    )
    perplexities = [side["perplexity"]["value"] for side in (before, after)]
    if perplexities[0] is None or perplexities[1] is None:
        return f"{text}."
    return f"{text}; the gold answers have a perplexity of {number(perplexities[0])} and {number(perplexities[1])}."


def _alone(decoding: Decoding, figures: StageFigures) -> str:
    """The sentence about a compressor that was held against nothing."""
    clauses = []
    if figures["accuracy"]["value"] is not None:
        clauses.append(f"{_stated(figures['accuracy'], percent)} of the answers are right")
    elif figures["perplexity"]["value"] is not None:
        clauses.append(f"the answers have a perplexity of {_stated(figures['perplexity'], '{:.2f}'.format)}")
    clauses.append(f"a message takes {_stated(figures['message_tokens'], number)} tokens")
    if figures["information_bits"]["value"] is not None:
        clauses.append(f"passes {_stated(figures['information_bits'], number)} bits{_at_most(figures)}")
    if figures["bits_per_token"]["value"] is not None:
        clauses.append(f"each token passes {_stated(figures['bits_per_token'], number)} bits")
    return f"{decoding.title}, held against nothing: {', '.join(clauses)}."


def _stated(figure: Figure, form: Format) -> str:
    """A value with its interval; empty where it was not measured."""
    value = figure["value"]
    return "" if value is None else form(value) + _ends(figure["low"], figure["high"], form)


def _clear_changes(summary: Summary) -> tuple[list[str], list[str]]:
    """What got better and what got worse, where the interval leaves no doubt which."""
    overall, change = summary["overall"], summary["change"]
    # Each ratio is above 1 where training helped: tokens are before over after, bits per token after over before.
    compared = (
        ("accuracy", change["accuracy"], 0.0),
        ("length", change["message_tokens_ratio"], 1.0),
        ("information", change.get("information_bits"), 0.0),
        ("bits per token", change["bits_per_token_ratio"], 1.0),
    )
    gains = [name for name, figure, neutral in compared if figure and _exceeds(figure["low"], neutral)]
    losses = [name for name, figure, neutral in compared if figure and _exceeds(neutral, figure["high"])]
    if change["accuracy"]["value"] is None:
        # The change of perplexity has no interval. Two intervals apart are more than enough to call a change clear.
        before, after = overall["before"]["perplexity"], overall["after"]["perplexity"]
        gains += ["perplexity"] * _exceeds(before["low"], after["high"])
        losses += ["perplexity"] * _exceeds(after["low"], before["high"])
    return gains, losses


def _exceeds(larger: float | None, smaller: float | None) -> bool:
    return larger is not None and smaller is not None and larger > smaller


def _standing(gains: Sequence[str], losses: Sequence[str]) -> Standing:
    if gains and losses:
        return "mixed"
    if losses:
        return "worse"
    return "better" if gains else "unchanged"


def _quality_clause(overall: Stages, change: Changes) -> str:
    """What became of the answers."""
    before, after = overall["before"]["accuracy"]["value"], overall["after"]["accuracy"]["value"]
    if change["accuracy"]["value"] is None or before is None or after is None:
        return _perplexity_clause(overall["before"]["perplexity"], overall["after"]["perplexity"])
    figure = change["accuracy"]
    ends = _ends(figure["low"], figure["high"], lambda share: f"{100 * share:+.1f}", " points")
    if figure["low"] is None and figure["high"] is None:
        return f"have an accuracy of {percent(after)} after training and {percent(before)} before{ends}"
    if _exceeds(figure["low"], 0.0):
        return f"raise accuracy from {percent(before)} to {percent(after)}{ends}"
    if _exceeds(0.0, figure["high"]):
        return f"lose accuracy, from {percent(before)} to {percent(after)}{ends}"
    return f"show no clear change in accuracy ({percent(before)} before, {percent(after)} after{ends})"


def _perplexity_clause(before: Figure, after: Figure) -> str:
    first, second = before["value"] or 0.0, after["value"] or 0.0
    verb = "lower" if second < first else "raise" if second > first else "leave"
    form = "{:.2f}".format
    return f"{verb} the perplexity of the answers from {_stated(before, form)} to {_stated(after, form)}"


def _token_clause(overall: Stages, ratio: Figure) -> str:
    """What became of the length; the ratio is of tokens before over tokens after."""
    before, after = (overall[stage]["message_tokens"]["value"] for stage in ("before", "after"))
    if not ratio["value"] or before is None or after is None:
        return "where nothing was written before training"
    if _is_unclear(ratio):
        ends = _ends(ratio["low"], ratio["high"], lambda times: f"{times:.2f}x")
        return f"with no clear change in length ({number(before)} tokens before, {number(after)} after{ends})"
    shown, word = (ratio, "fewer") if ratio["value"] > 1 else (inverted(ratio), "more")
    times = "{:.1f}".format
    ends = _ends(shown["low"], shown["high"], times)
    return f"take {number(after)} tokens instead of {number(before)} ({times(shown['value'] or 0.0)}x {word}{ends})"


def _is_unclear(ratio: Figure) -> bool:
    """Whether the ratio may as well be on the other side of 1."""
    if ratio["low"] is None and ratio["high"] is None:
        return ratio["value"] == 1
    return not _exceeds(ratio["low"], 1.0) and not _exceeds(1.0, ratio["high"])


def inverted(ratio: Figure) -> Figure:
    """The ratio the other way round; its interval's ends change places."""
    value, low, high = (1 / end if end else None for end in (ratio["value"], ratio["low"], ratio["high"]))
    return {"value": value, "low": high, "high": low}


def _information_clause(overall: Stages, change: Changes) -> str:
    """What became of the information of a message, in bits, and the most that could have been seen of it."""
    before, after = (overall[stage]["information_bits"]["value"] for stage in ("before", "after"))
    if before is None or after is None:
        return ""
    moved = change.get("information_bits")
    ends = _ends(moved["low"], moved["high"], signed) if moved else ""
    return f"and each passes {number(after)} bits instead of {number(before)}{ends}{_at_most(overall['after'])}"


def _at_most(figures: StageFigures) -> str:
    ceiling = figures.get("information_ceiling_bits")
    return "" if ceiling is None or ceiling["value"] is None else f", of at most {number(ceiling['value'])}"


def _explanation(decoding: Decoding, losses: Sequence[str]) -> str:
    """Bits per token as a product, so that brevity cannot pass for information; and why information may fall."""
    change = decoding.summary["change"]
    density, tokens = change["bits_per_token_ratio"]["value"], change["message_tokens_ratio"]["value"]
    information = change.get("information_ratio")
    if density is None or not tokens or information is None or information["value"] is None:
        return ""
    times = "{:.2f}x".format
    shorter = f"{times(tokens)} fewer tokens" if tokens >= 1 else f"{times(1 / tokens)} more tokens"
    text = (
        f"{decoding.title}: {times(density)} the bits per token are {shorter} times {times(information['value'])} the "
        f"information of a message."
    )
    if "information" not in losses:
        return text
    kept = "" if "accuracy" in losses else ", though still what the answers need"
    return (
        f"{text} Information fell: a shorter message says less of its document{kept}; the gain is brevity alone."
        if density > 1
        else f"{text} Information fell: a message says less of its document{kept}."
    )


def _ends(low: float | None, high: float | None, form: Format, unit: str = "") -> str:
    """A space and the interval in brackets; it says so where there is none or one side is open."""
    if low is None and high is None:
        return " [no interval]"
    return f" {ends_text(low, high, form, unit)}"


def _evidence(overall: Stages, losses: Sequence[str]) -> str:
    """How many questions and documents the sentences rest on, after whatever got worse."""
    after = overall["after"]
    text = (
        f"On {after['n']:,} questions about {after['documents']:,} documents; in brackets 95% intervals, by document."
    )
    return f"What got worse: {', '.join(losses)}. {text}" if losses else text
