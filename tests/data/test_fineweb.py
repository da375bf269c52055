"""FineWeb: which pages are taken, in every layout they come in, and the documents made of a synthesised set."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from data.fineweb import load, pages
from data.sample import neighbours
from data.task import Request
from data.written_questions import Material
from tests.record_files import assert_damage_is_refused, halve, refusal_of, write_records
from tests.written_questions import rows_of

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "fineweb"
CARD_ROW = PUBLISHED / "fineweb_dataset_card_row.jsonl"
EDU_PAGES = PUBLISHED / "fineweb_edu_150_texts.jsonl.gz"

needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published FineWeb records in {PUBLISHED}")


def record(number: int, **fields: Any) -> dict[str, Any]:
    """A page in the published format."""
    return {
        "text": f"Page {number} begins.\nIt goes on.\nPage {number} ends.",
        "id": f"<urn:uuid:{number}>",
        "dump": "CC-MAIN-2021-43",
        "url": f"http://page/{number}",
        "date": "2021-10-15T21:20:12Z",
        "file_path": "s3://commoncrawl/a.warc.gz",
        "language": "en",
        "language_score": 0.95,
        "token_count": 20_000,
    } | fields


def read_pages(source: str | None, **limits: int) -> tuple[list[Material], dict[str, int]]:
    skipped: Counter[str] = Counter()
    return list(pages(source, skipped, **limits)), dict(skipped)


def refusal(source: str | None) -> str:
    """What the refusal of a source of pages says; always one line."""
    return refusal_of(lambda: read_pages(source))


def refused_set(source: str | None, **request: Any) -> str:
    """What the refusal of a synthesised set says; always one line."""
    return refusal_of(lambda: load(Request("train", source, **request)))


@needs_published
def test_the_published_row_is_a_page_with_its_origin_and_too_short_for_the_study() -> None:
    [page], skipped = read_pages(str(CARD_ROW), min_tokens=69, max_tokens=69)
    assert page.id == "<urn:uuid:e5a3e79a-13d4-4147-a26e-167536fcac5d>"
    assert page.texts[0].startswith("This is basically a peanut flavoured cream")
    assert (page.origin["date"], page.origin["language"]) == ("2021-10-15T21:20:12Z", "en")
    assert skipped == {}
    assert read_pages(str(CARD_ROW)) == ([], {"pages below 15000 tokens": 1})
    assert read_pages(str(CARD_ROW), min_tokens=0, max_tokens=68) == ([], {"pages above 68 tokens": 1})


@needs_published
def test_the_published_texts_become_documents_of_five_questions(tmp_path: Path) -> None:
    source = tmp_path / "edu.jsonl"
    source.write_bytes(gzip.decompress(EDU_PAGES.read_bytes()))
    read, skipped = read_pages(str(source), min_tokens=0)
    assert len(read) == len({page.id for page in read}) == 150
    assert skipped == {}
    assert (
        len(read_pages(str(source), min_tokens=1000)[0])
        == 150 - read_pages(str(source), min_tokens=1000)[1]["pages below 1000 tokens"]
    )
    loaded = load(Request("train", write_records(tmp_path / "set.jsonl", rows_of(read))))
    assert len(loaded.documents) == 150
    assert loaded.skipped == {}
    for document in loaded.documents:
        assert [question.kind for question in document.questions] == ["extractive"] * 2 + ["creative"] * 3
        assert all(question.metric == "perplexity" and question.blind for question in document.questions)
        assert all(question.evidence and question.evidence[0] in document.text for question in document.questions[:2])
        assert not any(question.evidence for question in document.questions[2:])


@pytest.mark.parametrize("name", ["pages.jsonl", "pages.json", "pages.parquet"])
def test_every_layout_gives_the_same_pages(tmp_path: Path, name: str) -> None:
    top = [record(1), record(2)]
    nested = [
        {"text": page["text"], "id": page["id"], "metadata": {k: page[k] for k in page if k not in ("text", "id")}}
        for page in top
    ]
    assert read_pages(write_records(tmp_path / "a" / name, top)) == read_pages(
        write_records(tmp_path / "b" / name, nested)
    )
    assert [page.origin["url"] for page in read_pages(str(tmp_path / "b" / name))[0]] == [
        "http://page/1",
        "http://page/2",
    ]


def test_a_folder_is_all_its_files(tmp_path: Path) -> None:
    write_records(tmp_path / "a.jsonl", [record(1)])
    write_records(tmp_path / "more" / "b.parquet", [record(2)])
    assert len(read_pages(str(tmp_path))[0]) == 2


def test_pages_lack_what_some_dumps_leave_out(tmp_path: Path) -> None:
    edu = {key: value for key, value in record(1).items() if key != "date"}
    plain = {"text": "word " * 13_000}
    source = write_records(tmp_path / "pages.jsonl", [edu, plain, plain | {"id": None, "metadata": None}])
    [first, second], skipped = read_pages(source)
    assert "date" not in first.origin
    assert len(second.id) == 16
    assert second.origin == {}
    assert skipped == {"duplicate pages": 1}


def test_what_is_left_out_is_counted_by_reason(tmp_path: Path) -> None:
    records = [
        record(1),
        record(2, token_count=14_999),
        record(3, token_count=28_001),
        record(4, text="  "),
        record(5, text=None),
        record(1),
        record(6, token_count=15_000),
        record(7, token_count=28_000),
        record(8, token_count=None),
    ]
    kept, skipped = read_pages(write_records(tmp_path / "pages.jsonl", records))
    assert [page.id[-2] for page in kept] == ["1", "6", "7"]
    assert skipped == {
        "pages below 15000 tokens": 2,
        "pages above 28000 tokens": 1,
        "pages without text": 2,
        "duplicate pages": 1,
    }
    assert len(kept) + sum(skipped.values()) == len(records)


def test_pages_are_read_as_they_are_used(tmp_path: Path) -> None:
    source = write_records(tmp_path / "pages.jsonl", json.dumps(record(1)) + "\nbroken\n")
    stream = pages(source, Counter())
    assert next(stream).id == "<urn:uuid:1>"
    with pytest.raises(ValueError, match="pages.jsonl, line 2: broken JSON"):
        next(stream)


def test_without_a_source_the_hub_s_sample_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: dict[str, Any] = {}

    def load_dataset(path: str, **options: Any) -> Iterator[dict[str, Any]]:
        requested.update(options, path=path)
        return iter([record(1), record(2, token_count="many")])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    stream = pages(None, Counter())
    assert next(stream).id == "<urn:uuid:1>"
    assert requested == {
        "path": "HuggingFaceFW/fineweb",
        "name": "sample-10BT",
        "split": "train",
        "streaming": True,
    }
    with pytest.raises(ValueError, match="fineweb on the Hub, split train, row 2: 'token_count' should be"):
        next(stream)


def test_a_hub_that_cannot_be_reached_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, **options: Any) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "fineweb: cannot get HuggingFaceFW/fineweb" in refusal(None)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"text": 3}, "'text' should be text or null, it is 3"),
        ({"text": "\ud83d"}, "half of a character"),
        ({"id": 5}, "'id' should be text or null, it is 5"),
        ({"token_count": "69"}, "'token_count' should be a whole number or null"),
        ({"url": ["http://a"]}, "'url' should be text or null"),
        ({"metadata": "none"}, "'metadata' should be an object or null"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(tmp_path: Path, fields: dict[str, Any], problem: str) -> None:
    source = write_records(tmp_path / "pages.jsonl", [record(1), record(2, **fields)])
    text = refusal(source)
    assert text.startswith(f"{source}, line 2: ")
    assert problem in text


def test_records_of_something_else_are_refused(tmp_path: Path) -> None:
    assert "line 1: has no field 'text'" in refusal(write_records(tmp_path / "a.jsonl", [{"content": "x"}]))
    assert "line 1: should be an object" in refusal(write_records(tmp_path / "b.jsonl", ["x"]))
    assert "should hold a list of records" in refusal(write_records(tmp_path / "c.json", {"text": "x"}))
    assert "no such file" in refusal(str(tmp_path / "none.jsonl"))
    (tmp_path / "empty").mkdir()
    assert "has no file that ends in .json, .jsonl, .parquet" in refusal(str(tmp_path / "empty"))
    assert "should be a file that ends in" in refusal(write_records(tmp_path / "d.txt", "x"))


@pytest.mark.parametrize("name", ["pages.jsonl", "pages.json", "pages.parquet"])
def test_half_a_file_of_pages_and_an_empty_one_are_refused(tmp_path: Path, name: str) -> None:
    assert_damage_is_refused(write_records(tmp_path / name, [record(1)]), refusal)


def written(tmp_path: Path, *records: dict[str, Any]) -> list[dict[str, Any]]:
    return rows_of(read_pages(write_records(tmp_path / "pages.jsonl", list(records)))[0])


def test_documents_are_pages_and_no_neighbours_of_each_other(tmp_path: Path) -> None:
    source = write_records(tmp_path / "set.jsonl", written(tmp_path, record(1), record(2)))
    first, second = load(Request("train", source)).documents
    assert (first.task, first.id, first.text) == ("fineweb", "<urn:uuid:1>", record(1)["text"])
    assert first.parts == ()
    assert [question.id for question in first.questions] == [
        "1-extractive",
        "2-extractive",
        "3-email",
        "4-rap",
        "5-poem",
    ]
    assert first.questions[0].evidence == ("Page 1 begins.",)
    assert first.questions[2].answers == ("This is a email.",)
    assert neighbours([first, second]) == {("fineweb", first.id): (), ("fineweb", second.id): ()}


def test_pages_without_questions_and_longer_than_asked_for_are_counted(tmp_path: Path) -> None:
    rows = written(tmp_path, *(record(number) for number in range(1, 4)), record(4, text="long " * 100))
    rows[0] |= {"questions": [], "rejected": ["Invalid JSON"]}
    rows[1] |= {"questions": rows[1]["questions"][1:], "rejected": ["extractive: not in the page"]}
    source = write_records(tmp_path / "set.jsonl", rows)
    loaded = load(Request("train", source, context_tokens=50, count_tokens=lambda text: len(text.split())))
    assert [document.id for document in loaded.documents] == ["<urn:uuid:2>", "<urn:uuid:3>"]
    assert [len(document.questions) for document in loaded.documents] == [4, 5]
    assert loaded.skipped == {
        "pages without questions": 1,
        "questions that failed a check": 2,
        "pages longer than the context asked for": 1,
    }


def test_fewer_documents_and_questions_are_drawn_by_the_seed(tmp_path: Path) -> None:
    source = write_records(tmp_path / "set.jsonl", written(tmp_path, *map(record, range(8))))
    request = Request("train", source, documents=3, questions_per_document=2, seed=1)
    loaded = load(request)
    assert loaded == load(request)
    assert [len(document.questions) for document in loaded.documents] == [2, 2, 2]
    assert loaded.skipped == {"documents beyond the number asked for": 5, "questions beyond the number asked for": 9}


def test_a_set_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    assert "python -m eval.synthesise --task fineweb" in refused_set(None)
    [row] = written(tmp_path, record(1))
    none = write_records(tmp_path / "none.jsonl", [row | {"questions": []}])
    assert refused_set(none) == f"{none}: has no page with a question and of a length that can be used"
    two = write_records(tmp_path / "two.jsonl", [row | {"texts": ["a", "b"]}])
    assert refused_set(two) == f"{two}, line 1: 'texts' should hold one page, it holds 2"
    raw = write_records(tmp_path / "raw.jsonl", [record(1)])
    assert refused_set(raw).startswith(f"{raw}, line 1: has no field 'task'; it has text, id")


def test_half_a_set_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    source = write_records(tmp_path / "set.jsonl", written(tmp_path, record(1)))
    halve(source)
    assert refused_set(source).startswith(f"{source}, line 1: broken JSON")
    Path(source).write_bytes(b"")
    assert refused_set(source) == f"{source}: is empty"
