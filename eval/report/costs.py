"""What an answer costs: the ``flops`` of a run, for each model and way of asking it, as a table."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from eval.report.formats import UNMEASURED, Format, number, quantity
from eval.report.results import CostEntry, check_entries
from eval.report.tables import Table


class CostColumn(NamedTuple):
    """One kind of cost as the table shows it; ``key`` is its key in ``results.json``."""

    key: Literal[
        "prompt_tokens",
        "generated_tokens",
        "prefill_flops",
        "generation_flops",
        "flops_per_generated_token",
        "prefill_seconds",
    ]
    label: str
    format: Format


COST_COLUMNS = (
    CostColumn("prompt_tokens", "Tokens read", number),
    CostColumn("generated_tokens", "Tokens written", number),
    CostColumn("prefill_flops", "Reading (prefill), FLOPs", quantity),
    CostColumn("generation_flops", "Writing, FLOPs", quantity),
    CostColumn("flops_per_generated_token", "FLOPs a token written", quantity),
    CostColumn("prefill_seconds", "Reading (prefill), seconds", number),
)


def cost_table(entries: Sequence[CostEntry]) -> Table | None:
    """A line for every entry of ``flops`` in ``results.json``; None where nothing was counted.

    Raises:
        DataError: an entry has no name.
    """
    check_entries("flops", entries, CostEntry)
    columns = [column for column in COST_COLUMNS if any(entry.get(column.key) is not None for entry in entries)]
    if not columns:
        return None
    lines = tuple((str(entry["name"]), *(_cost_text(entry, column) for column in columns)) for entry in entries)
    return Table("flops", "What an answer costs", ("Model", *(column.label for column in columns)), lines)


def _cost_text(entry: CostEntry, column: CostColumn) -> str:
    cost = entry.get(column.key)
    return UNMEASURED if cost is None else column.format(cost)
