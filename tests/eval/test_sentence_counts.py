"""Sentences counted in messages, and how many messages have as many as were asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.sentences import count_sentences
from eval.analysis.density import summarise
from eval.analysis.sentences import obedience
from eval.record import Record
from eval.report.page import report_tables, write_report
from eval.report.sentence_counts import sentence_table

Build = Callable[..., Record]


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        (" \n\n ", 0),
        ("41", 1),
        ("The zinc was 4.1 mg/L.", 1),
        ("Dr. Korbex saw her. The zinc was 41! Why?", 3),
        ("First.\n\nSecond.\nThird", 3),
        ("\n\nOne. Two.\n", 2),
        ("锌是41。铁是52。", 2),
    ],
)
def test_sentences_are_counted_without_blank_lines_and_abbreviations(text: str, count: int) -> None:
    assert count_sentences(text) == count


def test_a_message_obeys_with_exactly_as_many_sentences_in_every_part(record: Build) -> None:
    counts = {"a": [3], "b": [4], "c": [3, 3], "d": [3, 2]}
    found = obedience([record(document=name, message_sentences=own) for name, own in counts.items()], asked=3)
    assert (found["asked"], found["n"], found["counts"]) == (3, 4, {"2": 1, "3": 4, "4": 1})
    assert found["obeyed"]["value"] == 0.5
    assert found["sentences"]["value"] == pytest.approx((3 + 4 + 3 + 2.5) / 4)


def test_messages_of_one_document_go_together(record: Build) -> None:
    def width(questions: int) -> float:
        made = [
            record(number, document=f"d{document}", message_sentences=[3 + document % 2])
            for document in range(20)
            for number in range(questions)
        ]
        obeyed = obedience(made, asked=3)["obeyed"]
        return obeyed["high"] - obeyed["low"]

    assert width(10) == pytest.approx(width(1), abs=1e-9)


def test_a_record_without_counts_is_refused_by_name(record: Build) -> None:
    with pytest.raises(ValueError, match="'notes/d0/0' has no message"):
        obedience([record(message_sentences=[])], asked=3)


def test_the_table_has_a_line_for_every_entry_and_is_on_the_page(
    record: Build, records: list[Record], run_folder: Path
) -> None:
    entry = obedience([record(document=name, message_sentences=[3]) for name in "ab"], asked=3)
    results: Any = summarise(records) | {"sentences": [{"name": "after", **entry}]}
    sheet = sentence_table(results["sentences"])
    assert sheet is not None
    assert sheet.lines == (("after", "3", "2", "100.0% [34.2%, 100.0%]", "3.00 [no interval]"),)
    assert sheet in report_tables(results) and sentence_table([]) is None
    source = write_report(run_folder).read_text()
    assert sheet.title not in source
    (run_folder / "results.json").write_text(json.dumps(results))
    assert f"<summary>{sheet.title}</summary>" in write_report(run_folder).read_text()


def test_an_entry_that_lacks_a_figure_is_refused_by_name() -> None:
    lacking: Any = [{"name": "after", "asked": 3}]
    with pytest.raises(ValueError, match=r"sentences\[0\] has no 'obeyed'"):
        sentence_table(lacking)
