"""Models and documents as a recipe names them."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from configs.build import build_predictor, build_scorer, evaluation_request, instructions, load_samples
from configs.sections import PredictorConfig, ScorerConfig
from configs.tree import ConfigError
from data.errors import DataError
from data.registry import TASKS
from data.sample import Document, Question
from data.task import Loaded
from eval.config import EvaluationConfig, load_config
from models.compressor import Compressor
from models.loading import load_model
from models.naming import ModelError
from models.predictor import LocalPredictor, Query, RemotePredictor
from tests.local_server import Answer, chat, serving
from tests.record_files import write_records

MODEL = "miniature/qwen2-small"
LOCAL = PredictorConfig(model=MODEL, max_answer_tokens=4)


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    return Compressor(*load_model(MODEL), budget_tokens=16, max_context_tokens=300)


def recipe(*overrides: str) -> EvaluationConfig:
    return load_config("evaluation.yaml", ["compressor.adapter=null", *overrides])


def loaded_ids(compressor: Compressor, *overrides: str) -> tuple[list[str], list[str]]:
    """The ids of the questions that are loaded, and what was said."""
    said: list[str] = []
    samples = load_samples(recipe(*overrides), compressor, "evaluate", evaluation_request, said.append)
    return [sample.id for sample in samples], said


def test_the_tasks_of_a_run_agree_on_what_models_are_told() -> None:
    assert instructions(recipe()) == ("", "")
    with pytest.raises(ConfigError, match="tasks = miniature/notes, qasper: have different instructions"):
        instructions(recipe("tasks=[miniature/notes, qasper]"))


def test_held_out_questions_are_the_test_split_as_many_as_asked_for(compressor: Compressor) -> None:
    tasks = "tasks=[miniature/notes, miniature/papers]"
    ids, said = loaded_ids(compressor, tasks, "eval.documents=3", "eval.questions_per_document=2")
    assert len(ids) == len(set(ids)) == 12 and all("/test-" in name for name in ids)
    assert {name.rpartition("/test-")[0] for name in ids} == {"miniature/notes", "miniature/papers"}
    assert loaded_ids(compressor, tasks, "eval.documents=3", "eval.questions_per_document=2")[0] == ids
    assert loaded_ids(compressor, tasks, "eval.documents=3", "eval.questions_per_document=2", "seed=1")[0] != ids
    assert "6 of 6 contexts to evaluate on are longer than the room for them, 300 tokens" in said[0]


def test_questions_that_the_window_does_not_take_are_skipped_and_counted(
    compressor: Compressor, tmp_path: Path
) -> None:
    record = {"context": "The zinc was 85 mg. " * 100, "answers": ["85 mg"]}
    questions = ("What was it?", "What was it " + "after the day " * 600 + "?", "What was it " + "then " * 9000 + "?")
    source = write_records(tmp_path / "own.jsonl", [record | {"question": question} for question in questions])
    tasks = f"tasks=[{{name: records, source: '{source}'}}]"
    ids, said = loaded_ids(compressor, tasks, "information.negatives.batch=1")
    assert len(ids) == 1 and said[-1].startswith(
        "2 of 3 questions to evaluate on are skipped: the model's window of 2048"
    )


def test_twins_are_negatives_that_a_published_task_always_has() -> None:
    alone = "information.negatives={counterfactual: 0, batch: 0, twins: 16}"
    assert recipe("tasks=[qasper]", alone).information.negatives.twins == 16
    with pytest.raises(ConfigError, match="ask for twins, same_document or batch"):
        recipe("tasks=[qasper]", "information.negatives={counterfactual: 3, batch: 0}")


@pytest.mark.parametrize(
    ("information", "said"),
    [
        ("{evidence: last}", "information.evidence = 'last': the 3 counterfactual versions"),
        ("{context_words: 200}", "information.context_words = 200: documents are cut around evidence"),
        (
            "{negatives: {twins: 4}, twins_per_step: 5}",
            "information.twins_per_step = 5: there are information.",
        ),
    ],
)
def test_ways_of_scoring_that_do_not_go_together_are_refused(information: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        recipe(f"information={information}")


def test_how_twins_know_the_evidence_of_questions_is_told(compressor: Compressor, tmp_path: Path) -> None:
    context = "The mill was built in 1810. The owners sold flour to the towns. It burned down in the end."
    asked = [("When was the mill built?", "1810"), ("Did the owners sell flour?", "Yes"), ("Who?", "nobody")]
    records = [{"context": context, "question": question, "answers": [answer]} for question, answer in asked]
    source = write_records(tmp_path / "own.jsonl", records)
    tasks = f"tasks=[{{name: records, source: '{source}', instruction: '', answer_instruction: ''}}]"
    _, said = loaded_ids(compressor, tasks, "information.negatives={counterfactual: 0, batch: 0, twins: 4}")
    told = "1 with a gold answer, 0 marked by the task, 1 nearest to the question, 1 without any, thus no twins"
    assert said == [f"sentences that twins change, by question to evaluate on: {told}"]


def test_where_the_evaluation_reads_takes_precedence() -> None:
    source = str(Path(__file__))
    given = f"tasks=[{{name: qasper, source: '{source}', eval_source: '{Path(__file__).parent}', eval_split: dev}}]"
    config = recipe(given, "information.negatives.batch=1")
    request = evaluation_request(config, config.tasks[0])
    assert (request.source, request.split) == (str(Path(__file__).parent), "dev")


def test_documents_that_cannot_be_read_are_a_data_error_of_one_line(compressor: Compressor) -> None:
    with pytest.raises(DataError, match=r"no split 'validation'") as caught:
        loaded_ids(compressor, "tasks=[{name: miniature/notes, eval_split: validation}]")
    assert "\n" not in str(caught.value)


def replace_task(monkeypatch: pytest.MonkeyPatch, loaded: Loaded) -> None:
    """Let miniature/notes give these documents."""
    monkeypatch.setitem(TASKS, "miniature/notes", replace(TASKS["miniature/notes"], load=lambda request: loaded))


def test_what_a_task_skips_is_said_and_parts_are_cut_one_by_one(
    compressor: Compressor, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = Question("q", "Who?", ("me",), "perplexity")
    long, short = "zinc " * 900, "iron 5"
    document = Document("d", "miniature/notes", f"{long}\n\n{short}", (question,), parts=(long, short))
    replace_task(monkeypatch, Loaded([document], {"dull ones": 3}))
    said: list[str] = []
    [sample] = load_samples(recipe("tasks=[miniature/notes]"), compressor, "evaluate", evaluation_request, said.append)
    count = [len(compressor.prompts.format.text_ids(part)) for part in sample.document.parts]
    assert count[0] <= 300 and sample.document.parts[1] == short and sample.document.text == document.text
    assert said[0] == "miniature/notes: skipped 3 (dull ones)" and "1 of 1 contexts" in said[1]


def test_no_question_is_a_data_error(compressor: Compressor, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_task(monkeypatch, Loaded([], {}))
    with pytest.raises(DataError, match="no questions to evaluate on in miniature/notes"):
        load_samples(recipe("tasks=[miniature/notes]"), compressor, "evaluate", evaluation_request, print)


def test_a_local_predictor_reads_a_long_message_whole_or_refuses_it() -> None:
    predictor, model = build_predictor(LOCAL, "Be brief.")
    assert isinstance(predictor, LocalPredictor) and model is not None and model is predictor.model
    assert not any(parameter.requires_grad for parameter in model.parameters())
    word = len(predictor.prompts.format.text_ids(" zinc"))
    whole = predictor.prompts(" zinc" * (1500 // word), "Which?")
    assert whole.truncated_tokens == 0 and len(whole.ids) > 1490
    with pytest.raises(ModelError, match="takes 2048 tokens"):
        predictor.answer([Query(" zinc" * (2100 // word), "Which?")])


def test_a_predictor_and_a_scorer_that_are_one_model_are_loaded_once(compressor: Compressor) -> None:
    _, answering = build_predictor(LOCAL, "")
    _, scoring = build_scorer(ScorerConfig(model=MODEL), compressor, "", print)
    _, other = build_scorer(ScorerConfig(model=MODEL, dtype="bfloat16"), compressor, "", print)
    assert answering is scoring and other is not answering


def test_a_remote_predictor_needs_no_model_here() -> None:
    with serving([Answer(chat("5"))]) as server:
        remote = LOCAL.model_copy(update={"endpoint": server.url, "model": "large"})
        predictor, model = build_predictor(remote, "")
        assert isinstance(predictor, RemotePredictor) and model is None and predictor.prompts is None
        known, _ = build_predictor(remote.model_copy(update={"tokenizer": MODEL}), "")
    assert isinstance(known, RemotePredictor) and known.prompts is not None


def test_the_scorer_is_the_compressors_base_unless_another_is_named(compressor: Compressor, tmp_path: Path) -> None:
    said: list[str] = []
    bound, model = build_scorer(ScorerConfig(), compressor, "", said.append)
    assert bound.scorer.model is compressor.model and model is None and bound.shares_vocabulary
    bound, model = build_scorer(ScorerConfig(model="miniature/llama-medium"), compressor, "", said.append)
    assert bound.scorer.model is model and bound.shares_vocabulary and said == []
    plain, tokenizer = load_model("miniature/llama-medium")
    tokenizer.add_tokens(["<|other|>"])
    plain.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    bound, _ = build_scorer(ScorerConfig(model=str(tmp_path)), compressor, "", said.append)
    assert not bound.shares_vocabulary and said == [
        f"{tmp_path} has another vocabulary than the compressor: messages are scored as re-tokenised text"
    ]
