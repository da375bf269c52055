"""How the benchmark's rows are shown: a table, and how the cost grows with each size beside what the tokens imply."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from train.benchmark.cases import PHASES
from train.benchmark.results import Row

SIZES = {"context": "C", "message": "M", "group": "G", "contexts": "N"}
"""The sizes of a case that are varied, and their letters in tables."""

LEAST_POINTS = 3
"""The fewest sizes that an exponent is fitted to: two lie on a line whatever the growth is."""


@dataclass(frozen=True)
class Growth:
    """How the cost of a phase grows with one size, the others held: exponents, cost ~ size ** exponent.

    Attributes:
        device: where it was measured.
        phase: one of ``PHASES``.
        varied: the size that is varied, a key of ``SIZES``.
        sizes: its values, ascending.
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
    """The slope of the least-squares line through the logarithms of sizes and costs."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def rows_along(rows: Sequence[Row], phase: str, varied: str) -> list[Row]:
    """The longest series of rows of one phase that differ in nothing but one size, by that size.

    Empty where the longest has fewer than ``LEAST_POINTS``.
    """
    held = [size for size in SIZES if size != varied]
    lines: defaultdict[tuple[int, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if row.phase == phase:
            lines[tuple(getattr(row, size) for size in held)].append(row)
    longest = max(lines.values(), key=len, default=[])
    return sorted(longest, key=attrgetter(varied)) if len(longest) >= LEAST_POINTS else []


def growth_of(rows: Sequence[Row]) -> list[Growth]:
    """The growth of every phase with every size that was varied, on each device."""
    growths: list[Growth] = []
    for device in dict.fromkeys(row.device for row in rows):
        device_rows = [row for row in rows if row.device == device]
        for phase in PHASES:
            for varied in SIZES:
                if line := rows_along(device_rows, phase, varied):
                    growths.append(_growth_along(line, varied))
    return growths


def _growth_along(line: Sequence[Row], varied: str) -> Growth:
    """The exponents of rows that differ in one size alone."""
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


def results_table(rows: Sequence[Row]) -> str:
    """The rows as text: C tokens of context, M of message, G messages of each of N contexts."""
    times = ["tokens", "floor's", "stock's", "ours, s", "calls", "stock, s", "calls", "ratio", "of floor"]
    lines = [["phase", *SIZES.values(), "device", *times, "MB", "stock MB", "of matmul"]]
    for row in rows:
        sizes = [str(getattr(row, size)) for size in SIZES]
        tokens = [f"{row.ours_processed:,}", f"{row.ours_tokens:,}", f"{row.stock_tokens:,}"]
        seconds = [f"{row.ours_s:.3f}", f"{row.ours_calls}", _cell(row.stock_s, ".3f"), f"{row.stock_calls}"]
        shares = [_cell(row.ratio, ".2f"), _cell(row.floor_share, ".0%")]
        peaks = [_cell(row.ours_peak_mb, ".0f"), _cell(row.stock_peak_mb, ".0f")]
        lines.append([row.phase, *sizes, row.device, *tokens, *seconds, *shares, *peaks, f"{row.matmul_share:.0%}"])
    return aligned(lines)


def growth_table(growths: Sequence[Growth]) -> str:
    """The exponents as text."""
    lines = [["phase", "varied", "sizes", "device", "ours", "counted", "stock", "counted"]]
    for growth in growths:
        exponents = [growth.ours, growth.ours_counted, growth.stock, growth.stock_counted]
        sizes, cells = " ".join(map(str, growth.sizes)), [_cell(value, ".2f") for value in exponents]
        lines.append([growth.phase, growth.varied, sizes, growth.device, *cells])
    return aligned(lines)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Rows of cells as text, every column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in lines)


def draw_growth(rows: Sequence[Row], path: Path) -> None:
    """Plot seconds against size, both axes logarithmic: a row of panels for each phase, a column for each size.

    Args:
        rows: the rows of one device.
        path: the picture that is written.

    Raises:
        ValueError: no size is varied in these rows.
    """
    growths = growth_of(rows)
    if not growths:
        raise ValueError(f"nothing to draw: no size takes {LEAST_POINTS} values in {len(rows)} rows")
    phases = [phase for phase in PHASES if any(growth.phase == phase for growth in growths)]
    columns = [size for size in SIZES if any(growth.varied == size for growth in growths)]
    figure = Figure(figsize=(3.4 * len(columns) + 0.4, 2.9 * len(phases) + 0.5), layout="constrained")
    axes = figure.subplots(len(phases), len(columns), squeeze=False, sharey="row")
    for axis in axes.flat:
        axis.set_visible(False)
    for growth in growths:
        axis = axes[phases.index(growth.phase), columns.index(growth.varied)]
        axis.set_visible(True)
        _draw_panel(axis, rows_along(rows, growth.phase, growth.varied), growth)
    for axis in axes[:, 0]:
        axis.set_ylabel("seconds")
    first = next(axis for axis in axes.flat if axis.get_visible())
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=11, frameon=False)
    figure.savefig(path, dpi=130)


def _draw_panel(axis: Axes, line: Sequence[Row], growth: Growth) -> None:
    """Both ways' seconds, and the line that our tokens predict through ours."""
    measured = [(getattr(row, growth.varied), row.stock_s) for row in line if row.stock_s is not None]
    axis.loglog([size for size, _ in measured], [seconds for _, seconds in measured], "s", color="tab:gray")
    axis.lines[-1].set_label("straightforward")
    axis.loglog(growth.sizes, [row.ours_s for row in line], "o", color="tab:blue", label="context read once")
    tokens = np.array([row.ours_tokens for row in line], dtype=float)
    seconds_per_token = np.exp(np.mean(np.log([row.ours_s for row in line]) - np.log(tokens)))
    axis.loglog(growth.sizes, seconds_per_token * tokens, "-", color="tab:blue", lw=1, label="what our tokens predict")
    held = ", ".join(f"{letter} {getattr(line[0], size)}" for size, letter in SIZES.items() if size != growth.varied)
    ours = f"ours {growth.ours:.2f}, counted {growth.ours_counted:.2f}"
    stock = f"straightforward {_cell(growth.stock, '.2f')}, counted {_cell(growth.stock_counted, '.2f')}"
    axis.set_title(f"{growth.phase}: {held}\n{ours}\n{stock}", fontsize=10)
    axis.set_xticks(growth.sizes, [str(size) for size in growth.sizes])
    axis.set_xticks([], minor=True)
    labels = {"group": "messages a context", "contexts": "contexts"}
    axis.set_xlabel(labels.get(growth.varied, f"{growth.varied}, tokens"))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("")
