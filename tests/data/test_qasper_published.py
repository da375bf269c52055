"""The ten published papers at hand, in both layouts, against the official evaluator."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data.qasper import load_papers
from objectives.accuracy import score

PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "qasper"
OFFICIAL = PUBLISHED / "qasper-train-first10.official-layout.json"
COLUMNAR = PUBLISHED / "qasper-hf-train-first10.jsonl"

needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no published QASPER records in {PUBLISHED}")


@needs_published
def test_both_layouts_of_the_ten_published_papers_give_the_same_documents() -> None:
    official, official_skipped = load_papers(str(OFFICIAL), "train")
    hub, hub_skipped = load_papers(str(COLUMNAR), "train")
    assert official == hub
    assert official_skipped == hub_skipped == {"evidence in figures and tables": 9}
    assert len(official) == 10
    assert sum(len(document.questions) for document in official) == 51


@needs_published
@pytest.mark.parametrize(
    ("rule", "predict"),
    [
        ("first_reference", lambda question: question.answers[0]),
        ("always_unanswerable", lambda question: "Unanswerable"),
        ("always_yes", lambda question: "Yes"),
        ("question_words_as_answer", lambda question: question.text),
    ],
)
def test_answers_score_what_the_official_evaluator_prints(rule: str, predict: Callable[[Any], str]) -> None:
    documents, _ = load_papers(str(OFFICIAL), "train")
    questions = [question for document in documents for question in document.questions]
    scores = [score(question.metric, predict(question), question.answers) for question in questions]
    expected = json.loads((PUBLISHED / "official_evaluator_expected.json").read_text())["results"][rule]
    assert sum(scores) / len(scores) == pytest.approx(expected["Answer F1"], abs=1e-9)


@needs_published
def test_evidence_of_the_published_papers_stands_in_their_text() -> None:
    documents, _ = load_papers(str(OFFICIAL), "train")
    passages = [
        (passage, document)
        for document in documents
        for question in document.questions
        for passage in question.evidence
    ]
    assert len(passages) > 51
    assert all(passage in document.text for passage, document in passages)


@needs_published
def test_kinds_of_the_published_questions_are_those_of_the_first_annotators() -> None:
    documents, _ = load_papers(str(OFFICIAL), "train")
    kinds = Counter(question.kind for document in documents for question in document.questions)
    first = [qa["answers"][0]["answer"] for paper in json.loads(OFFICIAL.read_text()).values() for qa in paper["qas"]]
    assert kinds["none"] == sum(answer["unanswerable"] for answer in first)
    assert kinds["extractive"] == sum(bool(answer["extractive_spans"]) for answer in first)
    assert kinds["boolean"] == sum(answer["yes_no"] is not None for answer in first)
    assert kinds["abstractive"] == sum(bool(answer["free_form_answer"]) for answer in first)
