"""Questions about one of several facts that share a key: a qualifier tells them apart, and nothing else does."""

from collections import Counter

import pytest

from data.miniature.documents import QUALIFIERS, SHAPES, UNANSWERABLE, absent_keys, make_layout
from data.miniature.papers import PAPERS
from data.miniature.shape import Shape
from data.miniature.task import SHARING, load
from data.miniature.values import Split
from data.sample import Document
from data.task import Request

shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
splits = pytest.mark.parametrize("split", ["train", "test"])


def documents_of(shape: Shape, split: str = "test", facts: int = 24) -> list[Document]:
    request = Request(split, documents=20, questions_per_document=8, variant="qualified", facts=facts)
    return load(shape, request).documents


@shapes
@splits
def test_every_key_is_shared_and_every_qualifier_told_once(shape: Shape, split: Split) -> None:
    for seed in range(20):
        layout, _ = make_layout(shape, seed, split, 24, 0.5, SHARING)
        keys = [fact.key.split() for fact in layout.facts]
        assert len({tuple(key) for key in keys}) == len(layout.facts) == min(24, shape.max_facts)
        assert all(len(key) == 2 and key[0] in QUALIFIERS for key in keys)
        assert set(Counter(noun for _, noun in keys).values()) == {SHARING}


@shapes
@splits
def test_the_answer_is_the_value_of_the_very_key_asked_about(shape: Shape, split: str) -> None:
    for document in documents_of(shape, split):
        for question in document.questions:
            key = question.id.split("-")[1]
            assert key in question.text
            if question.answers == (UNANSWERABLE,):
                assert key not in document.text
                continue
            (evidence,) = question.evidence
            assert key in evidence and evidence in document.text
            assert all(evidence not in twin for twin in question.negatives)


@shapes
@splits
def test_the_longest_documents_have_values_for_everything_and_for_their_twins(shape: Shape, split: str) -> None:
    for document in documents_of(shape, split, shape.max_facts):
        assert all(question.negatives for question in document.questions)


def test_what_is_not_stated_is_asked_under_another_qualifier_of_a_key_that_is() -> None:
    layout, _ = make_layout(PAPERS, 3, "test", 24, 0.5, SHARING)
    nouns = {fact.key.split()[1] for fact in layout.facts if fact.relation.value != "yes_no"}
    absent = [key for _, key in absent_keys(layout)]
    assert {key.split()[1] for key in absent} == nouns
    assert len(absent) == len(nouns) * (len(QUALIFIERS) - SHARING)


@shapes
@pytest.mark.parametrize("facts", [1, 2, 4, 7])
def test_a_document_whose_facts_make_no_whole_groups_has_as_many_as_are_asked_for(shape: Shape, facts: int) -> None:
    layout, _ = make_layout(shape, 5, "test", facts, 0.5, SHARING)
    assert len(layout.facts) == facts
    assert max(Counter(fact.key.split()[1] for fact in layout.facts).values()) <= SHARING
    assert all(document.questions for document in documents_of(shape, facts=facts))
