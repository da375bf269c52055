"""Twins: versions of a document in which what a question's answer rests on is changed."""

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from data.evidence import evidence_basis, find_evidence
from data.sample import Document, Question
from data.twins import ANSWER, REMOVED, REPLACED, VALUE, Twins, counted
from data.typed_values import values

FILLER = "The road along the river is quiet there. "


def ship(name: str, town: str, year: int, tons: int, captain: str) -> Document:
    """A document about a ship, with a question on its launch and one on its captain."""
    launch = f"The vessel was launched at {town} in {year} and carried {tons} tons of coal."
    praise = f"Later the crew of {name} praised {captain} in letters. "
    text = f"Old ships of the north\n\n{FILLER}{launch} {FILLER}{praise}{FILLER}"
    questions = (
        Question("launch", "When was the vessel launched?", (str(year),), "exact", evidence=(launch,)),
        Question("captain", "Who was praised by the crew?", (captain,), "exact"),
        Question("coal", "Did the vessel carry coal?", ("Yes",), "exact"),
    )
    return Document(f"ship-{name}", "records", text, questions)


SHIPS = [
    ship("Aurora", "Bergen", 1871, 640, "Olaf Lund"),
    ship("Borealis", "Gdansk", 1874, 820, "Jan Kowal"),
    ship("Corona", "Kiel", 1868, 480, "Emil Brandt"),
    ship("Delphin", "Riga", 1880, 910, "Karlis Ozols"),
]
TWINS = Twins(SHIPS)


def differing(document: Document, twin: str) -> str:
    """What a twin has between what it has in common with the document before and behind."""
    own = document.text
    start = common_length(own, twin)
    end = common_length(own[start:][::-1], twin[start:][::-1])
    return twin[start : len(twin) - end]


def common_length(first: str, second: str) -> int:
    """How many characters two texts begin with in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(first), len(second)))


def test_the_answer_its_evidence_and_its_surroundings_are_changed_in_turn() -> None:
    document = SHIPS[0]
    twins = TWINS.of(document, document.questions[0], 9, seed=0)
    assert Counter(twin.change for twin in twins) == Counter({ANSWER: 3, REMOVED: 1, REPLACED: 2, VALUE: 3})
    assert {twin.basis for twin in twins} == {"answer"}
    assert counted(twins)["evidence removed, by answer"] == 1
    for twin in twins:
        assert ("1871" in twin.text) == (twin.change == VALUE)
        assert twin.text.startswith(f"Old ships of the north\n\n{FILLER}") and "Olaf Lund" in twin.text
    removed = next(twin.text for twin in twins if twin.change == REMOVED)
    assert removed == document.text.replace(document.questions[0].evidence[0] + " ", "").rstrip()
    lent = [twin.text for twin in twins if twin.change == REPLACED]
    assert all(any(other.questions[0].evidence[0] in text for other in SHIPS[1:]) for text in lent)


def test_types_are_kept() -> None:
    document = SHIPS[0]
    for question in document.questions:
        for twin in TWINS.of(document, question, 40, seed=0):
            if twin.change in (ANSWER, VALUE):
                assert [value.kind for value in values(twin.text)] == [value.kind for value in values(document.text)]


def test_no_twin_is_the_document_or_another_twin() -> None:
    for document in SHIPS:
        for question in document.questions:
            texts = [twin.text for twin in TWINS.of(document, question, 40, seed=0)]
            assert len({document.text, *texts}) == len(texts) + 1 > 10


def test_an_exchanged_answer_is_exchanged_wherever_it_stands() -> None:
    text = "It opened in 1871. Many came. The feast of 1871 is known; since 1871 all has changed. It cost $1,871 then."
    question = Question("q", "When did it open?", ("1871",), "exact", evidence=("It opened in 1871.",))
    for twin in Twins([]).of(Document("d", "records", text, (question,)), question, 4, seed=0):
        if twin.change == ANSWER:
            year = differing(Document("d", "records", text, ()), twin.text[: len("It opened in 1871")])
            assert "1871" not in twin.text and "$1,871" in twin.text and len(year) <= 4
            assert len({value.text for value in values(twin.text) if value.kind == "year"}) == 1


def test_an_answer_without_a_name_or_number_becomes_an_answer_to_a_like_question() -> None:
    def paint(number: int, colour: str) -> Document:
        text = f"The wall of house {number}00 was {colour} once. It is {colour} still."
        question = Question("q", "What colour was the wall?", (colour,), "exact")
        return Document(f"wall-{number}", "records", text, (question,))

    documents = [paint(number, colour) for number, colour in enumerate(("pink", "blue", "green"), start=1)]
    twins = Twins(documents).of(documents[0], documents[0].questions[0], 12, seed=0)
    changed = {twin.text for twin in twins if twin.change == ANSWER}
    assert changed == {documents[0].text.replace("pink", colour) for colour in ("blue", "green")}


def test_values_that_the_text_has_early_come_last() -> None:
    bridge = "Its bridge in Vilnius is 240 feet long and has 36 lamps."
    text = f"Letters of Vilnius\n\nThe town of Vilnius was old. {FILLER * 5}{bridge}"
    question = Question("q", "Is the bridge long?", ("Yes",), "exact", evidence=(bridge,))
    lender = Document("e", "records", "We saw the castle in Krakow.", ())
    document = Document("d", "records", text, (question,))
    changed = [twin for twin in Twins([document, lender]).of(document, question, 500, seed=0) if twin.change == VALUE]
    early = ["Krakow" in twin.text for twin in changed]
    assert early == [False] * (len(early) - 1) + [True] and len(early) > 10


def test_evidence_is_known_by_the_answer_by_the_task_or_by_the_question() -> None:
    text = f"{FILLER}The tower of Brno is tall. {FILLER}The bell was cast by Petr. What of the bell? Petr is known."
    document = Document("d", "records", text, ())

    def evidence(answer: str, marked: str = "") -> tuple[str, list[str]]:
        asked = Question("q", "Who cast the bell?", (answer,), "exact", evidence=(marked,) if marked else ())
        found = find_evidence(document, asked)
        assert found is not None
        return found.basis, [text[start:end].strip() for start, end in found.spans]

    assert evidence("Petr") == ("answer", ["The bell was cast by Petr.", "Petr is known."])
    assert evidence("Petr", "The bell was cast by Petr.") == ("answer", ["The bell was cast by Petr."])
    assert evidence("nobody", "The tower of Brno is tall.") == ("evidence", ["The tower of Brno is tall."])
    assert evidence("nobody") == ("likely", ["The bell was cast by Petr."])
    assert evidence("Unanswerable")[0] == evidence("Yes")[0] == "likely"


def test_numbers_are_found_as_answers_with_another_unit() -> None:
    document = Document("d", "records", "Gross margin (%) | 22.9 | 23.1\nOther | 122.9 | 22.95", ())
    found = find_evidence(document, Question("q", "What was the margin?", ("22.9%",), "exact"))
    assert found is not None and [document.text[start:end] for start, end in found.answers] == ["22.9"]


@pytest.mark.parametrize("text", ["", " \n", "word", "Nothing of the kind is here.", "東京", "?", "\ud800"])
def test_a_text_that_has_nothing_to_do_with_the_question_has_no_twins(text: str) -> None:
    question = Question("q", "Which zebra was it?", ("ostrich",), "exact", evidence=("absent",))
    document = Document("d", "records", text, (question,))
    assert Twins([*SHIPS, document]).of(document, question, 16, seed=0) == []
    assert evidence_basis(document, question) is None


def test_a_document_that_is_its_evidence_alone_is_not_emptied() -> None:
    question = Question("q", "Which town is it?", ("Oslo",), "exact")
    document = Document("d", "records", "The town is Oslo.", (question,))
    twins = Twins([document]).of(document, question, 16, seed=0)
    assert all(twin.text.strip() for twin in twins)


def test_other_scripts_and_characters_are_changed_as_others_are() -> None:
    text = "Ο πύργος στην Αθήνα έχει ύψος 340 μέτρα. Η Αθήνα είναι μεγάλη 🚢. 東京は 1964 年に開かれた。"
    question = Question("q", "Πόσο ύψος έχει;", ("340",), "exact")
    document = Document("d", "records", text, (question,))
    twins = Twins([document]).of(document, question, 8, seed=0)
    changed = [twin.text for twin in twins if twin.change == ANSWER]
    assert len(twins) == 8 and changed
    for new in changed:
        assert new.replace(differing(document, new), "", 1) == text.replace("340", "", 1) or "340" not in new


def test_the_same_seed_gives_the_same_twins_in_any_order_of_documents_and_another_seed_others() -> None:
    again = Twins([*reversed(SHIPS), SHIPS[0]])
    for document in SHIPS:
        for question in document.questions:
            twins = TWINS.of(document, question, 16, seed=3)
            assert again.of(document, question, 16, seed=3) == twins
            assert TWINS.of(document, question, 6, seed=3) == twins[:6]
            assert TWINS.of(document, question, 16, seed=4) != twins


@pytest.mark.command
def test_every_process_makes_the_same_twins() -> None:
    program = (
        "import hashlib, importlib.util as u; s = u.spec_from_file_location('t', 'tests/data/test_twins.py'); "
        "m = u.module_from_spec(s); s.loader.exec_module(m); "
        "made = [m.TWINS.of(d, q, 16, 0) for d in m.SHIPS for q in d.questions]; "
        "print(hashlib.sha256(repr(made).encode()).hexdigest())"
    )
    root = Path(__file__).resolve().parents[2]
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1 and len(printed.pop().strip()) == 64


@pytest.mark.parametrize("separator", [" ", ". The number is ", "\n", " | "])
def test_a_document_of_thousands_of_numbers_has_its_twins(separator: str) -> None:
    numbers = random.Random(0).sample(range(1000, 100_000), 5_000)
    text = separator.join(map(str, numbers))
    question = Question("q", "Which number is it?", (str(numbers[4_000]),), "exact")
    document = Document("d", "records", text, (question,))
    twins = Twins([document]).of(document, question, 16, seed=0)
    assert len(twins) == 16
    assert all(len(differing(document, twin.text)) <= len("100000") for twin in twins if twin.change == ANSWER)


def test_a_document_that_repeats_its_answer_thousands_of_times_has_its_twins() -> None:
    text = "It was in 1987 in Lisbon. " * 5_000
    question = Question("q", "When was it?", ("1987", "Lisbon"), "exact")
    document = Document("d", "records", text, (question,))
    twins = Twins([document]).of(document, question, 16, seed=0)
    assert len(twins) > 8 and all("1987" not in twin.text for twin in twins if twin.change == ANSWER)
