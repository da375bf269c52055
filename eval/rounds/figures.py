"""What rounds of refined questions bring: figures after each round, what each added, and their picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from eval.analysis.density import summarise_one
from eval.analysis.significance import BOOTSTRAP, Bootstrap, clustered_mean, interval
from eval.record import RoundRecord, cluster
from eval.report.formats import figure_text, number, percent
from eval.report.results import Figure
from objectives.mutual_information import nats_to_bits

GAINS = {"accuracy": "accuracy", "information_bits": "information_nats", "message_tokens": "message_tokens"}
"""Figures whose change from round to round is shown, and the fields of records they are means of."""

LINES = (
    ("summed_information_bits", "each by itself, added", "tab:gray", "s", -0.04),
    ("information_bits", "together", "tab:blue", "o", 0.04),
)
"""The lower bounds that share a panel."""


def summarise_rounds(records: Sequence[RoundRecord], bootstrap: Bootstrap = BOOTSTRAP) -> list[dict[str, Any]]:
    """The figures after each round, with 95% intervals by document.

    Args:
        records: one a question and round, as `eval.rounds` makes them; nats, None where missing.
        bootstrap: how documents are resampled.

    Returns:
        By round: its number, what `eval.density.summarise_one` returns, ``summed_information_bits``, and ``gain``: the
        change of each figure in ``GAINS`` from the round before, over the questions scored in both; none in round 1.
    """
    rounds = sorted({record["round"] for record in records})
    by_round = {current: [record for record in records if record["round"] == current] for current in rounds}
    entries = []
    for current, round_records in by_round.items():
        summed = [record["summed_information_nats"] for record in round_records]
        gain = {
            figure: _gain(by_round[current - 1], round_records, field, bootstrap)
            for figure, field in GAINS.items()
            if current - 1 in by_round
        }
        figures = summarise_one(round_records, bootstrap)
        bits = interval(
            clustered_mean(_bits(summed), [cluster(record) for record in round_records], bootstrap)
        ).as_dict()
        entries.append({"round": current, **figures, "summed_information_bits": bits, "gain": gain})
    return entries


def _gain(
    earlier: Sequence[RoundRecord], later: Sequence[RoundRecord], field: str, bootstrap: Bootstrap
) -> dict[str, Any]:
    """The mean change of a field, paired by question; bits where the field is in nats."""
    before = {record["id"]: record[field] for record in earlier}
    changes = [_difference(record[field], before[record["id"]]) for record in later]
    values = _bits(changes) if field.endswith("_nats") else changes
    limits = (-1.0, 1.0) if field == "accuracy" else None
    return interval(clustered_mean(values, [cluster(record) for record in later], bootstrap, limits)).as_dict()


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before


def _bits(nats: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else nats_to_bits(value) for value in nats]


def quality(entries: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The figure that says how good the answers are, and its name: perplexity where no question has an accuracy."""
    if any(entry["accuracy"]["value"] is not None for entry in entries):
        return "accuracy", "accuracy"
    return "perplexity", "perplexity of the gold answer"


def round_lines(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A table of the rounds: cells of plain text, the heading first."""
    key, name = quality(entries)
    form = percent if key == "accuracy" else number
    lines = [["Round", name.capitalize(), "Message tokens", "Information, bits", "added up", "gained, bits"]]
    for entry in entries:
        gained = entry["gain"].get("information_bits")
        cells = [figure_text(entry[figure], number) for figure in ("message_tokens", "information_bits")]
        summed = figure_text(entry["summed_information_bits"], number)
        last = figure_text(gained, number) if gained else ""
        lines.append([str(entry["round"]), figure_text(entry[key], form), *cells, summed, last])
    return lines


def draw_rounds(entries: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Accuracy and information against rounds, each with its 95% interval; the same figures give the same bytes.

    Args:
        entries: from `summarise_rounds`.
        path: where the picture, an SVG, is written.
    """
    key, name = quality(entries)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "rounds", "text.parse_math": False}):
        canvas = Canvas(figsize=(10.6, 3.2), layout="constrained")
        answers, lower, upper = canvas.subplots(1, 3)
        _line(answers, entries, key, "", "tab:blue", "o")
        for figure, label, colour, marker, shift in LINES:
            _line(lower, entries, figure, label, colour, marker, shift)
        lower.legend(frameon=False, fontsize=8)
        _line(upper, entries, "information_upper_bits", "", "tab:blue", "o")
        labels = (name, "information, lower bound, bits", "information, upper bound, bits")
        for axes, label in zip((answers, lower, upper), labels, strict=True):
            axes.set_ylabel(label)
            axes.set_xticks([entry["round"] for entry in entries], [_tick(entry) for entry in entries])
            axes.set_xlabel("round")
            axes.set_ylim(bottom=0)
        canvas.savefig(path, format="svg", metadata={"Date": None})


def _tick(entry: Mapping[str, Any]) -> str:
    tokens = entry["message_tokens"]["value"]
    return str(entry["round"]) if tokens is None else f"{entry['round']}\n{number(tokens)} tokens"


def _line(
    axes: Axes,
    entries: Sequence[Mapping[str, Any]],
    figure: str,
    label: str,
    colour: str,
    marker: str,
    shift: float = 0.0,
) -> None:
    """One figure over the rounds; a round without it leaves a gap."""
    measured = [(entry["round"] + shift, entry[figure]) for entry in entries if entry[figure]["value"] is not None]
    for place, value in measured:
        _ends(axes, place, value, colour)
    places, values = [place for place, _ in measured], [value["value"] for _, value in measured]
    axes.plot(places, values, marker=marker, color=colour, label=label or None)


def _ends(axes: Axes, place: float, value: Figure, colour: str) -> None:
    if value["low"] is not None and value["high"] is not None:
        axes.plot([place, place], [value["low"], value["high"]], color=colour, linewidth=1.2, alpha=0.5)
