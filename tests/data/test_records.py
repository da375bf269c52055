"""A user's own records load on the first try, and everything that is wrong with them is said at once."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data.records import MOST_PROBLEMS
from data.registry import load_documents
from data.sample import Document
from data.task import Loaded, Request
from tests.record_files import refusal_of, write_records
from tests.test_architecture import PROJECT

HARBOUR = "A berth costs 24 euros. Ms Okafor keeps the code."
ORCHARD = "Twelve plum trees were planted. The press cost 310 euros."
RECORDS: list[dict[str, Any]] = [
    {"id": "1", "context": HARBOUR, "question": "What is a berth?", "answers": ["24 euros"]},
    {"id": "2", "context": HARBOUR, "question": "Who keeps the code?", "answers": "Ms Okafor"},
    {"id": "3", "context": ORCHARD, "question": "How many trees?", "answers": ["twelve", "12"]},
]


def load(source: Path | str | None, split: str = "train", **fields: Any) -> Loaded:
    return load_documents("records", Request(split, None if source is None else str(source), **fields))


def refusal(source: Path | str | None, **fields: Any) -> str:
    """What the refusal says; always one line."""
    return refusal_of(lambda: load(source, **fields))


def write_csv(path: Path, records: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "context", "question", "answers"])
        writer.writeheader()
        for record in records:
            answers = record["answers"]
            writer.writerow(record | {"answers": json.dumps(answers) if isinstance(answers, list) else answers})
    return path


def write_parquet(path: Path, records: list[dict[str, Any]]) -> str:
    rows = [
        record | {"answers": [answers] if isinstance(answers := record["answers"], str) else answers}
        for record in records
    ]
    return write_records(path, rows)


def questions(documents: list[Document]) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(document.text, q.text, q.answers) for document in documents for q in document.questions]


def test_every_format_gives_the_same_documents(tmp_path: Path) -> None:
    sources = [
        write_records(tmp_path / "lines.jsonl", RECORDS),
        write_records(tmp_path / "list.json", RECORDS),
        write_csv(tmp_path / "table.csv", RECORDS),
        write_parquet(tmp_path / "table.parquet", RECORDS),
    ]
    expected = [
        (HARBOUR, "What is a berth?", ("24 euros",)),
        (HARBOUR, "Who keeps the code?", ("Ms Okafor",)),
        (ORCHARD, "How many trees?", ("twelve", "12")),
    ]
    for source in sources:
        loaded = load(source)
        assert questions(loaded.documents) == expected, source
        assert len(loaded.documents) == 2
        assert not loaded.skipped


def test_the_example_of_the_repository_has_three_documents_and_six_questions() -> None:
    documents = load(PROJECT / "examples" / "questions.jsonl").documents
    assert [document.id for document in documents] == ["harbour", "orchard", "train"]
    assert sum(len(document.questions) for document in documents) == 6


def test_columns_of_other_names_are_mapped(tmp_path: Path) -> None:
    renamed = [{"passage": r["context"], "q": r["question"], "gold": r["answers"]} for r in RECORDS]
    columns = {"context": "passage", "question": "q", "answers": "gold"}
    loaded = load(write_records(tmp_path / "a.jsonl", renamed), columns=columns)
    assert len(questions(loaded.documents)) == 3
    text = refusal(tmp_path / "a.jsonl")
    assert (
        "has no field 'context' and 'question' and 'answers'" in text
        and "passage, q, gold" in text
        and "columns" in text
    )
    assert "columns maps text" in refusal(tmp_path / "a.jsonl", columns={"text": "passage"})


def test_squads_columns_and_its_published_file_are_understood(tmp_path: Path) -> None:
    rows = [
        {
            "id": "a",
            "title": "T",
            "context": HARBOUR,
            "question": "Price?",
            "answers": {"text": ["24 euros"], "answer_start": [14]},
        },
        {
            "id": "b",
            "title": "T",
            "context": HARBOUR,
            "question": "Colour?",
            "answers": {"text": [], "answer_start": []},
        },
    ]
    loaded = load(write_records(tmp_path / "squad.jsonl", rows))
    published = {
        "version": "v2.0",
        "data": [
            {
                "title": "T",
                "paragraphs": [
                    {
                        "context": HARBOUR,
                        "qas": [
                            {"id": "a", "question": "Price?", "answers": [{"text": "24 euros", "answer_start": 14}]},
                            {"id": "b", "question": "Colour?", "answers": [], "is_impossible": True},
                        ],
                    }
                ],
            }
        ],
    }
    (tmp_path / "squad.json").write_text(json.dumps(published))
    for result in (loaded, load(tmp_path / "squad.json")):
        assert questions(result.documents) == [(HARBOUR, "Price?", ("24 euros",))]
        assert result.documents[0].cluster == "T"
        assert result.skipped == {"questions without an answer": 1}


def test_a_record_names_its_split_options_evidence_and_negatives(tmp_path: Path) -> None:
    first = RECORDS[0] | {"split": "train", "options": ["24 euros", "30 euros"], "evidence": "A berth costs 24 euros."}
    first |= {"negatives": [HARBOUR.replace("24", "30")], "document": "harbour"}
    source = write_records(tmp_path / "a.jsonl", [first, RECORDS[2] | {"split": "dev"}])
    train, dev = load(source), load(source, split="validation")
    [question] = train.documents[0].questions
    assert (question.metric, question.options, question.evidence) == (
        "multiple_choice",
        ("24 euros", "30 euros"),
        ("A berth costs 24 euros.",),
    )
    assert len(question.negatives) == 1 and train.documents[0].id == "harbour"
    assert [document.text for document in dev.documents] == [ORCHARD]
    assert train.skipped == {"records of another split": 1}


def test_the_metric_is_the_users(tmp_path: Path) -> None:
    source = write_records(tmp_path / "a.jsonl", RECORDS)
    assert {q.metric for d in load(source, metric="contains").documents for q in d.questions} == {"contains"}
    assert "no metric 'f2'" in refusal(source, metric="f2")
    with pytest.raises(ValueError, match="metric = 'exact' is read by the task records only"):
        load_documents("qasper", Request("train", str(source), metric="exact"))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"context": "  "}, "'context' should not be empty"),
        ({"context": 7.5}, None),
        ({"context": None}, "has no field 'context'"),
        ({"question": ["Who?"]}, "'question' should be text"),
        ({"answers": {"start": 1}}, "'answers' should be a text or a list of texts"),
        ({"answers": [True]}, "'answers' should be a text or a list of texts"),
        ({"options": ["30 euros"]}, "'answers' should be among 'options'"),
        ({"evidence": "It rained."}, "'evidence' should be passages of the context"),
        ({"question": "\ud800"}, "lone surrogate"),
    ],
)
def test_a_wrong_field_is_named_with_its_line(tmp_path: Path, change: Mapping[str, Any], problem: str | None) -> None:
    source = write_records(tmp_path / "a.jsonl", [RECORDS[2], RECORDS[0] | dict(change)])
    if problem is None:
        assert load(source).documents[1].text == "7.5"
    else:
        text = refusal(source)
        assert problem in text and "line 2" in text


def test_all_wrong_records_are_named_at_once(tmp_path: Path) -> None:
    wrong = [RECORDS[0] | {"id": str(n), "answers": {}} for n in range(MOST_PROBLEMS + 3)]
    text = refusal(write_records(tmp_path / "a.jsonl", [*RECORDS[1:], *wrong, 7]))
    assert text.startswith(f"{tmp_path / 'a.jsonl'}: {MOST_PROBLEMS + 4} of {MOST_PROBLEMS + 6} records cannot be used")
    assert "line 3: 'answers'" in text and text.endswith("and 4 more")


def test_what_is_no_source_is_one_line(tmp_path: Path) -> None:
    assert "needs a source" in refusal(None)
    assert "no such file" in refusal(tmp_path / "none.jsonl")
    assert "should be a file that ends in" in refusal(PROJECT / "README.md")
    (tmp_path / "torn.csv").write_text('context,question,answers\n"A berth,Who?\n')
    assert "cannot be read as CSV" in refusal(tmp_path / "torn.csv")
    (tmp_path / "short.csv").write_text("context,question,answers\nA berth,Who?\n")
    assert "another number of cells" in refusal(tmp_path / "short.csv")
    (tmp_path / "latin.csv").write_bytes("context,question,answers\nA b\xe4rth,Who?,x\n".encode("latin-1"))
    assert "is not UTF-8" in refusal(tmp_path / "latin.csv")
    assert "has no record of split 'test'" in refusal(
        write_records(tmp_path / "a.jsonl", [RECORDS[0] | {"split": "train"}]), split="test"
    )


def test_a_source_without_a_question_says_what_it_has(tmp_path: Path) -> None:
    without = [RECORDS[0] | {"id": str(n), "answers": []} for n in range(3)]
    source = write_records(tmp_path / "a.jsonl", without)
    assert refusal(source) == f"{source}: has no question with an answer (3 without)"
    source = write_records(tmp_path / "b.jsonl", [*without, RECORDS[0] | {"split": "test"}])
    assert "(3 without, and 1 records of another split than 'train')" in refusal(source)
    for name, content in (("a.csv", ""), ("b.csv", "context,question,answers\n"), ("a.json", "[]")):
        assert refusal(write_records(tmp_path / name, content)) == f"{tmp_path / name}: is empty: it has no record"


def test_a_header_that_names_a_column_twice_is_refused(tmp_path: Path) -> None:
    text = "context,question,answers,answers,\nA berth,Who?,x,y,\n"
    assert 'the header names "answers" more than once' in refusal(write_records(tmp_path / "a.csv", text))
    text = "context,question,answers,,\nA berth,Who?,x,,\n"
    assert len(load(write_records(tmp_path / "b.csv", text)).documents) == 1


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e999"])
@pytest.mark.parametrize("name", ["context", "question", "answers"])
def test_a_number_that_is_not_finite_is_null(tmp_path: Path, name: str, value: str) -> None:
    fields = {"context": '"The zinc was 52."', "question": '"Zinc?"', "answers": '"52"'} | {name: value}
    line = ", ".join(f'"{key}": {written}' for key, written in fields.items())
    text = refusal(write_records(tmp_path / "a.jsonl", f"{{{line}}}\n"))
    assert f"line 1: has no field '{name}'; it has {', '.join(key for key in fields if key != name)}" in text
    text = refusal(write_records(tmp_path / "a.jsonl", f"{{{line}}}\n".replace(value, f"[52, {value}]")))
    assert "line 1" in text and f"'{name}' should be" in text


def test_a_column_of_numbers_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [{"id": float(n), "context": HARBOUR, "question": f"Q{n}?", "answers": n + 52.0} for n in range(2)]
    loaded = load(write_records(tmp_path / "a.parquet", [*rows, rows[0] | {"id": 2.5, "answers": 5.25}]))
    assert [(q.id, q.answers) for q in loaded.documents[0].questions] == [
        ("0", ("52",)),
        ("1", ("53",)),
        ("2.5", ("5.25",)),
    ]
    missing = write_records(tmp_path / "b.parquet", [*rows, rows[0] | {"id": float("nan"), "answers": float("nan")}])
    assert "row 3: has no field 'answers'" in refusal(missing)


def test_values_that_python_cannot_hold_are_one_line(tmp_path: Path) -> None:
    with (tmp_path / "deep.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["context", "question", "answers"], ["A berth", "Who?", "[" * 100_000]])
    assert "line 2, answers: cannot be read as JSON" in refusal(tmp_path / "deep.csv")
    (tmp_path / "text.csv").write_text("context,question,answers\n[A berth],Who?,[x\n")
    assert questions(load(tmp_path / "text.csv").documents) == [("[A berth]", "Who?", ("[x",))]


@pytest.mark.parametrize("name", ["id", "document", "title"])
def test_half_a_character_in_a_name_is_refused(tmp_path: Path, name: str) -> None:
    source = write_records(tmp_path / "a.jsonl", [RECORDS[0] | {name: "c\ud800"}, RECORDS[1]])
    text = refusal(source, questions_per_document=1)
    assert f"line 1: {name!r} holds half of a character" in text


def test_ids_and_contexts_of_a_document_do_not_contradict(tmp_path: Path) -> None:
    twice = write_records(tmp_path / "a.jsonl", [RECORDS[0], RECORDS[1] | {"id": "1"}])
    assert 'id "1" is a duplicate' in refusal(twice)
    two = write_records(tmp_path / "b.jsonl", [RECORDS[0] | {"document": "d"}, RECORDS[2] | {"document": "d"}])
    assert 'document "d" has another context' in refusal(two)


def test_rows_of_the_hub_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    requests: list[Any] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, **options: requests.append((path, options)) or RECORDS)
    assert len(load("hub:rajpurkar/squad", split="dev").documents) == 2
    assert requests == [("rajpurkar/squad", {"split": "validation"})]
