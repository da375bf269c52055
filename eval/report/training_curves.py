"""The pictures of training: one panel for each group of metrics, over the steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eval.report.drawing import Colour, Drawing, canvas, inline_svg, set_round_ticks

MAX_POINTS = 240
"""Points of a line: about one for each pixel of a panel, so a long run does not make a large page."""

Steps = Float[np.ndarray, " steps"]


@dataclass(frozen=True)
class Line:
    """One line of a training curve: a key of ``metrics.jsonl``, and its name where the panel has several."""

    key: str
    colour: Colour = Colour.AFTER
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """One training curve: a title and the lines under it; a share is shown in percent."""

    title: str
    lines: tuple[Line, ...]
    is_share: bool = False


PANELS = (
    Panel("Reward", (Line("reward"),)),
    Panel(
        "Reward by component",
        (
            Line("rewards/accuracy/mean", Colour.AFTER, "accuracy"),
            Line("rewards/information/mean", Colour.SECOND, "information"),
            Line("rewards/length/mean", Colour.THIRD, "length"),
        ),
    ),
    Panel("Accuracy", (Line("accuracy"),), is_share=True),
    Panel("Tokens a message", (Line("message_tokens"),)),
    Panel(
        "Information passed, bits",
        (
            Line("information_bits", Colour.AFTER, "lower bound"),
            Line("information_upper_bits", Colour.SECOND, "upper bound"),
        ),
    ),
    Panel("Bits per token", (Line("bits_per_token"),)),
    Panel("Task information, bits", (Line("task_information_bits"),)),
    Panel("Messages at the ceiling", (Line("saturated_share"),), is_share=True),
)


def smoothing_window(steps: int) -> int:
    """The width of the running mean drawn over that many steps: a twentieth of them."""
    return max(1, steps // 20)


def training_curves(metrics: Sequence[Mapping[str, Any]]) -> list[Drawing]:
    """One drawing per panel that has data: every step faint, its running mean in full colour.

    Args:
        metrics: the lines of ``metrics.jsonl``; of several lines of one step the last counts, as after a resumption.
    """
    by_step = {int(line["step"]): line for line in metrics if _is_number(line.get("step"))}
    lines = [by_step[step] for step in sorted(by_step)]
    drawings = (_training_curve(panel, lines, index) for index, panel in enumerate(PANELS))
    return [drawing for drawing in drawings if drawing is not None]


def _training_curve(panel: Panel, metrics: Sequence[Mapping[str, Any]], index: int) -> Drawing | None:
    series = [(line, *_series(metrics, line.key)) for line in panel.lines]
    series = [(line, steps, values) for line, steps, values in series if len(steps)]
    if not series:
        return None
    with canvas(3.5, 2.0) as (figure, axes):
        for line, steps, values in series:
            _draw_line(axes, line.colour, steps, values, smoothing_window(len(metrics)))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        set_round_ticks(axes.yaxis, 4)
        if panel.is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        svg = inline_svg(figure, f"curve{index}", panel.title)
    legend = tuple((line.name, line.colour.custom_property) for line, _, _ in series if line.name)
    ends = "; ".join(f"{line.name} {_ends(values)}".strip() for line, _, values in series)
    _, steps, _ = series[0]
    return Drawing(panel.title, svg, legend, f"Over steps {steps[0]:.0f} to {steps[-1]:.0f}: {ends}.")


def _ends(values: Steps) -> str:
    return f"from {values[0]:.3g} to {values[-1]:.3g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))


def _series(metrics: Sequence[Mapping[str, Any]], key: str) -> tuple[Steps, Steps]:
    """Steps and values of one metric, without the steps that lack it."""
    kept = [(line["step"], line[key]) for line in metrics if _is_number(line.get(key))]
    steps, values = np.array(kept, dtype=float).reshape(-1, 2).T
    return steps, values


def _draw_line(axes: Axes, colour: Colour, steps: Steps, values: Steps, window: int) -> None:
    if window > 1:
        axes.plot(*_thinned(steps, values), color=colour, alpha=0.28, linewidth=0.7)
    smooth = _running_mean(values, window)
    axes.plot(*_thinned(steps, smooth), color=colour, linewidth=1.7, solid_capstyle="round")
    if len(steps) == 1:
        axes.plot(steps, values, marker="o", color=colour)


def _running_mean(values: Steps, window: int) -> Steps:
    """The mean over a window centred at each step; at both ends over what there is of the window."""
    kernel = np.ones(min(window, len(values)))
    return np.convolve(values, kernel, "same") / np.convolve(np.ones_like(values), kernel, "same")


def _thinned(steps: Steps, values: Steps) -> tuple[Float[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """Means over neighbouring steps, at most ``MAX_POINTS`` of them."""
    bins = np.array_split(np.arange(len(steps)), min(len(steps), MAX_POINTS))
    return np.array([steps[part].mean() for part in bins]), np.array([values[part].mean() for part in bins])
