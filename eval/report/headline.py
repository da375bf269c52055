"""The answer first: one sentence that says what training did to accuracy, tokens and density, with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eval.report.results import Changes, Figure, StageFigures, Stages, Summary

Standing = Literal["better", "mixed", "worse", "unchanged", "unknown"]

OPENINGS: dict[Standing, str] = {
    "worse": "Training made the compressor worse: it",
    "unchanged": "Training changed nothing these questions can show: the adapter",
}


@dataclass(frozen=True)
class Headline:
    """The answer first.

    Attributes:
        sentence: what training did to accuracy, tokens and density, on one line; 95% intervals in brackets.
        standing: "better" has no clear loss, "worse" no clear gain; clear means that the interval excludes no change.
        evidence: what the sentence rests on, and what got worse.
    """

    sentence: str
    standing: Standing
    evidence: str


def headline(results: Summary) -> Headline:
    """The sentence a reader needs if they read only one, gain or loss as it came out.

    Args:
        results: the contents of ``results.json``; where no question has an accuracy, perplexity takes its place. Of a
            compressor that was held against nothing it says what it does, instead of what changed.
    """
    overall, change = results["overall"], results["change"]
    if not overall["before"]["n"]:
        return Headline(_alone(overall["after"]), "unknown", _evidence(overall, []))
    quality = _quality_clause(overall, change)
    if quality is None or change["message_tokens_ratio"]["value"] is None:
        return Headline("Nothing to compare: no question was scored both before and after training.", "unknown", "")
    gains, losses = _clear_changes(overall, change)
    standing = _standing(gains, losses)
    opening = OPENINGS.get(standing, "The adapter")
    tokens, density = _token_clause(change["message_tokens_ratio"]), _density_clause(change["bits_per_token_ratio"])
    return Headline(f"{opening} {quality} {tokens}{density}.", standing, _evidence(overall, losses))


def _alone(figures: StageFigures) -> str:
    """The sentence about a compressor that was held against nothing."""
    right, tokens = _stated(figures["accuracy"], "{:.1f}%", 100.0), _stated(figures["message_tokens"], "{:.1f}")
    perplexity, density = _stated(figures["perplexity"], "{:.2f}"), _stated(figures["bits_per_token"], "{:.3f}")
    clauses = []
    if right:
        clauses.append(f"{right} of the answers are right")
    elif perplexity:
        clauses.append(f"the answers have a perplexity of {perplexity}")
    clauses.append(f"a message takes {tokens} tokens")
    if density:
        clauses.append(f"each token passes {density} bits")
    return f"Held against nothing: {', '.join(clauses)}."


def _stated(figure: Figure, form: str, scale: float = 1.0) -> str:
    """A value with its interval; empty where it was not measured."""
    value = figure["value"]
    return "" if value is None else form.format(value * scale) + _ends(figure["low"], figure["high"], form, scale=scale)


def _clear_changes(overall: Stages, change: Changes) -> tuple[list[str], list[str]]:
    """What got better and what got worse, where the interval leaves no doubt which."""
    # Each ratio is above 1 where training helped: tokens are before over after, bits per token after over before.
    compared = (
        ("accuracy", change["accuracy"], 0.0),
        ("length", change["message_tokens_ratio"], 1.0),
        ("bits per token", change["bits_per_token_ratio"], 1.0),
    )
    gains = [name for name, figure, neutral in compared if _exceeds(figure["low"], neutral)]
    losses = [name for name, figure, neutral in compared if _exceeds(neutral, figure["high"])]
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


def _quality_clause(overall: Stages, change: Changes) -> str | None:
    """What became of the answers; None where neither accuracy nor perplexity was measured at both stages."""
    before, after = overall["before"], overall["after"]
    first, second = before["accuracy"]["value"], after["accuracy"]["value"]
    if change["accuracy"]["value"] is not None and first is not None and second is not None:
        return _accuracy_clause(first, second, change["accuracy"], change.get("accuracy_ratio"))
    return _perplexity_clause(before["perplexity"], after["perplexity"])


def _perplexity_clause(before: Figure, after: Figure) -> str | None:
    if before["value"] is None or after["value"] is None:
        return None
    verb = "lowers" if after["value"] < before["value"] else "raises" if after["value"] > before["value"] else "leaves"
    first, second = _stated(before, "{:.2f}"), _stated(after, "{:.2f}")
    return f"{verb} the perplexity of the answers from {first} to {second}"


def _accuracy_clause(before: float, after: float, change: Figure, ratio: Figure | None) -> str:
    """A clear rise by its two figures, a loss as the share that is left; ``ratio`` may be absent from an older run."""
    ends = _ends(change["low"], change["high"], "{:+.1f}", " points", scale=100.0)
    if _exceeds(change["low"], 0.0):
        return f"raises accuracy from {100 * before:.1f}% to {100 * after:.1f}%{ends}"
    if change["value"] is not None and change["value"] >= 0:
        return f"keeps the accuracy ({100 * before:.1f}% before, {100 * after:.1f}% after{ends})"
    if ratio is None or ratio["value"] is None:
        return f"keeps {100 * after / before:.0f}% of the accuracy{ends}"
    return (
        f"keeps {100 * ratio['value']:.0f}%{_ends(ratio['low'], ratio['high'], '{:.0f}%', scale=100.0)} of the accuracy"
    )


def _token_clause(ratio: Figure) -> str:
    """What became of the length, from tokens before over tokens after: the share that is left, or the multiple."""
    if not ratio["value"]:
        return "without writing anything before training"
    low, high = (1 / end if end else None for end in (ratio["high"], ratio["low"]))
    share = 1 / ratio["value"]
    if share < 1:
        return f"in {100 * share:.0f}% of the tokens{_ends(low, high, '{:.0f}%', scale=100.0)}"
    return f"but takes {share:.1f}x the tokens{_ends(low, high, '{:.1f}x')}"


def _density_clause(ratio: Figure) -> str:
    if ratio["value"] is None:
        return ""
    only, form = ("only ", "{:.2f}x") if ratio["value"] < 1 else ("", "{:.1f}x")
    return f", at {only}{form.format(ratio['value'])} the bits per token{_ends(ratio['low'], ratio['high'], form)}"


def _ends(low: float | None, high: float | None, form: str, unit: str = "", scale: float = 1.0) -> str:
    """A space and the interval in brackets; it says so where there is none or one side is open."""
    if low is None and high is None:
        return " [no interval]"
    ends = ("no bound" if end is None else form.format(end * scale) for end in (low, high))
    return f" [{', '.join(ends)}{unit}]"


def _evidence(overall: Stages, losses: Sequence[str]) -> str:
    """How many questions and documents the sentence rests on, after whatever got worse."""
    after = overall["after"]
    text = (
        f"On {after['n']:,} questions about {after['documents']:,} documents; in brackets 95% intervals, by document."
    )
    return f"What got worse: {', '.join(losses)}. {text}" if losses else text
