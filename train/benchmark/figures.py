"""What the benchmark shows: the table, how the cost grows with each size beside what the tokens imply, and its plot."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.benchmark.cases import PHASES, Row

SIZES = {"context": "C", "message": "M", "group": "G", "contexts": "N"}
"""What is varied, and its letter."""
LEAST_POINTS = 3
"""An exponent from fewer sizes says nothing of how straight the line is."""


@dataclass(frozen=True)
class Growth:
    """How the cost of a phase grows with one size, the others held: exponents, cost ~ size ** exponent.

    Attributes:
        device: where it was measured.
        phase: whose cost.
        varied: the size.
        sizes: its values.
        ours: exponent of our seconds.
        ours_counted: exponent of the tokens that we read; attention and fixed costs are what sets ``ours`` apart.
        stock: exponent of the straightforward way's seconds; None where too few points were measured.
        stock_counted: exponent of its tokens over those same points.
    """

    device: str
    phase: str
    varied: str
    sizes: list[int]
    ours: float
    ours_counted: float
    stock: float | None
    stock_counted: float | None


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def sweep(rows: Sequence[Row], phase: str, varied: str) -> list[Row]:
    """The most rows of one phase that differ in nothing but one size, in its order; none where they are too few."""
    held = [size for size in SIZES if size != varied]
    lines: defaultdict[tuple[int, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.phase == phase:
            lines[tuple(getattr(row, size) for size in held)].append(row)
    longest = max(lines.values(), key=len, default=[])
    return sorted(longest, key=attrgetter(varied)) if len(longest) >= LEAST_POINTS else []


def growth(rows: Sequence[Row]) -> list[Growth]:
    """Of every phase and every size that was varied, on each device."""
    found: list[Growth] = []
    for device in dict.fromkeys(row.device for row in rows):
        own = [row for row in rows if row.device == device]
        for phase in PHASES:
            for varied in SIZES:
                if line := sweep(own, phase, varied):
                    found.append(_grown(line, varied))
    return found


def _grown(line: Sequence[Row], varied: str) -> Growth:
    sizes = [getattr(row, varied) for row in line]
    both = [(getattr(row, varied), row.stock_s, row.stock_tokens) for row in line if row.stock_s is not None]
    stock = stock_counted = None
    if len(both) >= LEAST_POINTS:
        stock_sizes, seconds, tokens = zip(*both, strict=True)
        stock, stock_counted = exponent(stock_sizes, seconds), exponent(stock_sizes, tokens)
    return Growth(
        device=line[0].device,
        phase=line[0].phase,
        varied=varied,
        sizes=sizes,
        ours=exponent(sizes, [row.ours_s for row in line]),
        ours_counted=exponent(sizes, [row.ours_tokens for row in line]),
        stock=stock,
        stock_counted=stock_counted,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as text: C tokens of context, M of message, G messages of each of N contexts."""
    head = [
        "phase",
        *SIZES.values(),
        "device",
        "tokens",
        "floor's",
        "stock's",
        "ours, s",
        "calls",
        "stock, s",
        "calls",
        "ratio",
    ]
    lines = [[*head, "of floor", "MB", "stock MB", "of matmul"]]
    for row in rows:
        sizes = [str(getattr(row, size)) for size in SIZES]
        tokens = [f"{row.ours_processed:,}", f"{row.ours_tokens:,}", f"{row.stock_tokens:,}"]
        seconds = [f"{row.ours_s:.3f}", f"{row.ours_calls}", _cell(row.stock_s, ".3f"), f"{row.stock_calls}"]
        shares = [_cell(row.ratio, ".2f"), _cell(row.floor_share, ".0%")]
        peaks = [_cell(row.ours_peak_mb, ".0f"), _cell(row.stock_peak_mb, ".0f")]
        lines.append([row.phase, *sizes, row.device, *tokens, *seconds, *shares, *peaks, f"{row.matmul_share:.0%}"])
    return _aligned(lines)


def growth_table(grown: Sequence[Growth]) -> str:
    """The exponents as text."""
    lines = [["phase", "varied", "sizes", "device", "ours", "counted", "stock", "counted"]]
    for one in grown:
        exponents = [one.ours, one.ours_counted, one.stock, one.stock_counted]
        sizes = " ".join(map(str, one.sizes))
        lines.append([one.phase, one.varied, sizes, one.device, *(_cell(value, ".2f") for value in exponents)])
    return _aligned(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


def draw(rows: Sequence[Row], path: Path) -> None:
    """Cost against size, both axes logarithmic: a row of panels for a phase, a column for what is varied.

    Args:
        rows: of one device.
        path: of the picture.

    Raises:
        ValueError: no size is varied in these rows.
    """
    grown = growth(rows)
    if not grown:
        raise ValueError(f"nothing to draw: no size takes {LEAST_POINTS} values in {len(rows)} rows")
    phases = [phase for phase in PHASES if any(one.phase == phase for one in grown)]
    columns = [size for size in SIZES if any(one.varied == size for one in grown)]
    figure = Figure(figsize=(3.4 * len(columns) + 0.4, 2.9 * len(phases) + 0.5), layout="constrained")
    axes = figure.subplots(len(phases), len(columns), squeeze=False, sharey="row")
    for axis in axes.flat:
        axis.set_visible(False)
    for one in grown:
        axis = axes[phases.index(one.phase), columns.index(one.varied)]
        axis.set_visible(True)
        _panel(axis, sweep(rows, one.phase, one.varied), one)
    for axis in axes[:, 0]:
        axis.set_ylabel("seconds")
    first = next(axis for axis in axes.flat if axis.get_visible())
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    figure.savefig(path, dpi=130)


def _panel(axis: Axes, line: Sequence[Row], one: Growth) -> None:
    measured = [(getattr(row, one.varied), row.stock_s) for row in line if row.stock_s is not None]
    axis.loglog([size for size, _ in measured], [seconds for _, seconds in measured], "s", color="tab:gray")
    axis.lines[-1].set_label("straightforward")
    axis.loglog(one.sizes, [row.ours_s for row in line], "o", color="tab:blue", label="context read once")
    tokens = np.array([row.ours_tokens for row in line], dtype=float)
    seconds_per_token = np.exp(np.mean(np.log([row.ours_s for row in line]) - np.log(tokens)))
    axis.loglog(one.sizes, seconds_per_token * tokens, "-", color="tab:blue", lw=1, label="what our tokens predict")
    held = ", ".join(f"{letter} {getattr(line[0], size)}" for size, letter in SIZES.items() if size != one.varied)
    ours = f"ours {one.ours:.2f}, counted {one.ours_counted:.2f}"
    stock = f"straightforward {_cell(one.stock, '.2f')}, counted {_cell(one.stock_counted, '.2f')}"
    axis.set_title(f"{one.phase}: {held}\n{ours}\n{stock}", fontsize=10)
    axis.set_xticks(one.sizes, [str(size) for size in one.sizes])
    axis.set_xticks([], minor=True)
    axis.set_xlabel({"group": "messages a context", "contexts": "contexts"}.get(one.varied, f"{one.varied}, tokens"))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
