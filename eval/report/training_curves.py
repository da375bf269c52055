"""The pictures of training: one panel for each group of metrics, over the steps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from eval.report.drawing import Colour, Drawing, canvas, inline_svg, set_round_ticks, spread_out
from eval.report.formats import number, percent
from eval.report.results import FigureName, Stage, Stages

MAX_POINTS = 240
"""Points of a line: about one for each pixel of a panel, so a long run does not make a large page."""

LAST_VALUE_GAP = 0.13
"""Height of a written value, as a share of axes that are 1.3 inches high."""

Steps = Float[np.ndarray, " steps"]


@dataclass(frozen=True)
class Line:
    """One line of a training curve: a key of ``metrics.jsonl``, and its name where the panel has several."""

    key: str
    colour: Colour = Colour.AFTER
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """One training curve.

    Attributes:
        title: what it shows.
        lines: the lines in it.
        is_share: a share is shown in percent.
        ceiling: the key of the most that the line could be, drawn dashed.
        figure: the figure of an evaluation that measures the same on held-out questions.
        watched: the key of the same of greedy messages about held-out questions, measured while training.
    """

    title: str
    lines: tuple[Line, ...]
    is_share: bool = False
    ceiling: str = ""
    figure: FigureName | None = None
    watched: str = ""


HELD_OUT = "held_out/"
"""What the keys of figures begin with that are measured on held-out questions while a run trains; they have lines of
their own in ``metrics.jsonl``."""

PANELS = (
    Panel("Reward", (Line("reward"),), watched="held_out/reward"),
    Panel(
        "Reward by component",
        (
            Line("rewards/accuracy/mean", Colour.AFTER, "accuracy"),
            Line("rewards/information/mean", Colour.SECOND, "information"),
            Line("rewards/length/mean", Colour.THIRD, "length"),
        ),
    ),
    Panel("Accuracy", (Line("accuracy"),), is_share=True, figure="accuracy", watched="held_out/accuracy"),
    Panel("Tokens a message", (Line("message_tokens"),), figure="message_tokens", watched="held_out/message_tokens"),
    Panel(
        "Information a message, lower bound, bits",
        (Line("information_bits"),),
        ceiling="information_ceiling_bits",
        figure="information_bits",
        watched="held_out/information_bits",
    ),
    Panel("Bits per token", (Line("bits_per_token"),), figure="bits_per_token", watched="held_out/bits_per_token"),
    Panel("Task information, bits", (Line("task_information_bits"),), figure="task_information_bits"),
    Panel("Messages at the ceiling", (Line("saturated_share"),), is_share=True, figure="saturated_share"),
    Panel("Leave-one-out value, bits", (Line("information_upper_bits"),), figure="information_upper_bits"),
)
"""The leave-one-out value bounds the messages of the scorer itself; of a trained compressor's it is a diagnostic. It is
several times the lower bound, which would be a flat line beside it."""


def smoothing_window(steps: int) -> int:
    """The width of the running mean drawn over that many steps: a twentieth of them."""
    return max(1, steps // 20)


@dataclass(frozen=True)
class HeldOut:
    """What is known of held-out questions, to be drawn beside the course of training.

    Attributes:
        ends: the figures of sampled messages before and after; None where they are not to be drawn.
        watched: the lines of greedy messages, measured while training.
        kept: the step whose adapter the run has left; None where that is the last one.
    """

    ends: Stages | None
    watched: Sequence[Mapping[str, Any]]
    kept: int | None


def is_watched(line: Mapping[str, Any]) -> bool:
    """Whether a line of ``metrics.jsonl`` holds figures of held-out questions, and none of the training itself."""
    return any(key.startswith(HELD_OUT) for key in line)


def training_curves(
    metrics: Sequence[Mapping[str, Any]], held_out: Stages | None = None, kept: int | None = None
) -> list[Drawing]:
    """One drawing per panel that has data: every step faint, its running mean in full colour with its last value.

    Args:
        metrics: the lines of ``metrics.jsonl``; of several lines of one step the last counts, as after a resumption.
        held_out: the figures of sampled messages about held-out documents, drawn as rings at both ends of training.
        kept: the step whose adapter the run has left, where it was chosen; None is the last one.
    """
    lines = _by_step(line for line in metrics if not is_watched(line))
    known = HeldOut(held_out, _by_step(line for line in metrics if is_watched(line)), kept)
    drawings = (_training_curve(panel, lines, index, known) for index, panel in enumerate(PANELS))
    return [drawing for drawing in drawings if drawing is not None]


def _by_step(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines in the order of their steps, of several of one step the last."""
    by_step = {int(line["step"]): line for line in lines if _is_number(line.get("step"))}
    return [by_step[step] for step in sorted(by_step)]


def _training_curve(
    panel: Panel, metrics: Sequence[Mapping[str, Any]], index: int, held_out: HeldOut
) -> Drawing | None:
    series = [(line, *_series(metrics, line.key)) for line in panel.lines]
    series = [(line, steps, values) for line, steps, values in series if len(steps)]
    if not series:
        return None
    window = smoothing_window(len(metrics))
    legend = [(line.name, line.colour.custom_property) for line, _, _ in series if line.name]
    _, steps, _ = series[0]
    with canvas(3.5, 2.1) as (figure, axes):
        for line, line_steps, values in series:
            _draw_line(axes, line.colour, line_steps, values, window)
        if _draw_ceiling(axes, *_series(metrics, panel.ceiling)):
            legend.append(("ceiling, dashed", Colour.MUTED.custom_property))
        _draw_ends(axes, panel, steps, held_out)
        if watched := _draw_watched(axes, panel, held_out):
            legend = [("sampled, trained on", Colour.AFTER.custom_property), *legend]
            legend.append(("greedy, held out", Colour.SECOND.custom_property))
        set_round_ticks(axes.yaxis, 4)
        if panel.is_share:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.set_xlabel("step")
        axes.set_xticks(_step_ticks(int(steps[0]), int(steps[-1])))
        _write_last_values(axes, panel, [_running_mean(values, window)[-1] for _, _, values in series])
        svg = inline_svg(figure, f"curve{index}", panel.title)
    ends = "; ".join(f"{line.name} {_ends(values)}".strip() for line, _, values in series)
    told = f"Over steps {steps[0]:.0f} to {steps[-1]:.0f}: {ends}.{watched}"
    return Drawing(panel.title, svg, tuple(legend), told)


def _step_ticks(first: int, last: int) -> list[int]:
    """Round steps, and the last one; a round one too near to the last gives way to it."""
    round_steps = [int(tick) for tick in MaxNLocator(4, integer=True).tick_values(first, last)]
    return [tick for tick in round_steps if first <= tick < last - 0.12 * (last - first)] + [last]


def _draw_ceiling(axes: Axes, steps: Steps, values: Steps) -> bool:
    """Whether there was one to draw."""
    axes.plot(steps, values, color=Colour.MUTED, linewidth=1.0, linestyle=(0, (4, 3)))
    return len(steps) > 0


def _draw_watched(axes: Axes, panel: Panel, held_out: HeldOut) -> str:
    """Diamonds where greedy messages were measured, and an upright line at the step that is kept; both in words."""
    steps, values = _series(held_out.watched, panel.watched)
    if not len(steps):
        return ""
    axes.plot(steps, values, color=Colour.SECOND, linewidth=1.0, marker="D", markersize=3.2, clip_on=False, zorder=3)
    told = f" Greedy and held out, steps {steps[0]:.0f} to {steps[-1]:.0f}: {_ends(values)}."
    if held_out.kept is None:
        return told
    axes.axvline(held_out.kept, color=Colour.MUTED, linewidth=0.8)
    return f"{told} The adapter of step {held_out.kept} is kept."


def _draw_ends(axes: Axes, panel: Panel, steps: Steps, held_out: HeldOut) -> None:
    """Rings at step 0 and at the step whose adapter is measured in the end."""
    if held_out.ends is None or panel.figure is None:
        return
    last = float(steps[-1]) if held_out.kept is None else float(held_out.kept)
    ends: tuple[tuple[Stage, float, Colour], ...] = (("before", 0.0, Colour.BEFORE), ("after", last, Colour.AFTER))
    for stage, step, colour in ends:
        figure = held_out.ends[stage].get(panel.figure)
        if figure and figure["value"] is not None:
            value = figure["value"]
            axes.plot(step, value, marker="o", markersize=6, fillstyle="none", color=colour, clip_on=False, zorder=4)


def _write_last_values(axes: Axes, panel: Panel, values: Sequence[float]) -> None:
    """Each line's last value right of the axes, none over another."""
    bottom, top = axes.get_ylim()
    ordered = sorted(values)
    heights = spread_out([(value - bottom) / (top - bottom) for value in ordered], LAST_VALUE_GAP)
    for value, height in zip(ordered, heights, strict=True):
        text = percent(value) if panel.is_share else number(value)
        axes.text(1.03, height, text, transform=axes.transAxes, va="center", fontsize=8.5)


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
