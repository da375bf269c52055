"""What a question costs beside what was measured of its answer: the ``costs`` of a run as tables."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from eval.report.formats import UNMEASURED, Format, number, quantity
from eval.report.results import CostRow, check_entries
from eval.report.tables import Table

Figure = Literal["seconds", "tokens_read", "tokens_written", "flops", "dollars", "joules"]
Model = Literal["compressor", "predictor", "total"]
Part = Literal["per_question", "per_correct"]

NONE_CORRECT = "none is right"
"""What stands where a correct answer has no cost, as there is none."""


def precise(value: float) -> str:
    """Three significant digits without an exponent, however small the value: a price may be a millionth of a dollar."""
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:,.{decimals}f}"


class CostColumn(NamedTuple):
    """One kind of cost; ``model`` and ``figure`` are its keys in ``results.json``."""

    model: Model
    figure: Figure
    label: str
    format: Format

    def value(self, row: CostRow, part: Part) -> float | None:
        """The figure of a row."""
        return row[part].get(self.model, {}).get(self.figure)


FORMATS: dict[Figure, tuple[str, Format]] = {
    "seconds": ("Seconds", precise),
    "tokens_read": ("Tokens read", number),
    "tokens_written": ("Tokens written", number),
    "flops": ("FLOPs", quantity),
    "dollars": ("Dollars", precise),
    "joules": ("Joules", precise),
}
"""The heading of each figure, and how its values are written."""


def _columns(model: Model, *figures: Figure, whose: str = "") -> tuple[CostColumn, ...]:
    return tuple(
        CostColumn(model, figure, f"{whose}{label.lower()}" if whose else label, form)
        for figure, (label, form) in FORMATS.items()
        if figure in figures
    )


TOTALS = _columns("total", "seconds", "flops", "dollars", "joules")
"""What both models take together; tokens of two vocabularies do not add up."""

CORRECT = (
    *TOTALS,
    *_columns("compressor", "tokens_read", "tokens_written", whose="Compressor, "),
    *_columns("predictor", "tokens_read", "tokens_written", whose="Predictor, "),
)
"""What a correct answer takes."""


def question_cost_tables(rows: Sequence[CostRow]) -> list[Table]:
    """What a question costs, by model and together, and what a correct answer costs; nothing that nobody measured.

    Args:
        rows: the ``costs`` of ``results.json``.

    Raises:
        DataError: a row lacks something.
    """
    check_entries("costs", rows, CostRow)
    made = (
        _table("costs", "Costs of a question", rows, TOTALS, "per_question", _note(rows)),
        _table("compressor_costs", "Costs of a question, compressor", rows, _columns("compressor", *FORMATS)),
        _table("predictor_costs", "Costs of a question, predictor", rows, _columns("predictor", *FORMATS)),
        _table("correct_costs", "Costs of a correct answer", rows, CORRECT, "per_correct"),
    )
    return [table for table in made if table is not None]


def _table(
    name: str,
    title: str,
    rows: Sequence[CostRow],
    columns: Sequence[CostColumn],
    part: Part = "per_question",
    note: str = "",
) -> Table | None:
    shown = [column for column in columns if any(column.value(row, part) is not None for row in rows)]
    if not shown:
        return None
    lines = tuple((_name(row), *(_text(row, column, part) for column in shown)) for row in rows)
    return Table(name, title, ("Messages by", *(column.label for column in shown)), lines, note)


def _name(row: CostRow) -> str:
    budget = row.get("budget_tokens")
    return row["name"] if budget is None else f"{row['name']}, {budget:,}"


def _text(row: CostRow, column: CostColumn, part: Part) -> str:
    value = column.value(row, part)
    if value is not None:
        return column.format(value)
    measured = column.value(row, "per_question") is not None
    return NONE_CORRECT if measured and row["correct"] == 0 else UNMEASURED


def _note(rows: Sequence[CostRow]) -> str:
    """How many questions the means leave out; empty where none is left out."""
    told = []
    for row in rows:
        for model, counts in row["missing"].items():
            for figure, count in counts.items():
                # Where nobody measured a figure at all, the cell says so.
                if 0 < count < row["n"]:
                    told.append(f"{_name(row)}: {count:,} of {row['n']:,} ({model}, {figure.replace('_', ' ')})")
    return f"Questions left out of a mean because nobody measured them: {'; '.join(told)}." if told else ""
