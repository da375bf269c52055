"""The picture of a set: accuracy against message tokens, of variants, of what they start from, of every baseline."""

from pathlib import Path

from data.writing import write_text
from eval.analysis.density import summarise_one
from eval.report.baselines import Method, baseline_drawing, known_figures
from eval.report.drawing import standalone
from eval.report.page import asset
from train.study.config import UNTRAINED, StudyConfig
from train.study.results import Line, SetFigures


def write_curve(config: StudyConfig, one: SetFigures, lines: list[Line]) -> str | None:
    """Write the picture of a set, an SVG file beside the study's pages.

    Args:
        config: the study's.
        one: the set.
        lines: of its table.

    Returns:
        The path of the file from the folder of the pages; None where nothing has both an accuracy and a length.

    Raises:
        OSError: the file cannot be written.
    """
    baselines = [
        Method(name, None, known_figures(summarise_one(point)))
        for name, points in one.baselines.items()
        for point in points
    ]
    compressors = [
        Method(line.name, None, known_figures(line.figures), held_against=line.name in (config.start, UNTRAINED))
        for line in lines
        if not line.is_baseline
    ]
    drawing = baseline_drawing(baselines, compressors)
    if drawing is None:
        return None
    path = Path("curves") / f"{one.name.replace('/', '-')}.svg"
    (config.pages_folder / path.parent).mkdir(parents=True, exist_ok=True)
    write_text(config.pages_folder / path, standalone(drawing, asset("page.css")))
    return path.as_posix()
