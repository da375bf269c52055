"""The log of an evaluation: what is found again, what is not, and what a kill leaves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.sample import Document, Question, Sample
from eval.record_log import RecordLog

IDENTITY: dict[str, Any] = {"predictor": "one", "tasks": {"notes": 1}}
MADE: dict[str, Any] = {"stage": "after", "temperature": 1.0, "compressor": "abc"}
SAMPLE = Sample(Document("d", "notes", "The zinc is 5.", ()), Question("q", "What is the zinc?", ("5",), "numeric"))
RECORDS = [{"id": SAMPLE.id, "accuracy": 1.0, "information_nats": 0.1 + 0.2, "answer_nll_nats": None}]


def test_a_batch_is_found_again_as_it_was(tmp_path: Path) -> None:
    kept = RecordLog(tmp_path, IDENTITY).add(MADE, [SAMPLE], RECORDS)
    again = RecordLog(tmp_path, dict(reversed(IDENTITY.items())))
    assert again.records(dict(reversed(MADE.items())), [SAMPLE]) == kept == RECORDS
    assert again.holds(MADE, [SAMPLE]) and not again.torn


def test_what_another_process_did_is_found(tmp_path: Path) -> None:
    RecordLog(tmp_path, IDENTITY, process=1).add(MADE, [SAMPLE], RECORDS)
    assert RecordLog(tmp_path, IDENTITY, process=0).records(MADE, [SAMPLE]) == RECORDS


@pytest.mark.parametrize(
    ("identity", "made", "sample"),
    [
        ({"predictor": "two"}, {}, SAMPLE),
        ({"tasks": {"notes": 2}}, {}, SAMPLE),
        ({"seed": 1}, {}, SAMPLE),
        ({}, {"compressor": "abd"}, SAMPLE),
        ({}, {"stage": "before"}, SAMPLE),
        ({}, {"temperature": 0.0}, SAMPLE),
        ({}, {}, replace(SAMPLE, question=replace(SAMPLE.question, text="What is the iron?"))),
        ({}, {}, replace(SAMPLE, question=replace(SAMPLE.question, negatives=("The zinc is 6.",)))),
        ({}, {}, replace(SAMPLE, document=replace(SAMPLE.document, text="The zinc is 6."))),
        ({}, {}, replace(SAMPLE, document=replace(SAMPLE.document, cluster="patient"))),
        ({}, {}, replace(SAMPLE, document=replace(SAMPLE.document, parts=("The zinc", "is 5.")))),
        ({}, {}, replace(SAMPLE, question=replace(SAMPLE.question, answers=("6",)))),
        ({}, {}, replace(SAMPLE, question=replace(SAMPLE.question, blind=True))),
    ],
)
def test_what_was_made_otherwise_is_not_found(
    tmp_path: Path, identity: dict[str, Any], made: dict[str, Any], sample: Sample
) -> None:
    RecordLog(tmp_path, IDENTITY).add(MADE, [SAMPLE], RECORDS)
    assert RecordLog(tmp_path, IDENTITY | identity).records(MADE | made, [sample]) is None


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_line_that_was_cut_short_is_counted_and_its_batch_done_again(tmp_path: Path, kept: int) -> None:
    log = RecordLog(tmp_path, IDENTITY)
    log.add(MADE, [SAMPLE], RECORDS)
    other = replace(SAMPLE, question=replace(SAMPLE.question, id="r"))
    log.add(MADE, [other], RECORDS)
    first, second = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(first + second[:kept])
    again = RecordLog(tmp_path, IDENTITY)
    assert again.torn == 1 and again.holds(MADE, [SAMPLE]) and not again.holds(MADE, [other])
    again.add(MADE, [other], RECORDS)
    assert again.path.read_bytes() == first + second
    once_more = RecordLog(tmp_path, IDENTITY)
    assert once_more.torn == 0 and once_more.records(MADE, [other]) == RECORDS


def test_a_line_that_another_process_is_writing_is_left_alone(tmp_path: Path) -> None:
    other = RecordLog(tmp_path, IDENTITY, process=1)
    other.add(MADE, [SAMPLE], RECORDS)
    with other.path.open("ab") as file:
        file.write(b'{"key": "a')
    before = other.path.read_bytes()
    log = RecordLog(tmp_path, IDENTITY, process=0)
    assert log.torn == 1 and log.holds(MADE, [SAMPLE]) and other.path.read_bytes() == before


@pytest.mark.parametrize("line", ["{broken", "[]", "3", '{"records": []}', "\udcff", "[" * 100_000])
def test_lines_that_are_no_batches_are_counted_and_dropped(tmp_path: Path, line: str) -> None:
    log = RecordLog(tmp_path, IDENTITY)
    log.path.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    log.add(MADE, [SAMPLE], RECORDS)
    again = RecordLog(tmp_path, IDENTITY)
    assert again.torn == 1 and again.holds(MADE, [SAMPLE])


@pytest.mark.parametrize(
    ("written", "damaged"),
    [('"accuracy": 1.0', '"accuracy": 0.0'), ('[{"id"', '[], "x": [{"id"'), ('"key": "', '"key": "0'), ("\n", " \n")],
)
def test_a_line_that_was_changed_is_counted_and_its_batch_done_again(
    tmp_path: Path, written: str, damaged: str
) -> None:
    log = RecordLog(tmp_path, IDENTITY)
    log.add(MADE, [SAMPLE], RECORDS)
    line = log.path.read_text()
    assert written in line
    log.path.write_text(line.replace(written, damaged, 1))
    again = RecordLog(tmp_path, IDENTITY)
    assert again.torn == 1 and not again.done
    again.add(MADE, [SAMPLE], RECORDS)
    assert RecordLog(tmp_path, IDENTITY).records(MADE, [SAMPLE]) == RECORDS


def test_batches_of_other_samples_or_of_another_order_are_others(tmp_path: Path) -> None:
    log = RecordLog(tmp_path, IDENTITY)
    other = replace(SAMPLE, question=replace(SAMPLE.question, id="r"))
    log.add(MADE, [SAMPLE, other], RECORDS)
    assert not any(log.holds(MADE, batch) for batch in ([SAMPLE], [other, SAMPLE], [SAMPLE, other, other]))
