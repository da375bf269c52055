"""The report's tables as Markdown and LaTeX: complete, and whatever a name holds stays text."""

import re
from typing import Any

import pytest

from eval.analysis.density import summarise
from eval.report.latex import latex
from eval.report.markdown import markdown
from eval.report.tables import Table, result_tables

HOSTILE = [
    "a|b<script>alert(1)</script>",
    "![x](https://evil.example/x.png)",
    "[x](javascript:alert(1))",
    "`code` **bold** __bold__ ~~gone~~ $x$ &lt;",
    "line\nbreak\x1b[2J\u202e",
    r"\input{/etc/passwd} \write18{id}",
    '50% of #1 & _all_ {x} ~^ $y$ "quoted"',
    "[2cm]",
    "*",
]


def named_table(*names: str) -> Table:
    return Table("names", "Names", ("Task", "Accuracy"), tuple((name, "-5.0% [1.0%, 2x]") for name in names))


@pytest.fixture
def results(records: Any) -> Any:
    """Results of the fabricated records."""
    return summarise(records)


def test_every_task_and_stage_has_a_line_with_its_figures_and_intervals(results: Any) -> None:
    _, tasks, changes = result_tables(results)
    assert [line[:4] for line in tasks.lines[:2]] == [
        ("overall", "before", "24", "12"),
        ("overall", "after", "24", "12"),
    ]
    assert len(tasks.lines) == 2 * 3
    assert tasks.columns[4:8] == ("Accuracy", "Message tokens", "Information, bits", "Bits per token")
    assert tasks.lines[0][5] == "6.00 [no interval]"
    assert re.fullmatch(r"1\.23 of 3\.00 \[\d\.\d\d, \d\.\d\d\]", tasks.lines[0][6])
    assert [line[0] for line in changes.lines] == ["Accuracy", "Message tokens", "Information, bits", "Bits per token"]
    assert changes.lines[1][1] == "2.00x fewer"


def test_greedy_messages_have_tables_of_their_own(results: Any) -> None:
    names = [table.name for table in result_tables(results | {"greedy": results})]
    assert names == ["summary", "greedy", "greedy_changes", "tasks", "changes"]


def test_the_first_table_has_greedy_and_sampled_messages_side_by_side(results: Any) -> None:
    summary, *_ = result_tables(results | {"greedy": results})
    assert summary.columns == (
        "Figure", "Greedy before", "Greedy after", "Greedy change", "Sampled before", "Sampled after", "Sampled change"
    )  # fmt: skip
    information = summary.lines[2]
    assert information[0] == "Information, bits" and information[1:4] == information[4:]
    assert information[1].startswith("1.23 of 3.00 [") and information[3] == "+0.00 bits [no interval]"


def test_kinds_of_question_have_a_table_after_that_of_the_tasks(records: Any) -> None:
    mixed: Any = summarise(
        [record | {"kind": f"kind {record['id'][-1]}"} for record in records if record["task"] == "notes"]
    )
    tables = result_tables(mixed | {"greedy": mixed})
    names = ["summary", "greedy", "greedy_kinds", "greedy_changes", "tasks", "kinds", "changes"]
    assert [table.name for table in tables] == names
    assert [line[:4] for line in tables[2].lines] == [
        ("notes, kind 0", "before", "6", "6"),
        ("notes, kind 0", "after", "6", "6"),
        ("notes, kind 1", "before", "6", "6"),
        ("notes, kind 1", "after", "6", "6"),
    ]
    assert r"\label{tab:greedy-kinds}" in latex(mixed, tables)


def test_markdown_opens_with_the_answer_and_has_every_table(results: Any) -> None:
    text = markdown(results, result_tables(results))
    assert "take 3.00 tokens instead of 6.00" in text.splitlines()[0]
    assert text.count("\n## ") == 3
    for block in text.split("## ")[1:]:
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_markdown_can_open_nothing(results: Any, name: str) -> None:
    line = markdown(results, [named_table(name)]).splitlines()[-1]
    assert line.endswith("| -5.0% [1.0%, 2x] |")
    assert line.isprintable() and not set(line) & set("<>")
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) == 3
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_$~(]", line)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_in_latex_can_open_nothing(results: Any, name: str) -> None:
    line = next(line for line in latex(results, [named_table(name)]).splitlines() if line.endswith(r"\times${]} \\"))
    cell = line.partition(" & $-$")[0]
    commands = set(re.findall(r"\\(?:[a-z]+|.)", cell))
    known = {"backslash", "bar", "less", "greater", "asciitilde", "asciicircum", "quotedbl"}
    assert commands <= {rf"\text{word}" for word in known} | {rf"\{mark}" for mark in "{}$&#%_"}
    assert cell.isprintable() and not re.search(r"(?<!\\)[$&#%_~^]", cell)
    assert not cell.startswith(("[", "*"))


def test_latex_has_a_balanced_table_for_every_sheet(results: Any) -> None:
    text = latex(results, result_tables(results))
    opened, closed = (re.findall(rf"\\{word}\{{(\w+)\}}", text) for word in ("begin", "end"))
    assert sorted(opened) == sorted(closed) and opened.count("table") == 3
    assert r"\label{tab:tasks}" in text and r"\label{tab:changes}" in text
    plain = re.sub(r"\\[{}]", "", text)
    assert plain.count("{") == plain.count("}")


def test_a_figure_in_latex_has_the_signs_of_print(results: Any) -> None:
    assert r"x & $-$5.0\% {[}1.0\%, 2$\times${]} \\" in latex(results, [named_table("x")])
