"""LongHealth on self-made records in the published format: the three protocols, its quirks, and how bad input fails."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data import longhealth
from data.longhealth import FILE, NOT_ANSWERED, SEPARATOR, beginning, load
from data.registry import load_documents
from data.sample import Document, Question, neighbours
from data.task import Loaded, Request
from objectives.accuracy import score
from tests.record_files import refusal_of

NOTES = 4
OPTIONS = ("Metformin", "Insulin", "None of these", "Aspirin, 100 mg", "Warfarin")


def note(patient: int, number: int) -> str:
    """A note of eight words; its last two are the answer's passage."""
    return f"Note {number} of patient {patient}. He takes drug-{patient}-{number}."


def location(number: int, start: Sequence[Any] = (0.75,), end: Sequence[Any] = (1.0,)) -> dict[str, Any]:
    return {f"text_{number}": {"start": list(start), "end": list(end)}}


def entry(number: int, **fields: Any) -> dict[str, Any]:
    """A question as published, whose answer is in the note of its number."""
    options = {f"answer_{letter}": option for letter, option in zip("abcde", OPTIONS, strict=True)}
    record = {"No": number, "question": f"What does note {number} say?", **options, "correct": "Insulin"}
    return record | {"answer_location": location(number % NOTES)} | fields


def patient(number: int, *questions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "texts": {f"text_{n}": note(number, n) for n in range(NOTES)},
        "name": f"Jane Doe {number}",
        "birthday": "01.01.1970",
        "diagnosis": "Diabetes",
        "questions": list(questions) or [entry(n) for n in range(3)],
        "canary-string": "LongHealth:canary",
    } | fields


def write(folder: Path, content: Any = None) -> str:
    """The benchmark's file; four patients unless content says otherwise, text as it is."""
    if content is None:
        content = {f"patient_{number:02}": patient(number) for number in range(1, 5)}
    path = folder / FILE
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def pair(*questions: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A benchmark of a pair of patients, the second with these questions."""
    return {"patient_01": patient(1), "patient_02": patient(2, *questions, **fields)}


def loaded(source: str, variant: str | None = None, **fields: Any) -> Loaded:
    fields = {"count_tokens": lambda text: len(text.split())} | fields
    return load(Request("test", source, variant=variant, **fields))


def notes_of(document: Document) -> list[str]:
    return document.text.split(SEPARATOR)


def questions_of(result: Loaded) -> list[Question]:
    return [question for document in result.documents for question in document.questions]


def refusal(source: str | None, variant: str | None = None, split: str = "test", **fields: Any) -> str:
    """What the refusal of a request says; always one line."""
    return refusal_of(lambda: load_documents("longhealth", Request(split, source, variant=variant, **fields)))


def test_protocol_1_is_the_patients_notes_in_a_drawn_order(tmp_path: Path) -> None:
    result = loaded(write(tmp_path))
    assert [document.id for document in result.documents] == [f"patient_{number:02}" for number in range(1, 5)]
    orders = []
    for number, document in enumerate(result.documents, start=1):
        assert sorted(notes_of(document)) == [note(number, n) for n in range(NOTES)]
        assert (document.task, document.group, document.cluster) == ("longhealth", document.id, document.id)
        orders.append([text[5] for text in notes_of(document)])
    assert len({tuple(order) for order in orders}) > 1
    assert not result.skipped


def test_protocol_1_asks_for_one_of_five_options_by_its_text(tmp_path: Path) -> None:
    questions = questions_of(loaded(write(tmp_path), "1"))
    assert len({question.id for question in questions}) == len(questions) == 12
    assert questions[1].id == "patient_01/2" and questions[1].text == "What does note 1 say?"
    for question in questions:
        assert (question.options, question.answers) == (OPTIONS, ("Insulin",))
        assert (question.metric, question.kind) == ("multiple_choice", "answerable")


def test_protocol_2_adds_ten_notes_of_others_and_the_sixth_option(tmp_path: Path) -> None:
    result = loaded(write(tmp_path), "2")
    for number, document in enumerate(result.documents, start=1):
        own_notes = [text for text in notes_of(document) if f"patient {number}." in text]
        assert sorted(own_notes) == [note(number, n) for n in range(NOTES)]
        assert len(set(notes_of(document))) == NOTES + 10
    for question in questions_of(result):
        assert question.options == (*OPTIONS, "cannot be answered with the provided documents")
        assert (question.answers, question.kind) == (("Insulin",), "answerable")


def test_protocol_3_has_notes_of_others_alone_and_the_sixth_option_is_right(tmp_path: Path) -> None:
    result = loaded(write(tmp_path), "3")
    for number, document in enumerate(result.documents, start=1):
        assert len(set(notes_of(document))) == 10
        assert f"patient {number}." not in document.text
    for question in questions_of(result):
        assert question.options[5] == NOT_ANSWERED
        assert (question.answers, question.kind, question.evidence) == ((NOT_ANSWERED,), "unanswerable", ())
        assert score(question.metric, "F", question.answers, question.options) == 1
        assert score(question.metric, "", question.answers, question.options) == 0


@pytest.mark.parametrize("variant", longhealth.VARIANTS)
def test_the_same_request_gives_the_same_contexts_and_another_seed_others(tmp_path: Path, variant: str) -> None:
    source = write(tmp_path)
    assert loaded(source, variant) == loaded(source, variant)
    assert loaded(source, variant).documents != loaded(source, variant, seed=1).documents


def test_few_notes_of_others_are_all_taken(tmp_path: Path) -> None:
    (_, second) = loaded(write(tmp_path, pair()), "3").documents
    assert sorted(notes_of(second)) == [note(1, n) for n in range(NOTES)]


@pytest.mark.parametrize("variant", ["1", "2"])
@pytest.mark.parametrize("budget", [8, 12, 17, 20, 30, 60])
def test_a_context_keeps_to_the_budget_and_holds_the_answers_note(tmp_path: Path, variant: str, budget: int) -> None:
    result = loaded(write(tmp_path), variant, context_tokens=budget)
    for document in result.documents:
        assert len(document.text.split()) <= budget
        for question in document.questions:
            number = int(question.id[-1]) - 1
            assert note(int(question.id[8:10]), number) in notes_of(document)


def test_contexts_of_one_patient_that_differ_are_documents_of_one_cluster(tmp_path: Path) -> None:
    documents = loaded(write(tmp_path), context_tokens=8).documents
    assert [document.id for document in documents[:3]] == [f"patient_01/context {number}" for number in (1, 2, 3)]
    assert {document.cluster for document in documents[:3]} == {"patient_01"}
    near = neighbours(documents)["longhealth", "patient_01/context 1"]
    assert near == (documents[1].text, documents[2].text)


def test_own_notes_come_before_those_of_others_and_the_last_is_shortened(tmp_path: Path) -> None:
    source = write(tmp_path, pair(entry(0)))
    # A separator is one word, so four notes take 4 * 8 + 3.
    document = loaded(source, "2", context_tokens=35 + 1 + 5).documents[1]
    others = [text for text in notes_of(document) if "patient 2." not in text]
    assert len(notes_of(document)) == NOTES + 1
    (shortened,) = others
    assert re.fullmatch(r"Note \d of patient 1\.", shortened)


def test_notes_left_out_and_shortened_are_counted(tmp_path: Path) -> None:
    source = write(tmp_path, {"patient_1": patient(1, entry(0))})
    assert loaded(source, context_tokens=35).skipped == {}
    result = loaded(source, context_tokens=8 + 1 + 8 + 1 + 3)
    assert result.skipped == {"notes shortened to the token budget": 1, "notes beyond the token budget": 1}
    assert loaded(source, context_tokens=9).skipped == {"notes beyond the token budget": 3}


def test_an_answers_notes_beyond_the_budget_stay_whole_and_are_counted(tmp_path: Path) -> None:
    both = location(0) | location(3)
    result = loaded(write(tmp_path, {"patient_1": patient(1, entry(0, answer_location=both))}), context_tokens=5)
    assert sorted(notes_of(result.documents[0])) == [note(1, 0), note(1, 3)]
    assert result.skipped == {
        "contexts beyond the token budget: notes that may hold the answer are never cut": 1,
        "notes beyond the token budget": 2,
    }


def test_the_published_budget_is_the_default(tmp_path: Path) -> None:
    texts = {f"text_{number}": f"{number} " + "word " * words for number, words in enumerate((7_999, 7_998, 9))}
    result = loaded(write(tmp_path, {"patient_1": patient(1, entry(0), texts=texts)}))
    assert len(result.documents[0].text.split()) == longhealth.CONTEXT_TOKENS == 16_000
    assert result.skipped == {"notes beyond the token budget": 1}


def test_evidence_is_the_words_between_the_fractions(tmp_path: Path) -> None:
    texts = {"text_0": "He takes insulin daily.", "text_1": "No allergies known."}
    where = {"text_0": {"start": [9 / 23, 0], "end": [16 / 23, 0.1]}, "text_1": {"start": [0.25], "end": [0.5]}}
    result = loaded(write(tmp_path, {"patient_1": patient(1, entry(0, answer_location=where), texts=texts)}))
    (question,) = questions_of(result)
    assert question.evidence == ("insulin", "He takes", "allergies")
    assert all(passage in result.documents[0].text for passage in question.evidence)


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.4), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_locations_that_are_no_part_of_the_note_are_counted_and_their_note_is_kept(
    tmp_path: Path, start: float, end: float
) -> None:
    where = location(2, [start, 0], [end, 1])
    result = loaded(write(tmp_path, {"patient_1": patient(1, entry(0, answer_location=where))}), context_tokens=8)
    (document,) = result.documents
    assert document.text == note(1, 2)
    assert document.questions[0].evidence == (note(1, 2),)
    assert result.skipped["answer locations that are no part of their note"] == 1


@pytest.mark.parametrize("where", [None, {}, "missing"])
def test_without_an_answer_location_every_note_may_hold_the_answer(tmp_path: Path, where: Any) -> None:
    question = entry(0, answer_location=where)
    if where == "missing":
        del question["answer_location"]
    result = loaded(write(tmp_path, pair(question)), "2", context_tokens=35)
    document = result.documents[-1]
    assert sorted(notes_of(document)) == [note(2, n) for n in range(NOTES)]
    assert document.questions[0].evidence == ()
    assert result.skipped["questions without an answer location, for which every note may hold the answer"] == 1


def test_a_location_of_hundreds_of_digits_is_no_part_of_the_note(tmp_path: Path) -> None:
    far = entry(1, answer_location=location(1, start=[10**400], end=[10**401]))
    result = loaded(write(tmp_path, pair(far)))
    assert result.skipped["answer locations that are no part of their note"] == 1


def test_a_patient_that_stands_twice_is_named(tmp_path: Path) -> None:
    one = json.dumps(patient(1))
    source = write(tmp_path, f'{{"patient_01": {one}, "patient_01": {one}, "patient_02": {one}}}')
    assert 'duplicate in one object: "patient_01"' in refusal(source)


def test_locations_in_notes_that_are_not_there_are_counted(tmp_path: Path) -> None:
    question = entry(0, answer_location=location(0) | location(9))
    result = loaded(write(tmp_path, {"patient_1": patient(1, question)}), context_tokens=8)
    assert result.documents[0].text == note(1, 0)
    assert result.skipped["answer locations in notes that are not there"] == 1


@pytest.mark.parametrize(
    ("correct", "right"),
    [("insulin", "Insulin"), ("  none  of\nTHESE ", "None of these"), ("Aspirin, 100 mg", "Aspirin, 100 mg")],
)
def test_the_right_option_is_found_up_to_white_space_and_case(tmp_path: Path, correct: str, right: str) -> None:
    (question,) = questions_of(loaded(write(tmp_path, {"patient_1": patient(1, entry(0, correct=correct))})))
    assert question.answers == (right,)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("B", 1), ("B) Insulin", 1), ("Answer: b", 1), ("insulin.", 1), ("A", 0), ("", 0), ("I do not know", 0)],
)
def test_a_letter_or_the_options_text_is_right_and_what_names_no_option_is_wrong(
    tmp_path: Path, prediction: str, expected: int
) -> None:
    question = questions_of(loaded(write(tmp_path)))[0]
    assert score(question.metric, prediction, question.answers, question.options) == expected


def test_unknown_keys_are_ignored(tmp_path: Path) -> None:
    content = pair(entry(0, difficulty="hard")) | {"canary": "LongHealth:canary", "version": 5}
    assert len(loaded(write(tmp_path, content)).documents) == 2


def test_a_folder_may_hold_the_file_or_a_copy_of_the_repository(tmp_path: Path) -> None:
    expected = loaded(write(tmp_path))
    assert loaded(str(tmp_path)) == expected
    (tmp_path / "repository" / "data").mkdir(parents=True)
    (tmp_path / FILE).rename(tmp_path / "repository" / "data" / FILE)
    assert loaded(str(tmp_path / "repository")) == expected


def test_no_more_documents_and_questions_are_taken_than_asked_for(tmp_path: Path) -> None:
    result = loaded(write(tmp_path), documents=3, questions_per_document=2)
    assert [len(document.questions) for document in result.documents] == [2, 2, 2]
    assert result.skipped == {
        "documents beyond the number asked for": 1,
        "questions beyond the number asked for": 3,
    }


def test_a_beginning_is_as_many_whole_words_as_there_are_tokens_for() -> None:
    def letters(text: str) -> int:
        return len(text)

    text = " He takes  insulin."
    beginnings = [beginning(text, tokens, letters) for tokens in (0, 2, 3, 8, 9, 18, 19, 99)]
    assert beginnings == ["", "", " He", " He", " He takes", " He takes", text, text]


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in entry(0).items() if name != key}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", ["is empty"]),
        ("{", ["line 1", "broken JSON"]),
        (json.dumps(pair())[: len(json.dumps(pair())) // 2], ["line 1", "broken JSON"]),
        ([], ["should hold an object of patients", "[]"]),
        ({}, ["has no patient", "they are none"]),
        ({"canary": "x"}, ["has no patient", "they are canary"]),
        ({"patient_01": 3}, ["patient_01", "should be an object with the field 'texts'"]),
        ({"patient_01": {"questions": []}}, ["patient_01", "no field 'texts'"]),
        (pair(texts={}), ["patient_02", "'texts' is empty"]),
        (pair(texts={"text_0": " "}), ["patient_02, texts", "'text_0' should not be empty"]),
        (pair(texts={"text_0": 7}), ["patient_02, texts", "'text_0' should be text", "it is 7"]),
        (pair(questions=[]), ["patient_02", "'questions' is empty"]),
        (pair(questions={}), ["patient_02", "'questions' should be a list"]),
        (pair(entry(0), without("question")), ["patient_02, question 2", "no field 'question'"]),
        (pair(without("answer_e")), ["patient_02, question 1", "no field 'answer_e'"]),
        (pair(without("correct")), ["patient_02, question 1", "no field 'correct'"]),
        (pair(entry(0, answer_c=None)), ["patient_02, question 1", "'answer_c' should not be empty", "null"]),
        (pair(entry(0, correct="C")), ["patient_02, question 1", "'correct' should be the text of one of", '"C"']),
        (pair(entry(0, answer_location=[1])), ["patient_02, question 1", "'answer_location' should be an object"]),
        (pair(entry(0, answer_location={"text_0": {}})), ["question 1, answer_location, text_0", "no field 'start'"]),
        (pair(entry(0, answer_location=location(1, [0, 0.5]))), ["text_1", "of one length, they have 2 and 1"]),
        (pair(entry(0, answer_location=location(1, ["a"]))), ["text_1, start", "should be a whole number or a number"]),
    ],
)
def test_malformed_input_is_one_line_that_names_file_and_record(tmp_path: Path, content: Any, said: list[str]) -> None:
    text = refusal(write(tmp_path, content))
    assert all(part in text for part in [FILE, *said]), text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"variant": "4"}, ["no variant '4'", "1, 2, 3"]),
        ({"split": "train"}, ["no split 'train'", "test"]),
        ({"facts": 3}, ["facts = 3", "generated"]),
        ({"context_tokens": 0}, ["context_tokens = 0", "at least 1"]),
        ({"source": None}, ["not on the Hub", "https://github.com/kbressem/LongHealth", FILE]),
    ],
)
def test_a_request_that_does_not_fit_is_refused(tmp_path: Path, arguments: dict[str, Any], said: list[str]) -> None:
    text = refusal(**{"source": write(tmp_path)} | arguments)
    assert text.startswith("longhealth: ") and all(part in text for part in said), text


def test_a_budget_without_room_for_a_word_is_refused(tmp_path: Path) -> None:
    assert "context_tokens = 1 holds no word" in refusal(
        write(tmp_path), "3", context_tokens=1, count_tokens=lambda text: 2 * len(text.split())
    )


@pytest.mark.parametrize("variant", ["2", "3"])
def test_notes_of_other_patients_need_another_patient(tmp_path: Path, variant: str) -> None:
    assert "there is only one" in refusal(write(tmp_path, {"patient_01": patient(1)}), variant)


def test_a_source_without_the_file_is_refused(tmp_path: Path) -> None:
    assert refusal(str(tmp_path)).startswith(f"{tmp_path}: has no {FILE}")
    assert refusal(str(tmp_path / "missing")) == f"{tmp_path / 'missing'}: no such file or folder"
