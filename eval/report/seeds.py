"""The spread between runs that differ by their seed: what an interval over the documents of one run cannot show."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from data.errors import DataError
from eval.report.formats import UNMEASURED, Format, number, points, signed
from eval.report.results import Decoding, Figure, Results, decodings
from eval.report.rows import LEADING, MISSING, Column, is_compared, rows
from eval.report.tables import Table

EXPECTED_TO_DIFFER = ("name", "run_folder", "seed")
"""Keys of the configuration that runs over seeds differ in."""

SHOWN_DIFFERENCES = 6
"""Keys that are named where other things differ than the seed: enough to see what was compared."""


def spread_table(runs: Mapping[str, Results]) -> Table:
    """The leading figures over several runs: mean, standard deviation, least and most.

    Args:
        runs: the contents of each ``results.json``, by the name of its folder.

    Raises:
        DataError: the runs have neither greedy nor sampled messages in common.
    """
    by_run = [{decoding.name: decoding for decoding in decodings(results)} for results in runs.values()]
    shared = [name for name in by_run[0] if all(name in found for found in by_run)]
    if not shared:
        raise DataError(f"{', '.join(runs)}: have neither greedy nor sampled messages in common")
    lines = [
        line for name in shared for column in LEADING for line in _lines([found[name] for found in by_run], column)
    ]
    heading = ("Messages", "Figure", "Stage", "Mean", "Standard deviation", "Least", "Most", "Runs")
    return Table("seeds", f"Spread between {len(runs)} runs", heading, tuple(lines), _note(runs), names=3)


def _lines(chosen: Sequence[Decoding], column: Column) -> list[tuple[str, ...]]:
    """Before and after training, and the change in each run; of a figure that some run has."""
    sides: dict[str, tuple[list[Figure], Format]] = {
        stage: ([column.of(rows(decoding.summary)[0].sides[stage]) for decoding in chosen], column.format)
        for stage in ("before", "after")
        if stage == "after" or all(is_compared(decoding.summary) for decoding in chosen)
    }
    if "before" in sides:
        changes = [_change(decoding, column) for decoding in chosen]
        sides["change"] = (changes, CHANGES[column.figure][1])
    lines = []
    for stage, (figures, form) in sides.items():
        values = [figure["value"] for figure in figures if figure["value"] is not None]
        if values:
            name = chosen[0].title
            lines.append((name, column.label, stage, *_spread(values, form, column), str(len(values))))
    return lines


def _ratio(value: float) -> str:
    return f"{number(value)}x"


def _points(value: float) -> str:
    return f"{points(value)} points"


CHANGES: dict[str, tuple[str, Format]] = {
    "accuracy": ("accuracy", _points),
    "message_tokens": ("message_tokens_ratio", lambda ratio: f"{_ratio(ratio)} fewer"),
    "information_bits": ("information_bits", lambda bits: f"{signed(bits)} bits"),
    "bits_per_token": ("bits_per_token_ratio", _ratio),
}
"""Where the change of each figure stands in ``results.json``, and how it is written."""


def _change(decoding: Decoding, column: Column) -> Figure:
    changes: Mapping[str, Any] = decoding.summary["change"]
    return changes.get(CHANGES[column.figure][0]) or MISSING


def _spread(values: Sequence[float], form: Format, column: Column) -> tuple[str, ...]:
    deviation = UNMEASURED if len(values) < 2 else _plain(statistics.stdev(values), column)
    return form(statistics.fmean(values)), deviation, form(min(values)), form(max(values))


def _plain(deviation: float, column: Column) -> str:
    """A standard deviation, of shares in percentage points; it has no sign."""
    return f"{100 * deviation:.1f} points" if column.figure == "accuracy" else number(deviation)


def _note(runs: Mapping[str, Results]) -> str:
    """Which seeds these are, and what else differs."""
    configs = [results.get("meta", {}).get("config") or {} for results in runs.values()]
    seeds = [str(config.get("seed", "unknown")) for config in configs]
    parts = [f"Seeds {', '.join(seeds)}."]
    if len(set(seeds)) < len(seeds):
        parts.append("Some runs have one seed, and are no independent ones.")
    names = dict.fromkeys(name for config in configs for name in config)
    differing = [
        name
        for name in names
        if name not in EXPECTED_TO_DIFFER and any(config.get(name) != configs[0].get(name) for config in configs)
    ]
    if differing:
        more = ", ..." if len(differing) > SHOWN_DIFFERENCES else ""
        parts.append(f"The runs differ in more than their seed: {', '.join(differing[:SHOWN_DIFFERENCES])}{more}.")
    return " ".join(parts)
