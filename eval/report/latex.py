r"""The report's tables as LaTeX, to be read with \input; names in them are free text, and stay text."""

import re
from collections.abc import Callable, Iterable, Sequence

from eval.report.formats import printable
from eval.report.headline import headline
from eval.report.results import Results
from eval.report.tables import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    # After the end of a line these would be read as arguments of it.
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
_OPENING = r"""% Needs \usepackage{booktabs,adjustbox} and, for "\textquotedbl", \usepackage[T1]{fontenc}.
% Names in other scripts than Latin need LuaLaTeX or XeLaTeX."""


def latex(results: Results, tables: Sequence[Table]) -> str:
    r"""The headline as comments and every table as a ``table`` environment, labelled ``tab:`` and its name.

    Args:
        results: the contents of ``results.json``.
        tables: the tables.

    Returns:
        A fragment for ``\input`` that ends in a line break.
    """
    answer = headline(results)
    said = (answer.sentence, answer.second, answer.explanation)
    comments = "\n".join(f"% {printable(sentence)}" for sentence in said if sentence)
    return "\n\n".join([_OPENING, comments, *map(_environment, tables)]) + "\n"


def _environment(table: Table) -> str:
    align = "l" * table.names + "r" * (len(table.columns) - table.names)
    caption = ". ".join(filter(None, [_escaped(table.title), _escaped(table.note)]))
    return "\n".join(
        [
            r"\begin{table}[htbp]",
            r"\centering",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{table.name.replace('_', '-')}}}",
            r"\begin{adjustbox}{max width=\linewidth}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            _line(table.columns, _escaped),
            r"\midrule",
            *(_body_line(line, table.names) for line in table.lines),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            r"\end{table}",
        ]
    )


def _body_line(line: Sequence[str], names: int) -> str:
    return " & ".join([*map(_escaped, line[:names]), *map(_figure, line[names:])]) + r" \\"


def _line(cells: Iterable[str], text: Callable[[str], str]) -> str:
    return " & ".join(map(text, cells)) + r" \\"


def _figure(text: str) -> str:
    """A figure with the signs print has: minus and times."""
    signed = re.sub(r"(?<!\w)-(?=[\d.])", "$-$", _escaped(text))
    return re.sub(r"(?<=\d)x\b", r"$\\times$", signed)


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in printable(text))
