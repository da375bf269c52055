"""Questions of the embedded suite whose answer is computed: right, not stated, and changed in every twin."""

import re
from collections import Counter

import pytest

from data.errors import DataError
from data.miniature.computed import COMPUTATIONS, KINDS, THRESHOLD
from data.miniature.documents import SHAPES, make_document
from data.miniature.shape import Shape
from data.registry import load_documents
from data.sample import Document, Question
from data.task import Request
from objectives.accuracy import score

OPERANDS: dict[str, int] = {kind: computation.operands for kind, computation in COMPUTATIONS.items()}

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
every_split = pytest.mark.parametrize("split", ["train", "test"])


def documents_of(shape: Shape, split: str = "test", questions: int = 4, variant: str = "computed") -> list[Document]:
    request = Request(split, documents=12, questions_per_document=questions, variant=variant)
    return load_documents(shape.name, request).documents


def number_in(sentence: str) -> int:
    return int(re.findall(r"\d+", sentence)[-1])


def computed_again(question: Question, sentences: tuple[str, ...]) -> int:
    """The answer by the words of the question alone."""
    numbers = [number_in(sentence) for sentence in sentences]
    if f"above {THRESHOLD}" in question.text.lower():
        return len([number for number in numbers if number > THRESHOLD])
    return max(numbers) if "larger" in question.text else numbers[0] + numbers[1]


@every_shape
@every_split
def test_the_answer_follows_from_the_sentences_that_are_named(shape: Shape, split: str) -> None:
    for document in documents_of(shape, split):
        for question in document.questions:
            keys = question.id.split("-")[1:]
            assert len(question.evidence) == OPERANDS[question.kind] == len(keys)
            assert all(sentence in document.text for sentence in question.evidence)
            assert all(
                key in sentence and key in question.text for key, sentence in zip(keys, question.evidence, strict=True)
            )
            assert question.answers == (str(computed_again(question, question.evidence)),)
            assert score(question.metric, f"It is {question.answers[0]}.", question.answers) == 1.0


@every_shape
@every_split
def test_every_twin_has_one_number_changed_and_another_answer(shape: Shape, split: str) -> None:
    for document in documents_of(shape, split):
        for question in document.questions:
            assert len(set(question.negatives)) == 3
            for twin in question.negatives:
                ours, theirs = document.text.split(), twin.split()
                changed = [(own, other) for own, other in zip(ours, theirs, strict=True) if own != other]
                assert len(changed) == 1
                was, now = (number_in(side) for side in changed[0])
                held = next(sentence for sentence in question.evidence if number_in(sentence) == was)
                altered = tuple(
                    sentence.replace(str(was), str(now)) if sentence == held else sentence
                    for sentence in question.evidence
                )
                assert str(computed_again(question, altered)) not in question.answers


@every_shape
def test_kinds_take_turns_over_documents_too(shape: Shape) -> None:
    alone = Counter(question.kind for document in documents_of(shape, questions=1) for question in document.questions)
    assert alone == dict.fromkeys(KINDS, 4)
    one = {question.kind for document in documents_of(shape, variant="sum") for question in document.questions}
    assert one == {"sum"}


@every_shape
def test_documents_are_those_of_stated_questions(shape: Shape) -> None:
    for document in documents_of(shape):
        assert document.text == make_document(shape.name, int(document.id.rpartition("-")[2]), "test").text


def test_documents_without_numbers_enough_are_counted_and_replaced() -> None:
    request = Request(split="test", documents=40, questions_per_document=1, variant="count", facts=8)
    loaded = load_documents("miniature/papers", request)
    assert len(loaded.documents) == 40 and loaded.skipped["documents with too few numbers"] > 0
    assert len({document.id for document in loaded.documents}) == 40


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(split="test", documents=1, variant="sum", facts=7), "facts = 7, but variant = sum needs 8 at least"),
        (Request(split="test", documents=1, variant="product"), "no variant 'product'; there are stated, qual"),
    ],
)
def test_what_cannot_be_computed_is_refused(request_: Request, words: str) -> None:
    with pytest.raises(DataError, match=words):
        load_documents("miniature/notes", request_)
