"""Figures as text, and the table on the console."""

import re
from typing import Any

import pytest

from eval.analysis.density import summarise
from eval.report.console import console_table
from eval.report.formats import bounds_text, number, percent, signed
from tests.records import summary


def test_the_console_table_has_both_stages_their_intervals_and_the_changes() -> None:
    text = console_table(summary((0.8, 0.776), (-0.024, -0.06, 0.02), (4.6, 4.2, 5.0), (5.1, 4.6, 5.7)))
    lines = text.splitlines()
    accuracy = next(line for line in lines if line.startswith("Accuracy"))
    assert "80.0% -> 77.6%" in accuracy and "[75.0%, 85.0%] -> [72.6%, 82.6%]" in accuracy
    assert any(line.startswith("Message tokens") and line.endswith("4.60x fewer   [4.20, 5.00]") for line in lines)


def test_every_task_has_a_line_of_values_where_there_are_several(records: Any) -> None:
    results: Any = summarise(records)
    lines = console_table(results).splitlines()
    [line] = [line for line in lines if line.startswith("notes ")]
    assert line.split()[:5] == ["notes", "12", "66.7%", "->", "66.7%"]
    assert "1.23 of 3.00 -> 1.23 of 3.00" in line


def test_greedy_messages_are_a_block_of_their_own_on_the_console() -> None:
    sampled = summary((0.6, 0.9), (0.3, 0.2, 0.4), (4.6, 4.2, 5.0), (5.1, 4.6, 5.7))
    greedy = summary((0.98, 0.995), (0.015, -0.01, 0.03), (8.5, 8.4, 8.7), (8.1, 7.9, 8.3))
    lines = console_table(sampled | {"greedy": greedy}).splitlines()
    blocks = [index for index, line in enumerate(lines) if re.match(r"(Greedy|Sampled) messages  +before", line)]
    assert [lines[index].split()[0] for index in blocks[:2]] == ["Greedy", "Sampled"]
    start = blocks[0]
    assert lines[start + 1].split()[:4] == ["Accuracy", "98.0%", "->", "99.5%"]
    assert lines[start + 2].split()[-4:] == ["8.50x", "fewer", "[8.40,", "8.70]"]
    assert "Greedy" not in console_table(sampled)


def test_the_columns_of_the_console_table_are_aligned() -> None:
    text = console_table(summary((1.0, 0.776), (-0.024, -0.06, 0.02), (4.6, 4.2, 5.0), (5.1, 4.6, 5.7)))
    heading, *lines = text.split("\n\n")[1].splitlines()
    starts = [heading.index(word) for word in ("before", "95% intervals", "change")]
    assert all(line[start - 1] == " " and line[start] != " " for line in lines for start in starts)


def test_longer_messages_are_reported_as_more_not_as_a_fraction_fewer() -> None:
    text = console_table(summary((0.8, 0.4), (-0.4, -0.5, -0.3), (0.5, 0.4, 0.8), (0.5, 0.4, 0.6)))
    assert "2.00x more" in text and "[1.25, 2.50]" in text


def test_control_characters_in_a_task_name_do_not_reach_the_terminal(records: Any) -> None:
    results: Any = summarise([record | {"task": "\x1b[2Jnotes\n"} for record in records if record["task"] == "notes"])
    assert "\x1b" not in console_table(results)


def test_missing_scores_are_mentioned(records: Any) -> None:
    lacking: Any = summarise([records[0] | {"accuracy": None}, *records[1:]])
    whole: Any = summarise(records)
    assert "1 before training, 0 after" in console_table(lacking)
    assert "want of a score" not in console_table(whole)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0371, "0.037"),
        (0.153, "0.153"),
        (5.1, "5.10"),
        (24.61, "24.6"),
        (1234.5, "1,234"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
    ],
)
def test_numbers_keep_three_significant_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_an_interval_says_where_an_end_is_open() -> None:
    assert bounds_text({"value": 0.5, "low": 0.4, "high": None}, percent) == "[40.0%, no bound]"
    assert bounds_text({"value": 0.5, "low": None, "high": None}, percent) == "[no interval]"
    assert bounds_text({"value": None, "low": None, "high": None}, percent) == ""


def test_no_interval_is_written_with_both_ends_alike() -> None:
    assert bounds_text({"value": 1.58, "low": 1.5801, "high": 1.5802}, number) == "[within rounding]"
    assert signed(-0.001) == signed(0.0) == "+0.00"
