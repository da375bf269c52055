"""What the figures of a sweep show: series of points with their intervals."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

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


def plots(results: Results) -> list[Plot]:
    """What the figures of points show."""
    compressor, colours = "compressor parameters", "answered by"
    return [
        Plot(
            "accuracy-by-compressor",
            "Accuracy as the compressor grows",
            by_compressor(results, "accuracy"),
            compressor,
            "accuracy",
            colours,
            log_x=True,
            share=True,
        ),
        Plot(
            "accuracy-by-predictor",
            "Accuracy as the predictor grows",
            by_predictor(results, "accuracy"),
            "predictor parameters",
            "accuracy",
            "messages by",
            log_x=True,
            share=True,
        ),
        Plot(
            "perplexity-by-compressor",
            "Perplexity of the right answer as the compressor grows",
            by_compressor(results, "perplexity"),
            compressor,
            "perplexity",
            colours,
            log_x=True,
        ),
        Plot(
            "message-tokens",
            "Message length as the compressor grows",
            of_messages(results, {"message_tokens": "tokens"}),
            compressor,
            "tokens a message",
            log_x=True,
        ),
        Plot(
            "information",
            "Information passed as the compressor grows",
            of_messages(
                results,
                {
                    "information_bits": "lower bound",
                    "information_upper_bits": "upper bound",
                    "second_information_bits": "lower bound, second scorer",
                    "information_ceiling_bits": "ceiling of the lower bounds",
                },
            ),
            compressor,
            "bits a message",
            log_x=True,
        ),
        Plot(
            "bits-per-token",
            "Information density as the compressor grows",
            of_messages(results, {"bits_per_token": "scorer", "second_bits_per_token": "second scorer"}),
            compressor,
            "bits per token",
            log_x=True,
        ),
        information_plot(results),
        rate_distortion_plot(results),
        Plot(
            "flops-accuracy",
            "Accuracy against the cost of writing a message",
            flops_series(results),
            "compressor FLOPs per generation",
            "accuracy",
            colours,
            log_x=True,
            share=True,
        ),
    ]


def by_compressor(results: Results, measure: str) -> list[Series]:
    """A line for every predictor and setting over the compressors' parameters."""
    sizes = {one["name"]: one for one in results["compressors"]}
    settings = list(dict.fromkeys(one["setting"] for one in results["compressors"]))
    return [
        Series(
            _labelled(predictor["name"], setting),
            tuple(
                Point(
                    exactly(sizes[cell["compressor"]]["parameters"]), cell[measure], sizes[cell["compressor"]]["family"]
                )
                for cell in results["cells"]
                if cell["task"] is None
                and cell["predictor"] == predictor["name"]
                and sizes[cell["compressor"]]["setting"] == setting
            ),
        )
        for predictor in results["predictors"]
        for setting in settings
    ]


def by_predictor(results: Results, measure: str) -> list[Series]:
    """A line for every compressor over the predictors' parameters."""
    sizes = {one["name"]: one for one in results["predictors"]}
    return [
        Series(
            compressor["name"],
            tuple(
                Point(
                    exactly(sizes[cell["predictor"]]["parameters"]), cell[measure], sizes[cell["predictor"]]["family"]
                )
                for cell in results["cells"]
                if cell["task"] is None and cell["compressor"] == compressor["name"]
            ),
        )
        for compressor in results["compressors"]
    ]


def of_messages(results: Results, measures: Mapping[str, str]) -> list[Series]:
    """A line for every measure and setting over the compressors' parameters."""
    sizes = {one["name"]: one for one in results["compressors"]}
    settings = list(dict.fromkeys(one["setting"] for one in results["compressors"]))
    return [
        Series(
            _labelled(name, setting),
            tuple(
                Point(
                    exactly(sizes[cell["compressor"]]["parameters"]), cell[measure], sizes[cell["compressor"]]["family"]
                )
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
    families = {one["name"]: one["family"] for one in results["compressors"]}
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
    wanted = ("information_bits", "perplexity", "pearson")
    found = next(c["coefficient"] for c in results["correlations"] if (c["x"], c["y"], c["method"]) == wanted)
    r = "" if found["value"] is None else f", r = {found['value']:+.2f}"
    title = f"Information against perplexity of the right answer{r}"
    return Plot("information-perplexity", title, series, "information passed, bits", "perplexity")


def rate_distortion_plot(results: Results) -> Plot:
    """A point for every compressor and task, coloured by predictor, and the curve fitted through them."""
    families = {one["name"]: one["family"] for one in results["compressors"]}
    found = results["rate_distortion"]
    series = [
        Series(
            one["predictor"],
            tuple(Point(p["bits_per_token"], p["distortion"], families[p["compressor"]]) for p in one["points"]),
            joined=False,
        )
        for one in found
    ]
    curves = {one["predictor"]: curve_of(one["curve"]) for one in found if one["curve"] is not None}
    x, y = "rate: bits per token", "distortion: 1 − accuracy"
    return Plot("rate-distortion", "Rate against distortion, by task", series, x, y, "answered by", curves=curves)


def curve_of(curve: Mapping[str, float]) -> Callable[[np.ndarray], np.ndarray]:
    """D(R) = C exp(-b R) + D0 from its parameters."""
    return lambda rates: curve["scale"] * np.exp(-curve["decay"] * rates) + curve["floor"]


def flops_series(results: Results) -> list[Series]:
    """A line for every predictor over what its compressors' messages cost to write."""
    cost = {cell["compressor"]: cell["generation_flops"] for cell in results["messages"] if cell["task"] is None}
    families = {one["name"]: one["family"] for one in results["compressors"]}
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


def exactly(value: float | None) -> Figure:
    """A figure that is counted, not estimated."""
    return {"value": value, "low": None, "high": None}


def _labelled(name: str, setting: str) -> str:
    return f"{name}, {setting}" if setting else name
