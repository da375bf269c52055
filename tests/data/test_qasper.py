"""QASPER in both published layouts: what is read, what is skipped and counted, and how bad input is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest

from data.qasper import load_papers, paper_text, reference
from tests.record_files import refusal_of, write_records


def annotation(**fields: Any) -> dict[str, Any]:
    """One annotator's answer in the official layout; free form unless fields say otherwise."""
    answer = {
        "unanswerable": False,
        "extractive_spans": [],
        "yes_no": None,
        "free_form_answer": "",
        "evidence": [],
        "highlighted_evidence": [],
    }
    return {"answer": answer | fields, "annotation_id": "a", "worker_id": "w"}


def question(question_id: str, *answers: dict[str, Any], text: str = "What is it?") -> dict[str, Any]:
    return {"question": text, "question_id": question_id, "nlp_background": "two", "answers": list(answers)}


def paper(*questions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A paper of two sections in the official layout."""
    sections = [
        {"section_name": "Method", "paragraphs": ["We parse.", "", "Then we rank. "]},
        {"section_name": "Method ::: Data", "paragraphs": ["It is a corpus of 12 books."]},
    ]
    return {"title": "On Parsing", "abstract": "We study it.", "full_text": sections, "qas": list(questions)} | fields


def columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]} if rows else {}


def columnar(paper_id: str, official: dict[str, Any]) -> dict[str, Any]:
    """A paper of the official layout as a row of the Hub's."""
    questions = [row | {"answers": columns(row["answers"])} for row in official["qas"]]
    return {"id": paper_id} | official | {"full_text": columns(official["full_text"]), "qas": columns(questions)}


PAPERS = {
    "1901.00001": paper(
        question("q1", annotation(extractive_spans=["12 books"], evidence=["It is a corpus of 12 books."])),
        question("q2", annotation(unanswerable=True), annotation(yes_no=False), text="Is it free?"),
    ),
    "1901.00002": paper(question("q3", annotation(free_form_answer="By rank", evidence=["Then we rank."]))),
}


def rows() -> list[dict[str, Any]]:
    return [columnar(paper_id, official) for paper_id, official in PAPERS.items()]


def refusal(source: str | None, split: str = "train") -> str:
    """What the refusal of a source says; always one line."""
    return refusal_of(lambda: load_papers(source, split))


def test_a_paper_that_stands_twice_is_named(tmp_path: Path) -> None:
    first, second = (json.dumps(official) for official in PAPERS.values())
    source = write_records(tmp_path / "papers.json", f'{{"1901.00001": {first}, "1901.00001": {second}}}')
    assert 'duplicate in one object: "1901.00001"' in refusal(source)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("papers.json", lambda: rows()),
        ("papers.jsonl", lambda: rows()),
        ("papers.parquet", lambda: rows()),
        ("lines.json", lambda: "".join(json.dumps(row) + "\n" for row in rows())),
        ("marked.json", lambda: "\ufeff" + json.dumps(PAPERS)),
        ("mixed.jsonl", lambda: [{"id": paper_id} | official for paper_id, official in PAPERS.items()]),
    ],
)
def test_every_form_of_a_file_gives_the_same_documents(tmp_path: Path, name: str, content: Callable[[], Any]) -> None:
    expected = load_papers(write_records(tmp_path / "official.json", PAPERS), "train")
    assert [document.id for document in expected[0]] == list(PAPERS)
    assert load_papers(write_records(tmp_path / name, content()), "train") == expected


def test_one_line_of_json_is_one_paper(tmp_path: Path) -> None:
    documents, _ = load_papers(write_records(tmp_path / "one.json", json.dumps(rows()[0])), "train")
    assert [document.id for document in documents] == ["1901.00001"]


def test_a_context_is_title_abstract_and_sections_with_readable_headings() -> None:
    record = {"id": "1", **paper()}
    assert paper_text(record, "") == (
        "On Parsing\n\nAbstract\nWe study it.\n\nMethod\nWe parse.\nThen we rank.\n\nMethod > Data\n"
        "It is a corpus of 12 books."
    )


def test_sections_without_name_or_text_leave_no_trace() -> None:
    sections = [
        {"section_name": None, "paragraphs": ["One."]},
        {"section_name": " ::: ", "paragraphs": ["Two."]},
        {"section_name": "", "paragraphs": ["", " "]},
    ]
    assert paper_text({"id": "1", **paper(abstract=None, full_text=sections)}, "") == "On Parsing\n\nOne.\n\nTwo."


@pytest.mark.parametrize(
    ("fields", "text", "kind"),
    [
        ({"unanswerable": True, "extractive_spans": ["a"], "yes_no": True}, "Unanswerable", "none"),
        ({"extractive_spans": ["a", "b"], "free_form_answer": "c", "yes_no": True}, "a, b", "extractive"),
        ({"free_form_answer": "c", "yes_no": False}, "c", "abstractive"),
        ({"yes_no": True}, "Yes", "boolean"),
        ({"yes_no": False}, "No", "boolean"),
    ],
)
def test_references_follow_the_official_precedence(fields: dict[str, Any], text: str, kind: str) -> None:
    answer = reference(annotation(**fields)["answer"], "")
    assert answer is not None
    assert (answer.text, answer.kind) == (text, kind)


def test_an_annotation_without_an_answer_is_no_reference() -> None:
    assert reference(annotation()["answer"], "") is None


def test_a_question_has_every_annotators_answer_and_the_first_ones_kind(tmp_path: Path) -> None:
    published = question("q", annotation(yes_no=True), annotation(free_form_answer="in part"), annotation(yes_no=True))
    documents, skipped = load_papers(write_records(tmp_path / "papers.json", {"1": paper(published)}), "train")
    loaded = documents[0].questions[0]
    assert loaded.answers == ("Yes", "in part")
    assert (loaded.id, loaded.text, loaded.kind, loaded.metric) == ("q", "What is it?", "boolean", "qasper_f1")
    assert loaded.negatives == loaded.options == ()
    assert not skipped


def test_evidence_is_what_stands_in_the_text_and_the_rest_is_counted(tmp_path: Path) -> None:
    passages = [
        "FLOAT SELECTED: Table 1: Scores.",
        "Then we rank. ",
        "Method ::: Data",
        "Elsewhere.",
        "",
        "Then we rank.",
    ]
    published = question(
        "q", annotation(yes_no=True, evidence=passages), annotation(yes_no=True, evidence=["We parse."])
    )
    documents, skipped = load_papers(write_records(tmp_path / "papers.json", {"1": paper(published)}), "train")
    assert documents[0].questions[0].evidence == ("Then we rank.", "Method > Data", "We parse.")
    assert skipped == {"evidence in figures and tables": 1, "evidence that is not in the text": 1}


def test_an_unanswerable_annotation_has_no_evidence() -> None:
    answer = reference(annotation(unanswerable=True, evidence=["We parse."])["answer"], "")
    assert answer is not None and answer.evidence == ()


def test_what_cannot_be_asked_is_skipped_and_counted(tmp_path: Path) -> None:
    good = annotation(yes_no=True)
    papers = {
        "kept": paper(
            question("q1", good, annotation()),
            question("q2"),
            question("q3", annotation()),
            question("q4", good, text="  "),
            question("q1", good),
        ),
        "unasked": paper(),
        "unanswered": paper(question("q5")),
        "blank": paper(question("q6", good), title="", abstract="", full_text=[]),
    }
    documents, skipped = load_papers(write_records(tmp_path / "papers.json", papers), "train")
    assert [(document.id, len(document.questions)) for document in documents] == [("kept", 1)]
    assert skipped == {
        "annotations without an answer": 2,
        "questions without answers": 3,
        "questions without text": 1,
        "questions with an id that is taken": 1,
        "papers without questions": 2,
        "papers without text": 1,
    }


def row(**fields: Any) -> list[dict[str, Any]]:
    """Two rows of the Hub's layout: the second, then the first with some fields changed."""
    return [rows()[1], rows()[0] | fields]


def without(key: str) -> list[dict[str, Any]]:
    first, second = row()
    return [first, {name: value for name, value in second.items() if name != key}]


def reworded(**fields: Any) -> dict[str, Any]:
    """The second official paper with its one annotation's fields changed."""
    return {"1901.00002": paper(question("q3", annotation(**fields)))}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("papers.jsonl", "", ["papers.jsonl", "is empty"]),
        ("papers.json", " \n", ["papers.json", "is empty"]),
        ("papers.json", {}, ["papers.json", "no paper", "of 0 papers"]),
        ("papers.json", {"1": paper()}, ["papers.json", "no paper", "of 1 papers"]),
        ("papers.json", "3", ["papers.json", "it is 3"]),
        ("papers.json", '{"a": }', ["papers.json, line 1", "broken JSON", "column 7"]),
        ("papers.json", '{\n"a": 1,\n"b" 2}', ["papers.json, line 3", "broken JSON", "column 5"]),
        ("papers.json", "[" * 200_000, ["papers.json", "cannot be read as JSON"]),
        ("papers.jsonl", "[1, 2]\n", ["papers.jsonl, line 1", "'id'", "[1, 2]"]),
        ("papers.jsonl", without("id"), ["papers.jsonl, line 2", "no field 'id'"]),
        ("papers.jsonl", without("qas"), ["line 2", "1901.00001", "no field 'qas'", "full_text"]),
        ("papers.json", without("title"), ["papers.json, record 2", "1901.00001", "no field 'title'"]),
        ("papers.parquet", row(id=""), ["papers.parquet, row 2", "'id' is empty"]),
        ("papers.jsonl", row(id="1901.00002"), ["line 2", "1901.00002", "is a duplicate of", "line 1"]),
        ("papers.jsonl", row(title=7), ["line 2", "'title' should be text or null", "it is 7"]),
        ("papers.jsonl", row(title="\ud83d"), ["line 2", "'title'", "surrogate"]),
        ("papers.jsonl", row(full_text="all of it"), ["line 2", "'full_text' should be a list or an object"]),
        (
            "papers.jsonl",
            row(full_text={"section_name": ["A", "B"], "paragraphs": [["One."]]}),
            ["line 2", "columns of 'full_text'", "'section_name': 2", "'paragraphs': 1"],
        ),
        ("papers.json", {"1": 5}, ['paper "1"', "should be an object"]),
        ("papers.json", {"1": {"title": "T"}}, ['paper "1"', "no field 'abstract'"]),
        (
            "papers.json",
            {"1": paper(full_text=[{"section_name": "A", "paragraphs": ["One.", 2]}])},
            ['paper "1", section 1, paragraphs', "'2' should be text", "it is 2"],
        ),
        ("papers.json", {"1": paper({"question": "?"})}, ['paper "1", question 1', "no field 'question_id'"]),
        ("papers.json", {"1": paper(question("q", {"answer": None}))}, ["question 1, answer 1", "'answer'", "null"]),
        ("papers.json", reworded(unanswerable="no"), ["answer 1", "'unanswerable' should be true or false", '"no"']),
        ("papers.json", reworded(yes_no="yes"), ["answer 1", "'yes_no' should be true or false or null"]),
        ("papers.json", reworded(extractive_spans="a"), ["answer 1", "'extractive_spans' should be a list"]),
        ("papers.json", reworded(evidence=None), ["answer 1", "'evidence' should be a list", "null"]),
        ("papers.parquet", "no parquet", ["papers.parquet", "cannot be read as parquet"]),
        ("papers.csv", "id,title", ["papers.csv", ".json, .jsonl, .parquet"]),
    ],
)
def test_malformed_input_is_one_line_that_names_file_and_record(
    tmp_path: Path, name: str, content: Any, said: list[str]
) -> None:
    text = refusal(write_records(tmp_path / name, content))
    assert all(part in text for part in said), text


def test_a_broken_line_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    # U+2028 may stand in a JSON text: it ends no line.
    first = json.dumps(rows()[0] | {"title": "On\u2028Parsing"}, ensure_ascii=False)
    broken = json.dumps(rows()[1])[:-20]
    text = refusal(write_records(tmp_path / "papers.jsonl", f"{first}\n\n{broken}\n"))
    assert "papers.jsonl, line 3: broken JSON" in text


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "papers.jsonl").write_bytes(b'{"id": "\xff"}')
    assert "is not UTF-8 text (byte 8)" in refusal(str(tmp_path / "papers.jsonl"))


def test_a_missing_source_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(str(tmp_path / "papers.json"))


def test_an_unknown_split_is_refused_before_anything_is_read() -> None:
    assert refusal(None, "training") == "qasper: no split 'training'; there are train, validation, test"


@pytest.mark.parametrize(
    ("split", "file", "unrelated_files"),
    [
        ("train", "qasper-train-v0.3.json", ["qasper-dev-v0.3.json", "qasper-test-v0.3.json"]),
        ("validation", "qasper-dev-v0.3.json", ["qasper-train-v0.3.json", "constraint.json"]),
        ("dev", "validation.jsonl", ["train.jsonl", "test.jsonl"]),
        ("test", "qasper-test.parquet", ["qasper-train.parquet", "latest.parquet"]),
        ("train", "qasper/train/0000.parquet", ["qasper/validation/0000.parquet", ".cache/train.parquet"]),
        ("train", "qasper-train-dev-v0.3/qasper-train-v0.3.json", ["qasper-train-dev-v0.3/qasper-dev-v0.3.json"]),
    ],
)
def test_a_splits_file_is_found_by_its_name(tmp_path: Path, split: str, file: str, unrelated_files: list[str]) -> None:
    write_records(tmp_path / file, rows())
    for unrelated in unrelated_files:
        write_records(tmp_path / unrelated, "not read")
    documents, _ = load_papers(str(tmp_path), split)
    assert [document.id for document in documents] == list(PAPERS)


def test_parts_of_a_split_are_read_in_order(tmp_path: Path) -> None:
    for number, record in enumerate(rows()):
        write_records(tmp_path / f"train-{number:05}-of-00002.parquet", [record])
    documents, _ = load_papers(str(tmp_path), "train")
    assert [document.id for document in documents] == list(PAPERS)


def test_a_folder_without_the_split_says_what_it_has(tmp_path: Path) -> None:
    write_records(tmp_path / "qasper-train-v0.3.json", PAPERS)
    text = refusal(str(tmp_path), "test")
    assert "'test'" in text and "qasper-train-v0.3.json" in text


@pytest.mark.parametrize("names", [("train.json", "train.jsonl"), ("train-v0.1.json", "train-v0.3.json")])
def test_several_files_that_could_be_the_split_are_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        write_records(tmp_path / name, rows())
    text = refusal(str(tmp_path))
    assert all(name in text for name in names)


def test_the_hubs_rows_give_the_same_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requested = {}

    def load_dataset(path: str, **arguments: str) -> datasets.Dataset:
        requested.update(arguments, path=path)
        return datasets.Dataset.from_list(rows())

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    expected = load_papers(write_records(tmp_path / "papers.json", PAPERS), "train")
    assert load_papers(None, "dev") == expected
    assert requested == {"path": "allenai/qasper", "revision": "refs/convert/parquet", "split": "validation"}


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, **arguments: str) -> None:
        raise ConnectionError("Couldn't reach\n'allenai/qasper' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    text = refusal(None)
    assert "cannot get allenai/qasper" in text and "Couldn't reach 'allenai/qasper'" in text and "local file" in text
