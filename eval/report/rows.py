"""The columns and rows of a table of results, and what changed between its two stages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from eval.report.formats import UNMEASURED, Format, bounds_text, number, percent, points, signed, value_text
from eval.report.headline import inverted
from eval.report.results import Figure, FigureName, Stage, StageFigures, Summary

MISSING: Figure = {"value": None, "low": None, "high": None}
"""A figure that results do not have."""


@dataclass(frozen=True)
class Column:
    """One figure of the results as a table shows it.

    Attributes:
        figure: its key in ``results.json``.
        label: its heading.
        format: how its value is written.
        ceiling: the key of the most that it could be, which is written beside it.
    """

    figure: FigureName
    label: str
    format: Format
    ceiling: FigureName | None = None

    def of(self, figures: Mapping[Any, Any]) -> Figure:
        """The figure among those of a stage, which in results of an older version may be missing."""
        return cast(Figure, figures.get(self.figure) or MISSING)

    def value(self, figures: Mapping[Any, Any]) -> str:
        """Its value without the interval, such as ``2.76 of 3.00``."""
        text, ceiling = value_text(self.of(figures), self.format), figures.get(self.ceiling or "")
        if ceiling is None or ceiling["value"] is None or self.of(figures)["value"] is None:
            return text
        return f"{text} of {self.format(ceiling['value'])}"

    def bounds(self, figures: Mapping[Any, Any]) -> str:
        """Its interval in brackets."""
        return bounds_text(self.of(figures), self.format)

    def text(self, figures: Mapping[Any, Any]) -> str:
        """Its value and its interval."""
        return f"{self.value(figures)} {self.bounds(figures)}".strip()


COLUMNS = (
    Column("accuracy", "Accuracy", percent),
    Column("message_tokens", "Message tokens", number),
    Column("information_bits", "Information, bits", number, "information_ceiling_bits"),
    Column("bits_per_token", "Bits per token", number),
    Column("task_information_bits", "Task information, bits", number),
    Column("information_upper_bits", "Upper bound, bits", number),
    Column("second_information_bits", "By the second scorer, bits", number),
    Column("perplexity", "Perplexity", number),
    Column("saturated_share", "At the ceiling", percent),
)

LEADING = COLUMNS[:4]
"""What training is for, in the order of ``changes``: as many right answers and as many bits, in fewer tokens."""


@dataclass(frozen=True)
class Row:
    """One row of a table: all tasks together, one task, or one kind of question."""

    name: str
    before: StageFigures
    after: StageFigures

    @property
    def sides(self) -> dict[Stage, StageFigures]:
        """The figures of both stages; those after training alone where nothing was evaluated before."""
        return {"before": self.before, "after": self.after} if self.before["n"] else {"after": self.after}

    @property
    def count(self) -> str:
        """The number of questions, of both stages where they differ."""
        before, after = self.before["n"], self.after["n"]
        return f"{after:,}" if before in (0, after) else f"{before:,} -> {after:,}"


class Change(NamedTuple):
    """What became of one of the ``LEADING`` figures, as text: the figure's label, by how much, and the interval."""

    label: str
    amount: str
    interval: str


def is_compared(results: Summary) -> bool:
    """Whether there is something the compressor was held against."""
    return results["overall"]["before"]["n"] > 0


def rows(results: Summary) -> list[Row]:
    """All tasks together first, then each task in the order of the results."""
    named = [("overall", results["overall"]), *results["tasks"].items()]
    return [Row(name, stages["before"], stages["after"]) for name, stages in named]


def kind_rows(results: Summary) -> list[Row]:
    """The kinds of question of every task that has several."""
    return [
        Row(f"{task}, {kind or 'no kind'}", stages["before"], stages["after"])
        for task, kinds in results.get("kinds", {}).items()
        for kind, stages in kinds.items()
    ]


def is_measured(row: Row, column: Column) -> bool:
    """Whether either stage of the row has the column's figure, which results of an older version may not know."""
    return any(column.of(stage)["value"] is not None for stage in (row.before, row.after))


def measured_columns(table: Sequence[Row], columns: Sequence[Column] = COLUMNS) -> list[Column]:
    """The columns for which some row has a figure."""
    return [column for column in columns if any(is_measured(row, column) for row in table)]


def missing_note(results: Summary) -> str:
    """How many messages the means leave out; empty where none is left out."""
    before, after = (results["overall"][stage]["missing"] for stage in ("before", "after"))
    if not before and not after:
        return ""
    counts = f"{before:,} before training, {after:,} after" if is_compared(results) else f"{after:,}"
    return f"Messages left out of a mean for want of a score: {counts}."


def changes(results: Summary) -> list[Change]:
    """The change of each figure in ``LEADING``."""
    change = results["change"]
    return [
        _change("Accuracy", change["accuracy"], points, "{} points"),
        _token_change(change["message_tokens_ratio"]),
        _change("Information, bits", change.get("information_bits") or MISSING, signed, "{} bits"),
        _change("Bits per token", change["bits_per_token_ratio"], number, "{}x"),
    ]


def _token_change(tokens: Figure) -> Change:
    """The change of length, from tokens before over tokens after."""
    label = "Message tokens"
    if tokens["value"] is not None and number(tokens["value"]) == number(1):
        return Change(label, "as many", bounds_text(tokens, number))
    if tokens["value"] is not None and tokens["value"] < 1:
        return _change(label, inverted(tokens), number, "{}x more")
    return _change(label, tokens, number, "{}x fewer")


def _change(label: str, figure: Figure, form: Format, template: str) -> Change:
    amount = UNMEASURED if figure["value"] is None else template.format(form(figure["value"]))
    return Change(label, amount, bounds_text(figure, form))
