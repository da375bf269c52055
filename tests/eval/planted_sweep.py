"""Fabricated grids of a sweep whose contrasts are known."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from configs.tree import PROJECT
from eval.analysis.significance import Bootstrap
from eval.record import SweepRecord
from eval.sweep.findings import findings
from eval.sweep.results import summarise
from tests.records import sweep_record as record

Figures = Any

SMALL, MEDIUM, LARGE = ("small", "qwen", 1_000_000), ("medium", "llama", 2_000_000), ("large", "qwen", 4_000_000)
PLAIN = [sys.executable, "-m", "eval.sweep"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "eval.sweep"]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
QUICK = 200
TASKS = [f"miniature/{shape}" for shape in ("notes", "filings", "papers", "pages", "chats")]


def grid(
    accuracy: Callable[[int, int, np.random.Generator], float],
    tokens: Callable[[int], int] = lambda size: 40,
    names: Sequence[tuple[str, str, int]] = (SMALL, MEDIUM, LARGE),
    settings: Sequence[str] = ("",),
    documents: int = 30,
    spread: int = 0,
) -> list[SweepRecord]:
    """A grid of three compressors and three predictors, which find the same questions hard.

    ``accuracy`` and ``tokens`` take sizes from 0 to 2. Messages about every other document are ``spread`` tokens
    longer: where all documents agree a ratio has no interval.
    """
    generator = np.random.default_rng(0)
    hardness = generator.random((documents, 2, 2))
    return [
        record(
            id=f"notes/d{document}/{question}",
            document_id=f"d{document}",
            seed=seed,
            compressor=f"{names[c][0]}{', ' if setting else ''}{setting}",
            compressor_family=names[c][1],
            compressor_parameters=names[c][2],
            setting=setting,
            sentences=int(setting.split()[0]) if setting else None,
            predictor=names[p][0],
            predictor_family=names[p][1],
            predictor_parameters=names[p][2],
            message_tokens=tokens(c) + spread * (document % 2),
            information_nats=1 + 0.1 * (document % 5),
            accuracy=(right := float(hardness[document, question, seed] < accuracy(c, p, generator))),
            answer_nll_nats=2 - right,
        )
        for setting in settings
        for c in (0, 1, 2)
        for p in (0, 1, 2)
        for seed in (0, 1)
        for document in range(documents)
        for question in range(2)
    ]


def results_of(records: list[SweepRecord], name: str = "planted", **meta: Any) -> dict[str, Any]:
    results = summarise(records, bootstrap=Bootstrap(QUICK))
    config = {"eval": {"temperature": 1.0}, "information": {"negatives": {"batch": 4}}}
    results["meta"] = {"name": name, "config": config, "fingerprints": {"scorers": {"a scorer": None}}} | meta
    results["findings"] = [one.as_dict() for one in findings(results)]
    return results


def verdict_of(results: dict[str, Any], words: str) -> str:
    return next(one["verdict"] for one in results["findings"] if words in one["question"])


def interval_of(low: float | None, high: float | None) -> Figures:
    return {"value": None if low is None or high is None else (low + high) / 2, "low": low, "high": high}
