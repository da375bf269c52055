"""The tasks a run can name: what each loads, and how a request that does not fit is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.sections import TaskConfig
from data.miniature import documents as miniature
from data.miniature.task import TWINS
from data.registry import TASKS, Loaded, Request, load_documents
from tests.record_files import refusal_of

EMBEDDED = tuple(miniature.SHAPES)
QUESTIONS = 4
DEFAULTS: dict[str, Any] = {"split": "train"}


@pytest.fixture
def papers(tmp_path: Path) -> str:
    """A file of nine papers with four answered questions each, and one paper without any."""

    def question(name: str) -> dict[str, Any]:
        answer = {"unanswerable": False, "extractive_spans": [], "yes_no": True, "free_form_answer": "", "evidence": []}
        return {"question_id": name, "question": f"Is it {name}?", "answers": [{"answer": answer}]}

    def paper(name: str, questions: int) -> dict[str, Any]:
        published = [question(f"{name}-{number}") for number in range(questions)]
        return {"title": name, "abstract": "Short.", "full_text": [], "qas": published}

    content = {f"p{number}": paper(f"p{number}", QUESTIONS) for number in range(9)} | {"p9": paper("p9", 0)}
    file = tmp_path / "papers.json"
    file.write_text(json.dumps(content))
    return str(file)


def refusal(name: str, **arguments: Any) -> str:
    """What the refusal of a request says; always one line that names the task."""
    message = refusal_of(lambda: load_documents(name, Request(**DEFAULTS | arguments)))
    assert name in message
    return message


def generated(name: str = "miniature/chats", **arguments: Any) -> Loaded:
    return load_documents(name, Request(**{**DEFAULTS, "documents": 3, **arguments}))


PUBLISHED = ("records", "qasper", "longhealth", "financebench", "fineweb", "wildchat")


def test_a_config_can_name_every_task() -> None:
    assert [name for name in TASKS if TaskConfig(name=name).embedded] == list(EMBEDDED)
    assert [name for name in TASKS if not TaskConfig(name=name).embedded] == list(PUBLISHED)


def test_tasks_go_by_their_own_names() -> None:
    assert all(task.name == name for name, task in TASKS.items())


def test_the_embedded_models_need_no_instruction_and_others_get_one() -> None:
    for name, task in TASKS.items():
        assert bool(task.instruction) == bool(task.answer_instruction) == (name not in EMBEDDED)


@pytest.mark.parametrize("name", EMBEDDED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_an_embedded_task_is_its_generators_documents(name: str, split: miniature.Split) -> None:
    loaded = load_documents(name, Request(split=split, documents=2, questions_per_document=3, facts=12, seed=0))
    assert loaded.documents == miniature.make_documents(name, 0, 2, split, facts=12, questions=3, twins=TWINS)
    assert {document.task for document in loaded.documents} == {name}


def test_every_fact_of_a_default_document_is_asked() -> None:
    assert [len(document.questions) for document in generated().documents] == [miniature.DEFAULT_FACTS] * 3
    assert generated(facts=8).skipped == {}
    assert [len(document.questions) for document in generated(facts=8).documents] == [8] * 3


def test_the_same_seed_gives_the_same_documents_and_another_seed_others() -> None:
    runs = [generated(seed=seed, documents=20).documents for seed in (0, 0, 1, 2)]
    assert runs[0] == runs[1]
    texts = {document.text for run in runs[1:] for document in run}
    ids = {document.id for run in runs[1:] for document in run}
    assert len(texts) == len(ids) == 60


def test_more_documents_of_a_seed_begin_with_the_fewer() -> None:
    assert generated(documents=5).documents[:3] == generated(documents=3).documents


def test_questions_that_were_drawn_twice_are_counted() -> None:
    loaded = generated("miniature/papers", documents=60)
    missing = 60 * miniature.DEFAULT_FACTS - sum(len(document.questions) for document in loaded.documents)
    assert missing > 0
    assert loaded.skipped == {"questions asked twice": missing}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"split": "validation"}, ["no split 'validation'", "train and test"]),
        ({"documents": None}, ["set documents", "without limit"]),
        ({"source": "papers.json"}, ["source = 'papers.json'", "generated"]),
        ({"facts": 25}, ["facts = 25", "24 at most"]),
        ({"documents": 0}, ["documents = 0", "at least 1"]),
        ({"questions_per_document": 0}, ["questions_per_document = 0", "at least 1"]),
        ({"facts": -1}, ["facts = -1", "at least 1"]),
    ],
)
def test_a_request_the_embedded_suite_cannot_meet_is_refused(arguments: dict[str, Any], said: list[str]) -> None:
    text = refusal("miniature/pages", **{"documents": 1} | arguments)
    assert all(part in text for part in said), text


def test_an_unknown_task_is_refused() -> None:
    assert "qasper" in refusal("miniature/note", documents=1)


def test_all_papers_are_read_and_what_is_left_out_is_counted(papers: str) -> None:
    loaded = load_documents("qasper", Request(split="train", source=papers))
    assert [document.id for document in loaded.documents] == [f"p{number}" for number in range(9)]
    assert loaded.skipped == {"papers without questions": 1}


def test_no_more_papers_and_questions_are_taken_than_asked_for(papers: str) -> None:
    loaded = load_documents("qasper", Request(split="train", source=papers, documents=4, questions_per_document=3))
    assert [len(document.questions) for document in loaded.documents] == [3] * 4
    assert loaded.skipped == {
        "papers without questions": 1,
        "documents beyond the number asked for": 5,
        "questions beyond the number asked for": 4,
    }


def test_the_seed_draws_which_papers_and_questions_are_taken_in_their_order(papers: str) -> None:
    def taken(seed: int) -> list[str]:
        arguments: dict[str, Any] = {"documents": 4, "questions_per_document": 2, "seed": seed}
        loaded = load_documents("qasper", Request(split="train", source=papers, **arguments))
        return [question.id for document in loaded.documents for question in document.questions]

    draws = [taken(seed) for seed in range(20)]
    assert taken(0) == draws[0]
    assert all(draw == sorted(draw) for draw in draws)
    assert {question for draw in draws for question in draw} == {
        f"p{p}-{q}" for p in range(9) for q in range(QUESTIONS)
    }


def test_more_than_there_is_takes_everything(papers: str) -> None:
    everything = load_documents("qasper", Request(split="train", source=papers))
    assert (
        load_documents("qasper", Request(split="train", source=papers, documents=99, questions_per_document=99))
        == everything
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"facts": 12}, ["facts = 12", "generated"]),
        ({"split": "tran"}, ["no split 'tran'"]),
        ({"documents": -3}, ["documents = -3", "at least 1"]),
    ],
)
def test_a_request_a_published_task_cannot_meet_is_refused(
    papers: str, arguments: dict[str, Any], said: list[str]
) -> None:
    text = refusal("qasper", **{"source": papers} | arguments)
    assert all(part in text for part in said), text
