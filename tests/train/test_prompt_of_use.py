"""A trained adapter is used under the very prompts that it was trained on, token for token, whatever the task."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs.build import load_samples
from data.registry import TASKS
from data.written_questions import Material
from models.compressor import Compressor
from tests.data import test_financebench, test_longhealth
from tests.record_files import write_records
from tests.written_questions import rows_of
from train.config import load_config
from train.models import load_models, save_trained
from train.questions.source import training_request
from train.sampling.rollout import Rollout


def paper(number: int) -> dict[str, object]:
    answer = {"unanswerable": False, "extractive_spans": [], "yes_no": True, "free_form_answer": "", "evidence": []}
    question = {"question_id": f"q{number}", "question": "Is zinc measured?", "answers": [{"answer": answer}]}
    return {"title": f"Zinc {number}", "abstract": "It is measured. " * 60, "full_text": [], "qas": [question]}


def written(folder: Path, materials: list[Material]) -> str:
    return write_records(folder / "train.jsonl", rows_of(materials))


SOURCES: dict[str, Callable[[Path], str]] = {
    "records": lambda folder: write_records(
        folder / "own.jsonl",
        [{"context": f"The harbour opens at {n}. " * 60, "question": "When?", "answers": [f"{n}"]} for n in range(3)],
    ),
    "qasper": lambda folder: write_records(folder / "papers.json", {f"p{n}": paper(n) for n in range(3)}),
    "longhealth": test_longhealth.write,
    "financebench": lambda folder: test_financebench.write(
        folder, *map(test_financebench.entry, range(3)), documents=[test_financebench.document_row()]
    ),
    "fineweb": lambda folder: written(
        folder, [Material("fineweb", f"page{n}", (f"Page {n} speaks of zinc.\nIt is high.\n" * 30,)) for n in range(3)]
    ),
    "wildchat": lambda folder: written(
        folder,
        [
            Material("wildchat", f"u{n}", (f"User: My code is {n}.\n\nAssistant: Noted.",) * 2, "natural", f"u{n}")
            for n in range(3)
        ],
    ),
}
VARIANTS = {"financebench": "evidence", "wildchat": "natural"}
SPLITS = {"longhealth": "test", "financebench": "test"}


@pytest.mark.parametrize("task", TASKS)
def test_a_trained_adapter_reads_what_the_rollout_read(task: str, tmp_path: Path) -> None:
    named = [f"name: {task}"]
    if task in SOURCES:
        named += [f"source: '{SOURCES[task](tmp_path)}'", f"split: {SPLITS.get(task, 'train')}"]
    if task in VARIANTS:
        named.append(f"variant: {VARIANTS[task]}")
    negatives = "information.negatives={counterfactual: 0, batch: 1}"
    limits = ["compressor.budget_tokens=2", "compressor.max_context_tokens=150", "train.contexts_per_step=2"]
    config = load_config("mi_rl.yaml", [f"tasks=[{{{', '.join(named)}}}]", negatives, "train.steps=2", *limits])
    models = load_models(config)
    samples = load_samples(config, models.compressor, "train", training_request, print)
    rollout = Rollout(models.compressor, {sample.id: sample for sample in samples}, config.train.temperature, 0)
    trainer = SimpleNamespace(use_vllm=False, state=SimpleNamespace(global_step=0))
    read_in_training = rollout([sample.id for sample in samples], trainer)["prompt_ids"]
    save_trained(config, models, tmp_path / "compressor")
    compressor = Compressor.load(tmp_path / "compressor")
    assert compressor.budget_tokens == 2 and compressor.trained is not None
    assert compressor.trained.answer_instruction == TASKS[task].answer_instruction
    read_in_use = [
        compressor.prompt(text, sample.compressor_question).ids
        for sample in samples
        for text in (sample.document.text, *sample.document.parts)
    ]
    assert samples and all(ids in read_in_use for ids in read_in_training)


def test_the_limit_of_a_context_is_part_of_what_is_remembered(tmp_path: Path) -> None:
    config = load_config("mi_rl.yaml", ["compressor.max_context_tokens=40", "compressor.budget_tokens=8"])
    models = load_models(config)
    save_trained(config, models, tmp_path)
    document, question = "The zinc was 41 on that day. " * 40, "What was the zinc?"
    assert Compressor.load(tmp_path).prompt(document, question) == models.compressor.prompt(document, question)
