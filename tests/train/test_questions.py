"""Questions are counted before any model is loaded, and those that no metric scores are told."""

import json
from pathlib import Path

import pytest

from configs.tree import ConfigError
from data.errors import DataError
from data.sample import Document, Question, Sample
from train import job
from train.config import Config, load_config
from train.questions.source import check_count, check_metrics, read_questions
from train.run import main


def records(file: Path, count: int) -> Path:
    """A file of so many questions, three to a document."""
    lines = [
        {"context": f"The iron of patient {n // 3} was {n // 3}.", "question": f"What was it? ({n})", "answers": "4"}
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def recipe(source: Path, *overrides: str) -> Config:
    given = [f"tasks=[{{name: records, source: '{source}'}}]", "information.negatives={batch: 1}", *overrides]
    return load_config("mi_rl.yaml", given)


def test_too_few_questions_for_a_step_are_refused_before_any_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_none(config: Config) -> None:
        raise AssertionError("a model is loaded")

    monkeypatch.setattr(job, "load_models", load_none)
    source = records(tmp_path / "own.jsonl", 6)
    task = f"tasks=[{{name: records, source: '{source}'}}]"
    more = ["information.negatives={batch: 1}", f"run_folder={tmp_path}/run", "tracking.wandb=disabled"]
    assert main(["--config", "mi_rl.yaml", task, *more]) == 2
    said = capsys.readouterr().err
    assert "error: 6 training questions, fewer than train.contexts_per_step = 8: " in said


def test_as_many_questions_as_a_step_has_contexts_are_enough(tmp_path: Path) -> None:
    source = records(tmp_path / "own.jsonl", 6)
    trained, evaluated, watched = read_questions(recipe(source, "train.contexts_per_step=6"), print)
    assert [len(document.questions) for document in trained] == [3, 3] and len(evaluated) == 2 and not watched
    with pytest.raises(DataError, match=r"^6 training questions, fewer than train\.contexts_per_step = 7"):
        read_questions(recipe(source, "train.contexts_per_step=7"), print)


def samples(*metrics: str) -> list[Sample]:
    """A question of each metric."""
    questions = [Question(str(n), "Which?", ("this",), metric) for n, metric in enumerate(metrics)]
    document = Document("d", "records", "text", tuple(questions))
    return [Sample(document, question) for question in questions]


def test_a_step_counts_its_contexts_not_its_messages() -> None:
    config = load_config("mi_rl.yaml", ["train.contexts_per_step=4", "train.group_size=8", "train.steps=1000"])
    check_count(config, samples(*["exact"] * 4))


def told(config: Config, *metrics: str) -> list[str]:
    said: list[str] = []
    check_metrics(config, samples(*metrics), said.append)
    return said


def test_questions_that_only_a_judge_scores_are_told_with_what_pays_for_them() -> None:
    config = load_config("mi_rl.yaml")
    assert told(config, "exact", "qasper_f1") == []
    assert told(config, "judge", "judge") == [
        "2 of 2 training questions have no metric, as only a judge can score them: their accuracy is not scored, and "
        "their messages are paid for information alone"
    ]
    both = load_config("mi_rl.yaml", ["reward.task_information=1"])
    assert told(both, "exact", "perplexity")[0].startswith("1 of 2 training questions have no metric")
    assert told(both, "exact", "perplexity")[0].endswith("are paid for information and task_information alone")


def test_a_reward_that_pays_no_question_is_refused() -> None:
    config = load_config("mi_rl.yaml", ["reward.information=0", "reward.length=1"])
    with pytest.raises(ConfigError, match=r"reward\.accuracy = 1\.0.*pays for nothing here.*give reward\.information"):
        told(config, "judge", "perplexity")
    assert told(config, "judge", "exact") == [
        "1 of 2 training questions have no metric, as only a judge can score them: their messages are paid nothing "
        "(reward.accuracy = 1.0, reward.length = 1.0)"
    ]


def test_best_of_n_needs_questions_with_a_metric() -> None:
    config = load_config("mi_rl.yaml", ["train.update=best_of_n"])
    with pytest.raises(ConfigError, match=r"^train\.update = best_of_n: .* above 0, and 2 of 2 training questions"):
        told(config, "judge", "perplexity")
    assert told(config, "judge", "exact") == [
        "1 of 2 training questions have no metric, as only a judge can score them: nothing is learned from their "
        "messages (train.update = best_of_n)"
    ]
    assert told(config, "exact", "exact") == []
