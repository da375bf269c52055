"""Reading records: files of every form, rows of the Hub, fields, and one line for whatever is wrong with them."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any

import datasets
import pyarrow
import pytest
from datasets.exceptions import DatasetNotFoundError
from pyarrow import parquet

from data import reading
from tests.record_files import halve, refusal_of, write_records

ROWS: list[dict[str, Any]] = [{"id": str(number), "text": f"line {number}\u2028 and on"} for number in range(600)]


def write(path: Path, content: Any) -> Path:
    """A file in the form its name asks for; JSON lines hold the characters of a text as they are, unescaped."""
    if path.suffix == ".jsonl" and isinstance(content, list):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
    return Path(write_records(path, content))


def refusal(records: Iterator[Any]) -> str:
    """What the refusal of records says."""
    return refusal_of(lambda: list(records))


@pytest.mark.parametrize(
    ("name", "place"), [("a.json", "record"), ("a.jsonl", "line"), ("a.parquet", "row"), ("a.JSONL", "line")]
)
def test_every_form_gives_the_same_records_and_says_where_each_stands(tmp_path: Path, name: str, place: str) -> None:
    path = write(tmp_path / name.lower(), ROWS).rename(tmp_path / name)
    records = list(reading.file_records(path))
    assert [record for _, record in records] == ROWS
    assert [where for where, _ in records] == [f"{path}, {place} {number}" for number in range(1, 601)]


def test_lines_are_read_as_they_are_used(tmp_path: Path) -> None:
    records = reading.file_records(write(tmp_path / "a.jsonl", '{"id": 1}\n{"id": 2}\nbroken\n'))
    assert [next(records)[1]["id"], next(records)[1]["id"]] == [1, 2]
    with pytest.raises(ValueError, match="line 3: broken JSON"):
        next(records)


def test_blank_lines_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"id": 1}\r\n\r\n{"id": 2}\r\n')
    assert list(reading.file_records(path)) == [(f"{path}, line 1", {"id": 1}), (f"{path}, line 3", {"id": 2})]


def test_json_lines_under_the_name_of_json_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"id": 1}\n{"id": 2}\n')
    assert [record for _, record in reading.file_records(path)] == [{"id": 1}, {"id": 2}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", "", "is empty"),
        ("a.jsonl", "\n \n", "is empty"),
        ("a.json", "", "is empty"),
        ("a.json", '{"a": 1}', 'should hold a list of records, it is {"a": 1}'),
        ("a.json", "[1,\n2", "line 2: broken JSON"),
        ("a.jsonl", '{"a": 1}\n{"a": ', "line 2: broken JSON"),
        ("a.jsonl", b'{"a": 1}\n\xff', "line 2: is not UTF-8 text (byte 0)"),
        ("a.json", b"[\xff]", "is not UTF-8 text (byte 1)"),
        ("a.jsonl", "[" * 200_000, "line 1: cannot be read as JSON"),
        ("a.parquet", "", "cannot be read as parquet"),
        ("a.parquet", "PAR1", "cannot be read as parquet"),
        ("a.csv", "a,b", "should be a file that ends in .json, .jsonl, .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line_that_names_it(
    tmp_path: Path, name: str, content: Any, said: str
) -> None:
    path = write(tmp_path / name, content)
    message = refusal_of(lambda: list(reading.file_records(path)))
    assert message.startswith(str(path)) and said in message


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.parquet"])
def test_a_file_cut_in_half_is_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, ROWS)
    halve(path)
    assert refusal(reading.file_records(path)).startswith(str(path))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_key_that_stands_twice_in_an_object_is_named(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, '{"id": 1, "text": {"b": 1, "b": 2}}')
    message = refusal_of(lambda: list(reading.file_records(path)))
    assert message.startswith(str(path)) and message.endswith('(duplicate in one object: "b")')


@pytest.mark.parametrize(
    ("number", "kind", "date"),
    [
        (2**31 - 1, pyarrow.int32(), pyarrow.date32()),
        (2**60, pyarrow.int64(), pyarrow.timestamp("ms")),
    ],
)
def test_a_date_that_python_has_not_is_named_by_its_row_and_column(
    tmp_path: Path, number: int, kind: pyarrow.DataType, date: pyarrow.DataType
) -> None:
    dates = pyarrow.array([None] * 300 + [number], kind).cast(date)
    table = pyarrow.table({"id": list(range(301)), "seen": dates})
    parquet.write_table(table, tmp_path / "a.parquet")
    records = reading.file_records(tmp_path / "a.parquet")
    assert f"{tmp_path / 'a.parquet'}, row 301, column 'seen': cannot be read (" in refusal(records)


def test_record_files_are_sorted_and_hidden_ones_are_left_out(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.parquet", "sub/c.json", ".cache/d.json", "sub/.e.json", "f.txt"):
        write(tmp_path / name, "")
    names = [str(path.relative_to(tmp_path)) for path in reading.record_files(tmp_path)]
    assert names == ["a.parquet", "b.jsonl", "sub/c.json"]


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    records = reading.local_records(tmp_path / "none", "train")
    assert refusal(records) == f"{tmp_path / 'none'}: no such file or folder"


@pytest.mark.parametrize(
    ("value", "types", "said"),
    [
        (1, (str,), "'key' should be text, it is 1"),
        (True, (int, float), "'key' should be a whole number or a number, it is true"),
        (None, (list, dict), "'key' should be a list or an object, it is null"),
        ("x" * 100, (bool, NoneType), "'key' should be true or false or null, it is \"xxx"),
    ],
)
def test_a_field_of_another_type_is_refused(value: Any, types: tuple[type, ...], said: str) -> None:
    message = refusal_of(lambda: reading.field({"key": value}, "key", types, "file, line 7"))
    assert message.startswith(f"file, line 7: {said}") and len(message) < 200


def test_a_missing_field_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(ValueError, match="place: has no field 'key'; it has a, b"):
        reading.field({"a": 1, "b": 2}, "key", (str,), "place")
    with pytest.raises(ValueError, match="place: should be an object with the field 'key', it is \\[1\\]"):
        reading.field([1], "key", (str,), "place")


def test_texts_lose_their_edges_and_blank_ones_are_left_out() -> None:
    record = {"one": " a \n", "none": None, "all": [" a", "", " ", None, "b "]}
    assert reading.text(record, "one", "") == reading.required_text(record, "one", "") == "a"
    assert reading.text(record, "none", "") == ""
    assert reading.texts(record, "all", "") == ["a", "b"]


@pytest.mark.parametrize("value", ["", " \n", None])
def test_a_required_text_is_not_blank(value: str | None) -> None:
    with pytest.raises(ValueError, match="place: 'key' should not be empty"):
        reading.required_text({"key": value}, "key", "place")


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match="'key' holds half of a character"):
        reading.text({"key": "a\ud83d"}, "key", "place")


def test_rows_come_from_a_list_or_from_columns() -> None:
    expected = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]
    assert reading.rows({"key": expected}, "key", "") == expected
    assert reading.rows({"key": {"a": [1, 3], "b": [2, 4]}}, "key", "") == expected
    with pytest.raises(ValueError, match="the columns of 'key' should be lists of one length"):
        reading.rows({"key": {"a": [1, 3], "b": [2]}}, "key", "place")


@pytest.mark.parametrize("streaming", [False, True])
def test_the_hubs_rows_are_read_with_the_options_that_are_set(monkeypatch: pytest.MonkeyPatch, streaming: bool) -> None:
    requested = {}

    def load_dataset(path: str, **arguments: Any) -> Any:
        requested.update(arguments, path=path)
        rows = datasets.Dataset.from_list([{"id": "a"}, {"id": "b"}])
        return rows.to_iterable_dataset() if streaming else rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows_read = list(reading.hub_records("task", "owner/name", "train", name="sample-10BT", streaming=streaming))
    assert rows_read == [(f"owner/name on the Hub, split train, row {n}", {"id": i}) for n, i in ((1, "a"), (2, "b"))]
    expected = {"path": "owner/name", "split": "train", "name": "sample-10BT"}
    assert requested == expected | ({"streaming": True} if streaming else {})


def test_a_hub_that_fails_at_once_or_on_the_way_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(path: str, **arguments: Any) -> None:
        raise DatasetNotFoundError("Dataset\ndoesn't exist")

    def broken(path: str, **arguments: Any) -> Iterator[dict[str, str]]:
        yield {"id": "a"}
        raise ConnectionError("reset")

    for load_dataset, reason in ((missing, "Dataset doesn't exist"), (broken, "ConnectionError: reset")):
        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        text = refusal(reading.hub_records("task", "owner/name", "train", revision="main"))
        assert text.startswith("task: cannot get owner/name (main) from the Hub") and reason in text


def test_what_is_wrong_where_records_are_used_is_not_blamed_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **arguments: [{"id": 1}])
    [(where, record)] = reading.hub_records("task", "owner/name", "train")
    with pytest.raises(ValueError, match="^owner/name on the Hub, split train, row 1: 'id' should be text"):
        reading.text(record, "id", where)
