"""The watched documents are neither trained on nor evaluated, by document and by group, or one line says why not."""

import json
from pathlib import Path
from typing import Any

import pytest

from configs.tree import ConfigError
from data.errors import DataError
from data.sample import Document, Question
from models.loading import load_tokenizer
from models.prompts import ChatFormat
from train import job
from train.config import Config, load_config
from train.early_warning.documents import hold_back
from train.questions.source import Questions, read_questions
from train.run import main

GROUPS = 12


def patients(file: Path, first: int = 0, **more: Any) -> Path:
    """Records of twelve patients from a number on: two documents of each, two questions to a document."""
    lines = [
        {
            "context": f"Patient {patient}, visit {visit}. The iron was {patient}{visit}.",
            "question": f"What was the iron? ({number})",
            "answers": f"{patient}{visit}",
            "document": f"patient {patient}, visit {visit}",
            "title": f"patient {patient}",
            **more,
        }
        for patient in range(first, first + GROUPS)
        for visit in range(2)
        for number in range(2)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def recipe(source: Path, *overrides: str) -> Config:
    small = ("train.contexts_per_step=2", "information.negatives={batch: 1}", "eval.documents=4")
    return load_config("mi_rl.yaml", [f"tasks=[{{name: records, source: '{source}'}}]", "watch={}", *small, *overrides])


def groups(documents: list[Document]) -> set[str]:
    return {document.group for document in documents}


def names(documents: list[Document]) -> set[str]:
    return {document.id for document in documents}


def test_of_a_source_documents_are_held_back_with_their_groups(tmp_path: Path) -> None:
    said: list[str] = []
    questions = read_questions(recipe(patients(tmp_path / "own.jsonl")), said.append)
    trained, evaluated, watched = questions
    assert len(watched) == 4 and {len(document.questions) for document in watched} == {2}
    assert not groups(watched) & (groups(trained) | groups(evaluated))
    held = 2 * GROUPS - len(trained)
    assert held == 2 * len(groups(watched))
    others = f"4 to watch and {held - 4} others of their groups"
    assert f"records: held back from training {held} of 24 documents: {others}" in said
    assert "watched while it trains, every 10 steps: 8 questions about 4 documents" in said


def test_the_hash_of_a_document_decides_whatever_the_order_and_another_seed_takes_others(tmp_path: Path) -> None:
    def chosen(file: Path, *more: str) -> set[str]:
        # All that is evaluated comes from elsewhere, so that the choice is free.
        elsewhere = patients(tmp_path / "elsewhere.jsonl", first=100)
        task = f"tasks=[{{name: records, source: '{file}', eval_source: '{elsewhere}'}}]"
        return names(read_questions(recipe(file, task, "eval.documents=1", *more), print).watched)

    source = patients(tmp_path / "own.jsonl")
    lines = source.read_text().splitlines(keepends=True)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(reversed(lines)))
    assert chosen(source) == chosen(turned) != chosen(source, "seed=1")


def test_questions_per_document_are_at_most_those_asked_for(tmp_path: Path) -> None:
    config = recipe(patients(tmp_path / "own.jsonl"), "watch.questions_per_document=1")
    assert {len(document.questions) for document in read_questions(config, print).watched} == {1}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("watch.documents=25",), r"^watch\.documents = 25: records has 24 documents to train on, of which \d+ are "),
        (
            ("eval.documents=null",),
            r"of which 24 are evaluated or share their group with one .*, so that 0 can",
        ),
        (
            ("watch.documents=10", "eval.documents=1", "train.contexts_per_step=40", "train.batch_negatives=any"),
            r"^watch\.documents = 10: leaves \d+ training questions, fewer than train\.contexts_per_step = 40; watch",
        ),
        (
            ("watch.documents=1", "information.negatives={batch: 1}"),
            r"^watch\.documents = 1: .*ask for more",
        ),
    ],
)
def test_too_few_documents_are_one_line(overrides: tuple[str, ...], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        read_questions(recipe(patients(tmp_path / "own.jsonl"), *overrides), print)


def test_a_source_of_one_group_leaves_nothing_to_train_on(tmp_path: Path) -> None:
    source = patients(tmp_path / "own.jsonl", title="one patient")
    elsewhere = patients(tmp_path / "elsewhere.jsonl", first=100)
    task = f"tasks=[{{name: records, source: '{source}', eval_source: '{elsewhere}'}}]"
    with pytest.raises(DataError, match="of the 24 documents of records to train on none is left, as all share"):
        read_questions(recipe(source, task, "eval.documents=1"), print)


def test_what_is_refused_is_refused_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_none(config: Config) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(job, "load_models", load_none)
    source = patients(tmp_path / "own.jsonl")
    given = [f"tasks=[{{name: records, source: '{source}'}}]", "watch.documents=30", "information.negatives={batch: 1}"]
    folder = [f"run_folder={tmp_path}/run", "tracking.wandb=disabled"]
    assert main(["--config", "mi_rl.yaml", *given, *folder]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: watch.documents = 30: ") and error.count("\n") == 1


def generated(*overrides: str) -> Questions:
    tasks = "tasks=[{name: miniature/notes, facts: 6}, {name: miniature/papers, facts: 6}]"
    return read_questions(load_config("mi_rl.yaml", [tasks, "train.steps=2", *overrides]), print)


def test_generated_documents_are_of_the_evaluations_split_and_of_no_seed_that_a_run_can_have() -> None:
    plain, watched = generated(), generated("watch={documents: 3, questions_per_document: 2}")
    assert watched.trained == plain.trained and watched.evaluated == plain.evaluated
    assert [document.task for document in watched.watched] == ["miniature/notes"] * 3 + ["miniature/papers"] * 3
    assert all(document.id.startswith("test-") and len(document.questions) <= 2 for document in watched.watched)
    largest = generated(f"seed={2**32 - 1}", "eval.documents=3")
    seeds = {int(document.id.removeprefix("test-")) for document in watched.watched}
    assert min(seeds) > max(int(document.id.removeprefix("test-")) for document in largest.evaluated)


def test_an_accuracy_that_only_a_judge_could_give_keeps_no_adapter(tmp_path: Path) -> None:
    chat = ChatFormat(load_tokenizer("miniature/qwen2-small"))
    judged = Question("q", "What did I ask?", ("This.",), "judge")
    documents = [Document(f"d{n}", "records", f"User {n} asked this.", (judged,)) for n in range(12)]
    source = patients(tmp_path / "own.jsonl")
    for keep in ("reward", "accuracy"):
        config = recipe(source, f"watch.keep={keep}")
        assert config.watch is not None
        given = (config, config.watch, chat, documents, documents[:1], print, None)
        if keep == "reward":
            assert len(hold_back(*given)[1]) == 4
            continue
        with pytest.raises(ConfigError, match=r"^watch\.keep = 'accuracy': none of the 4 watched questions"):
            hold_back(*given)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("watch.keep=reward", "reward={accuracy: 0, information: 0, length: 0, readability: 1}"),
            "all weigh 0",
        ),
        (("watch={}", "train.steps=0", "train.warm_start={}"), r"^watch: measures between the train\.steps, of which"),
        (("watch={keep: loss}",), r"watch\.keep = 'loss': "),
        (("watch={every: 0}",), r"watch\.every = 0: "),
        (("watch={document: 3}",), r"watch\.document: unknown key; did you mean watch\.documents\?"),
    ],
)
def test_wrong_keys_are_one_line(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config("mi_rl.yaml", list(overrides))
