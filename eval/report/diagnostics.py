"""The further estimators of information: the ``diagnostics`` of a run as a table."""

from collections.abc import Mapping

from eval.diagnostics import DIAGNOSTICS, DiagnosticFigure
from eval.report.formats import figure_text, number
from eval.report.tables import Table


def diagnostics_table(stages: Mapping[str, Mapping[str, DiagnosticFigure]]) -> Table | None:
    """A line for every stage and estimator, in bits, with the side of the truth it stands on; None where there is none.

    Args:
        stages: ``diagnostics`` of ``results.json``: by stage, then by the estimator's key.
    """
    lines = tuple(
        (
            DIAGNOSTICS[name].label if name in DIAGNOSTICS else name,
            stage,
            figure["side"],
            figure_text({"value": figure["value"], "low": figure["low"], "high": figure["high"]}, number),
            f"{figure['missing']:,}",
        )
        for stage, figures in stages.items()
        for name, figure in figures.items()
    )
    heading = ("Estimator", "Training", "Side of the truth", "Information, bits", "Records without a score")
    return Table("diagnostics", "Further estimators of information", heading, lines, names=3) if lines else None
