"""Studies small enough for a test: their recipe, and figures of members that nobody has run."""

from pathlib import Path
from typing import Any

import yaml

from train.study.config import StudyConfig, load_config
from train.study.figures import Figures, Messages, figures_path, write_figures
from train.study.members import Member, planned

STUDY: dict[str, Any] = {
    "recipe": "mi_rl.yaml",
    "settings": {
        "tasks": [{"name": "miniature/notes", "facts": 6}],
        "train.warm_start": {"examples": 8, "batch_size": 4},
        "train.steps": 2,
        "train.contexts_per_step": 2,
        "train.group_size": 2,
        "information.negatives": {"counterfactual": 1, "batch": 1},
        "compressor.budget_tokens": 24,
        "tracking.wandb": "disabled",
    },
    "seeds": [0, 1],
    "variants": {"full": {}, "without-information": {"reward.information": 0}},
    "training": {"eval.documents": 1, "eval.questions_per_document": 1},
    "evaluation": {"eval.temperature": 0, "baselines": [{"name": "bm25", "budgets": [8, 32]}]},
    "sets": {"notes": {"eval.documents": 2}},
}

DOCUMENTS = ["page-00", "page-01", "other-00", "other-01"]


def written(folder: Path, **changes: Any) -> Path:
    """The recipe of a study whose runs lie in ``folder``."""
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "run_folder": str(folder / "study"), **changes}, sort_keys=False))
    return file


def configured(folder: Path, **changes: Any) -> StudyConfig:
    return load_config(str(written(folder, **changes)))


def messages(name: str, accuracy: list[float | None], tokens: list[int], baseline: str | None = None) -> Messages:
    bits: list[float | None] = [float(count) / 10 for count in tokens]
    right, known = [value == 1.0 for value in accuracy], [bool(value) for value in accuracy]
    return Messages(name, baseline, accuracy, tokens, bits, right, known)


def plant(
    config: StudyConfig,
    member: Member,
    *written_messages: Messages,
    documents: list[str] = DOCUMENTS,
    metric: str = "qasper_f1",
) -> Path:
    """The figures of a member as if it had been run: a question a document."""
    made = {
        "date": "2026-01-01T00:00:00+00:00",
        "commit": "0" * 40,
        "modified": False,
        "seconds": 60,
        "compressor": "c",
    }
    questions = [f"miniature/notes/{document}/q" for document in documents]
    tasks = ["miniature/notes"] * len(documents)
    kinds = ["read", "computed"] * (len(documents) // 2)
    metrics = [metric] * len(documents)
    figures = Figures(member.depends.keys, made, questions, tasks, kinds, metrics, documents, list(written_messages))
    path = figures_path(config.pages_folder, member)
    write_figures(path, figures)
    return path


def plant_all(config: StudyConfig) -> dict[str, Path]:
    """A whole study of four questions: the warm start with a curve of BM25, and two variants with two seeds."""
    f1: dict[str, list[float | None]] = {
        "notes full/0": [1.0, 0.5, 0.0, 1.0],
        "notes full/1": [1.0, 1.0, 0.5, 1.0],
        "notes without-information/0": [0.5, 0.5, 0.0, 0.0],
        "notes without-information/1": [1.0, 0.0, 0.0, 1.0],
    }
    paths = {}
    for member in planned(config):
        if member.name == "notes warm-start":
            paths[member.name] = plant(
                config,
                member,
                messages("warm-start", [0.5, 0.5, 0.0, 1.0], [40, 40, 40, 60]),
                messages("untrained", [0.0, 0.5, 0.0, 0.0], [60] * 4),
                messages("bm25 8", [0.0, 0.0, 0.0, 0.0], [8] * 4, "bm25"),
                messages("bm25 32", [0.5, 1.0, 0.0, 0.5], [32] * 4, "bm25"),
                messages("head 8", [0.25, 0.0, 0.0, 0.0], [8] * 4, "head"),
                messages("head 32", [0.25, 0.0, 0.0, 0.0], [32] * 4, "head"),
            )
        elif member.set_name:
            paths[member.name] = plant(config, member, messages(member.variant, f1[member.name], [20, 20, 10, 30]))
    return paths
