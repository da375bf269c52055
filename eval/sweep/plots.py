"""What the figures of a sweep show: series of points with their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.report.results import Figure
from eval.sweep.results import Results


@dataclass(frozen=True)
class Point:
    """A place with the intervals of its coordinates; ``family`` sets its marker."""

    x: Figure
    y: Figure
    family: str = ""

    @property
    def place(self) -> tuple[float, float] | None:
        """None where a coordinate was not measured."""
        x, y = self.x["value"], self.y["value"]
        return None if x is None or y is None else (x, y)


@dataclass(frozen=True)
class Series:
    """Points of one colour; ``joined`` draws a line through them in the order of x."""

    name: str
    points: tuple[Point, ...]
    joined: bool = True


@dataclass(frozen=True)
class Plot:
    """What a figure of points shows and how: labels, what colours mean, the kind of its axes, and a curve by series."""

    name: str
    title: str
    series: Sequence[Series]
    x: str
    y: str
    colours: str = ""
    log_x: bool = False
    share: bool = False
    curves: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None


PARAMETERS = "compressor parameters"
"""The axis of most figures: the study's question is what grows with the compressor."""

ANSWERED_BY = "answered by"
"""What colours mean where a line is a predictor."""


def plots(results: Results) -> list[Plot]:
    """All figures of points, in the order of the page."""
    return [
        *_answer_plots(results),
        *_message_plots(results),
        information_plot(results),
        rate_distortion_plot(results),
        flops_plot(results),
    ]


def _answer_plots(results: Results) -> list[Plot]:
    """The predictor's answers, as the compressor or the predictor grows."""
    return [
        Plot(
            name="accuracy-by-compressor",
            title="Accuracy as the compressor grows",
            series=compressor_series(results, "accuracy"),
            x=PARAMETERS,
            y="accuracy",
            colours=ANSWERED_BY,
            log_x=True,
            share=True,
        ),
        Plot(
            name="accuracy-by-predictor",
            title="Accuracy as the predictor grows",
            series=predictor_series(results, "accuracy"),
            x="predictor parameters",
            y="accuracy",
            colours="messages by",
            log_x=True,
            share=True,
        ),
        Plot(
            name="perplexity-by-compressor",
            title="Perplexity of the right answer as the compressor grows",
            series=compressor_series(results, "perplexity"),
            x=PARAMETERS,
            y="perplexity",
            colours=ANSWERED_BY,
            log_x=True,
        ),
    ]


def _message_plots(results: Results) -> list[Plot]:
    """The messages themselves, as the compressor grows."""
    bounds = {
        "information_bits": "lower bound",
        "information_upper_bits": "upper bound",
        "second_information_bits": "lower bound, second scorer",
        "information_ceiling_bits": "ceiling of the lower bounds",
    }
    densities = {"bits_per_token": "scorer", "second_bits_per_token": "second scorer"}
    panels = (
        ("message-tokens", "Message length", {"message_tokens": "tokens"}, "tokens a message"),
        ("information", "Information passed", bounds, "bits a message"),
        ("bits-per-token", "Information density", densities, "bits per token"),
    )
    return [
        Plot(
            name=name,
            title=f"{subject} as the compressor grows",
            series=message_series(results, measures),
            x=PARAMETERS,
            y=unit,
            log_x=True,
        )
        for name, subject, measures, unit in panels
    ]


def flops_plot(results: Results) -> Plot:
    """Accuracy over what the compressor spends on a message."""
    return Plot(
        name="flops-accuracy",
        title="Accuracy against the cost of writing a message",
        series=flops_series(results),
        x="compressor FLOPs per generation",
        y="accuracy",
        colours=ANSWERED_BY,
        log_x=True,
        share=True,
    )


def compressor_series(results: Results, measure: str) -> list[Series]:
    """A line for every predictor and setting over the compressors' parameters."""
    sizes = {member["name"]: member for member in results["compressors"]}
    settings = list(dict.fromkeys(member["setting"] for member in results["compressors"]))
    return [
        Series(
            _labelled(predictor["name"], setting),
            tuple(
                _sized_point(sizes[cell["compressor"]], cell[measure])
                for cell in results["cells"]
                if cell["task"] is None
                and cell["predictor"] == predictor["name"]
                and sizes[cell["compressor"]]["setting"] == setting
            ),
        )
        for predictor in results["predictors"]
        for setting in settings
    ]


def predictor_series(results: Results, measure: str) -> list[Series]:
    """A line for every compressor over the predictors' parameters."""
    sizes = {member["name"]: member for member in results["predictors"]}
    return [
        Series(
            compressor["name"],
            tuple(
                _sized_point(sizes[cell["predictor"]], cell[measure])
                for cell in results["cells"]
                if cell["task"] is None and cell["compressor"] == compressor["name"]
            ),
        )
        for compressor in results["compressors"]
    ]


def message_series(results: Results, measures: Mapping[str, str]) -> list[Series]:
    """A line for every measure and setting over the compressors' parameters."""
    sizes = {member["name"]: member for member in results["compressors"]}
    settings = list(dict.fromkeys(member["setting"] for member in results["compressors"]))
    return [
        Series(
            _labelled(name, setting),
            tuple(
                _sized_point(sizes[cell["compressor"]], cell[measure])
                for cell in results["messages"]
                if cell["task"] is None and sizes[cell["compressor"]]["setting"] == setting
            ),
        )
        for measure, name in measures.items()
        for setting in settings
    ]


def information_plot(results: Results) -> Plot:
    """A point for every compressor and task, coloured by task, and r over all of them."""
    cells = results["information_cells"]
    families = {member["name"]: member["family"] for member in results["compressors"]}
    series = [
        Series(
            task,
            tuple(
                Point(cell["information_bits"], cell["perplexity"], families[cell["compressor"]])
                for cell in cells
                if cell["task"] == task
            ),
            joined=False,
        )
        for task in dict.fromkeys(cell["task"] for cell in cells)
    ]
    pair = ("information_bits", "perplexity", "pearson")
    coefficient = next(c["coefficient"] for c in results["correlations"] if (c["x"], c["y"], c["method"]) == pair)
    r = "" if coefficient["value"] is None else f", r = {coefficient['value']:+.2f}"
    title = f"Information against perplexity of the right answer{r}"
    return Plot("information-perplexity", title, series, "information passed, bits", "perplexity")


def rate_distortion_plot(results: Results) -> Plot:
    """A point for every compressor and task, coloured by predictor, and the curve fitted through them."""
    families = {member["name"]: member["family"] for member in results["compressors"]}
    entries = results["rate_distortion"]
    series = [
        Series(
            entry["predictor"],
            tuple(Point(p["bits_per_token"], p["distortion"], families[p["compressor"]]) for p in entry["points"]),
            joined=False,
        )
        for entry in entries
    ]
    curves = {entry["predictor"]: fitted_curve(entry["curve"]) for entry in entries if entry["curve"] is not None}
    x, y = "rate: bits per token", "distortion: 1 − accuracy"
    return Plot("rate-distortion", "Rate against distortion, by task", series, x, y, "answered by", curves=curves)


def fitted_curve(curve: Mapping[str, float]) -> Callable[[np.ndarray], np.ndarray]:
    """D(R) = C exp(-b R) + D0 from its parameters."""
    return lambda rates: curve["scale"] * np.exp(-curve["decay"] * rates) + curve["floor"]


def flops_series(results: Results) -> list[Series]:
    """A line for every predictor over what its compressors' messages cost to write."""
    cost = {cell["compressor"]: cell["generation_flops"] for cell in results["messages"] if cell["task"] is None}
    families = {member["name"]: member["family"] for member in results["compressors"]}
    return [
        Series(
            predictor["name"],
            tuple(
                Point(cost[cell["compressor"]], cell["accuracy"], families[cell["compressor"]])
                for cell in results["cells"]
                if cell["task"] is None and cell["predictor"] == predictor["name"]
            ),
        )
        for predictor in results["predictors"]
    ]


def _sized_point(member: Mapping[str, Any], figure: Figure) -> Point:
    """A figure over the parameters of a member of the sweep."""
    return Point(exact_figure(member["parameters"]), figure, member["family"])


def exact_figure(value: float | None) -> Figure:
    """A figure that is counted, not estimated."""
    return {"value": value, "low": None, "high": None}


def _labelled(name: str, setting: str) -> str:
    return f"{name}, {setting}" if setting else name
