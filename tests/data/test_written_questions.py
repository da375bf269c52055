"""The rows of a synthesised set: the evidence of a question, the rows of a split, and how bad rows are refused."""

from pathlib import Path
from typing import Any

import pytest

from data.registry import load_documents
from data.task import Request
from data.written_questions import Material, evidence, read_rows
from tests.record_files import refusal_of, write_records
from tests.written_questions import rows_of

PAGES = (
    Material("fineweb", "page-1", ("Ada Lovelace was born in 1815.\nShe died in London.",), origin={"url": "http://a"}),
    Material("fineweb", "page-2", ("Another page.\nIt ends.",)),
)


def rows() -> list[dict[str, Any]]:
    return rows_of(PAGES)


def refusal(source: str | None, task: str = "fineweb", **request: Any) -> str:
    """What the refusal of a set says; always one line."""
    return refusal_of(lambda: load_documents(task, Request(**{"split": "test", "source": source, **request})))


def test_a_file_is_read_whole_and_a_folder_by_the_split(tmp_path: Path) -> None:
    first, second = rows()
    write_records(tmp_path / "set" / "train.jsonl", [first])
    write_records(tmp_path / "set" / "test.jsonl", [second])
    whole = write_records(tmp_path / "all.jsonl", [first, second])

    def ids(source: str, split: str) -> list[str]:
        return [row.material.id for _, row in read_rows("fineweb", Request(split, source))]

    assert ids(str(tmp_path / "set"), "train") == ["page-1"]
    assert ids(str(tmp_path / "set"), "test") == ["page-2"]
    assert ids(whole, "train") == ids(whole, "validation") == ["page-1", "page-2"]
    assert "no .json, .jsonl or .parquet file is named after the split 'validation'" in refusal(
        str(tmp_path / "set"), split="dev"
    )


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    source = write_records(tmp_path / "all.jsonl", rows())
    assert refusal(source, split="night") == "fineweb: no split 'night'; there are train, validation, test"
    assert "facts = 3" in refusal(source, facts=3)
    assert "python -m eval.synthesise --task fineweb" in refusal(None)
    assert refusal(str(tmp_path / "none.jsonl")).endswith("none.jsonl: no such file or folder")
    assert refusal(source, "wildchat") == f"{source}, line 1: is a row of \"fineweb\", not of 'wildchat'"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"task": None}, "'task' should not be empty, it is null"),
        ({"id": ""}, "'id' should not be empty"),
        ({"id": 7}, "'id' should be text or null, it is 7"),
        ({"texts": "page"}, "'texts' should be a list, it is \"page\""),
        ({"texts": [1]}, "texts: '1' should be text or null, it is 1"),
        ({"origin": None}, "'origin' should be an object, it is null"),
        ({"writer": None}, "'writer' should not be empty"),
        ({"prompt_version": "1"}, "'prompt_version' should be a whole number"),
        ({"attempts": 1.5}, "'attempts' should be a whole number"),
        ({"questions": None}, "'questions' should be a list or an object, it is null"),
        ({"questions": ["What?"]}, "question 1: should be an object with the field 'kind'"),
        ({"questions": [{"kind": "ode", "question": "a", "answer": "b", "quote": ""}]}, "'kind' should be one of"),
        ({"questions": [{"kind": "rap", "question": "a", "answer": "", "quote": ""}]}, "'answer' should not be empty"),
        ({"rejected": "none"}, "'rejected' should be a list"),
    ],
)
def test_a_wrong_field_of_a_row_is_named_with_file_and_line(
    tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    first, second = rows()
    source = write_records(tmp_path / "all.jsonl", [first, second | change])
    text = refusal(source)
    assert text.startswith(f"{source}, line 2")
    assert problem in text


@pytest.mark.parametrize("key", ["task", "id", "texts", "origin", "writer", "prompt_version", "questions", "rejected"])
def test_a_field_that_a_row_lacks_is_named(tmp_path: Path, key: str) -> None:
    row = rows()[0]
    del row[key]
    assert f"has no field {key!r}" in refusal(write_records(tmp_path / "all.jsonl", [row]))


def test_a_material_may_stand_in_a_set_once(tmp_path: Path) -> None:
    source = write_records(tmp_path / "all.jsonl", [rows()[0]] * 2)
    assert refusal(source) == f'{source}, line 2: "page-1" is a duplicate of {source}, line 1'


@pytest.mark.parametrize("name", ["all.jsonl", "all.json", "all.parquet"])
@pytest.mark.parametrize("content", ["", "\n\n", "[1, 2]\n", "\u20ac{"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, name: str, content: str) -> None:
    assert refusal(write_records(tmp_path / name, content)).startswith(str(tmp_path / name))


def test_evidence_is_every_line_that_holds_a_passage() -> None:
    texts = ("a cat\na dog", "the dog\nand the cat")
    assert evidence("dog", texts) == ("a dog", "the dog")
    assert evidence("cat\na", texts) == ("cat\na",)
    assert evidence("bird", texts) == evidence("", texts) == ()
