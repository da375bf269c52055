"""The page of messages before and after: its shares, its draw, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

from eval.messages.__main__ import main
from eval.messages.page import page, sides
from eval.record import Record
from eval.record_file import write_records

Build = Callable[..., Record]
CONTEXT = "The zinc was 41. It rose to 43 in May. All were seen by the nurse."


def planted(build: Build, stage: str, messages: list[str], prefix: str = "q") -> list[Record]:
    fields = {"context": CONTEXT, "answers": ["43", "the 43"], "prediction": "41", "accuracy": 0.5}
    return [
        build(id=f"{prefix}{number}", stage=stage, message=message, message_tokens=number + 1, **fields)
        for number, message in enumerate(messages)
    ]


def folder(path: Path, records: list[Record], name: str = "samples.jsonl") -> Path:
    path.mkdir(exist_ok=True)
    write_records(path / name, records)
    return path


def test_shares_are_counted_by_words(tmp_path: Path, record: Build) -> None:
    after = planted(record, "after", ["The 43.", "rose to 43 in May", "It is 43", "41", ""])
    before = planted(record, "before", ["The zinc was 41."] * 5)
    text = page(*sides([folder(tmp_path / "run", [*before, *after])], sampled=False), 40, 0)
    rows = [row.split("|") for row in text.splitlines() if row.startswith("|")]
    lines = {row[1].strip(): [cell.strip() for cell in row[2:4]] for row in rows}
    assert lines["just a gold answer"] == ["0.0%", "20.0%"]
    assert lines["holds a gold answer"] == ["0.0%", "60.0%"]
    assert lines["just what the predictor answers"] == ["0.0%", "20.0%"]
    assert lines["copied from the document in one piece"] == ["100.0%", "60.0%"]
    assert lines["empty"] == ["0.0%", "20.0%"]
    assert lines["accuracy"] == ["50.0%", "50.0%"] and lines["message tokens"] == ["3.0", "3.0"]
    assert "5 of them, drawn at random (seed 0)" in text and "(empty)" in text


def test_two_folders_are_matched_by_question_and_greedy_messages_come_first(tmp_path: Path, record: Build) -> None:
    first = folder(tmp_path / "first", planted(record, "after", ["warm *start*", "b", "c"]))
    second = folder(tmp_path / "second", planted(record, "after", ["sampled", "sampled"]))
    folder(tmp_path / "second", planted(record, "after", ["greedy", "greedy"]), "samples.greedy.jsonl")
    before, after = sides([first, second], sampled=False)
    assert sorted(before) == sorted(after) == ["q0", "q1"]
    shown = page(before, after, 1, 3)
    assert shown == page(before, after, 1, 3) and shown.count("- after") == 1 and "greedy" in page(before, after, 2, 0)
    assert "sampled" in page(*sides([first, second], sampled=True), 2, 0)
    assert r"warm \*start\*" in page(before, after, 2, 0)


def test_what_cannot_be_shown_is_refused_in_one_line(
    tmp_path: Path, record: Build, capsys: pytest.CaptureFixture[str]
) -> None:
    run = folder(tmp_path / "run", planted(record, "after", ["a"]))
    other = folder(tmp_path / "other", planted(record, "after", ["a"], "another"))
    (tmp_path / "none").mkdir()
    for given, said in (
        ([run], "has no records of the stage 'before'"),
        ([tmp_path / "none", run], "has no samples.jsonl"),
        ([other, run], "have no question in common"),
    ):
        assert main(list(map(str, given))) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: ") and said in error and "\n" not in error
