"""Evaluations small enough for a test: an adapter that does something, and the arguments of a run."""

import json
from pathlib import Path
from typing import Any

from eval.run import main
from models.adapters import add_adapter
from models.loading import load_model

EVIDENCE_BATCH = "information.negatives={counterfactual: 0, batch: 2}"
"""Negatives of tasks that make none of their own."""


def write_adapter(folder: Path, seed: int = 0, model: str = "miniature/qwen2-leading") -> Path:
    """An adapter in PEFT's format, not the identity that a fresh one is."""
    plain, _ = load_model(model)
    adapted = add_adapter(plain, 4, 32, 0.0, "all-linear", seed)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            parameter.data.normal_(std=0.02)
    adapted.save_pretrained(str(folder))
    return folder


def small(folder: Path, *more: str, tasks: str = "tasks=[miniature/notes]") -> list[str]:
    """The arguments of a run: two documents, two questions each, batches of two, nothing it is held against."""
    return [
        "--config",
        "evaluation.yaml",
        f"run_folder={folder}",
        tasks,
        "compressor.adapter=null",
        "compressor.budget_tokens=12",
        "predictor.max_answer_tokens=6",
        "second_scorer=null",
        "baselines=[]",
        "eval.documents=2",
        "eval.questions_per_document=2",
        "eval.batch_size=2",
        *more,
    ]


def evaluated(folder: Path, *more: str, tasks: str = "tasks=[miniature/notes]") -> dict[str, Any]:
    """The results of a small run, which has to succeed."""
    assert main(small(folder, *more, tasks=tasks)) == 0
    return comparable(folder)


def comparable(folder: Path) -> dict[str, Any]:
    """The results of a run without when, how long, where and from which commit, in which two equal runs may differ."""
    found = json.loads((folder / "results.json").read_text())
    for name in ("date", "seconds", "machine", "commit", "modified"):
        del found["meta"][name]
    for row in found.get("costs", []):
        for part in ("per_question", "per_correct"):
            for spent in row[part].values():
                del spent["seconds"], spent["joules"]
        for missing in row["missing"].values():
            # The first process alone measures energy.
            del missing["joules"]
    return found


def records(folder: Path) -> list[dict[str, Any]]:
    """The records of a run."""
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def logged(folder: Path) -> list[str]:
    """The keys of the batches that a run has written down, by all its processes."""
    lines = [line for file in sorted((folder / "records").glob("*.jsonl")) for line in file.read_text().splitlines()]
    return [json.loads(line)["key"] for line in lines]
