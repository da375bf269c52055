"""The report's tables as Markdown; names in them are free text, and stay text."""

import re
from collections.abc import Iterable, Sequence

from eval.report.formats import printable
from eval.report.headline import headline
from eval.report.results import Results
from eval.report.tables import Table

# With these escaped no cell can open a tag, an entity, emphasis, code, another cell, or the target of a link or image.
_SPECIAL = re.compile(r"[\\`*_{}()#!|~$]")


def markdown(results: Results, tables: Sequence[Table]) -> str:
    """The headline and every table.

    Args:
        results: the contents of ``results.json``.
        tables: the tables.

    Returns:
        A Markdown document that ends in a line break.
    """
    answer = headline(results)
    said = (answer.sentence, answer.second, answer.explanation, answer.evidence)
    parts = [*said, *(block for table in tables for block in blocks(table))]
    return "\n\n".join(filter(None, parts)) + "\n"


def blocks(table: Table) -> list[str]:
    """A table below its title, and its note."""
    align = ["---"] * table.names + ["---:"] * (len(table.columns) - table.names)
    cells = [_line(map(escaped, table.columns)), _line(align)]
    cells += [_line(map(escaped, line)) for line in table.lines]
    return [f"## {escaped(table.title)}", "\n".join(cells), escaped(table.note)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Free text as the text of a cell or a paragraph."""
    plain = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\g<0>", plain)
