"""Fabricated evaluation records and a fabricated run folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.analysis.density import summarise
from eval.record import SCHEMA_VERSION, Record
from eval.record_file import write_records
from tests.records import evaluation_record

PLANTED = "<script>alert(1)</script> </script> <!-- <b>&amp; \u2028 \u2029"


@pytest.fixture
def planted() -> str:
    """Markup that must stay text wherever it turns up."""
    return PLANTED


@pytest.fixture
def record() -> Callable[..., Record]:
    """Build one evaluation record; keyword arguments replace its fields."""
    return evaluation_record


@pytest.fixture
def records(planted: str) -> list[Record]:
    """Two tasks of six documents with two questions each, at both stages; markup planted in the first."""
    made = []
    for task in ("notes", f"pages {planted}"):
        for document in range(6):
            for question in range(2):
                for stage in ("before", "after"):
                    wrong = (document + question + (stage == "after")) % 3 == 0
                    nats = 0.5 + 0.1 * document + 0.2 * question
                    fields: dict[str, Any] = {
                        "accuracy": float(not wrong),
                        "information_nats": nats,
                        "saturated": nats > 1,
                    }
                    if document == 0:
                        fields |= {"context": planted, "question": planted, "message": planted, "prediction": planted}
                        fields |= {"tokens": [planted], "token_bits": [1.0], "answers": [planted], "options": [planted]}
                    made.append(evaluation_record(question, stage, task, f"d{document}", **fields))
    return made


@pytest.fixture
def run_folder(tmp_path: Path, records: list[Record], planted: str) -> Path:
    """A finished run: results, samples and forty steps of metrics."""
    meta = {"seed": 0, "note": planted, "config": {"steps": 40}}
    results = {"schema_version": SCHEMA_VERSION, "meta": meta, **summarise(records)}
    metrics = [
        {
            "step": step,
            "reward": step / 40,
            "rewards/accuracy/mean": 0.5,
            "message_tokens": 40 - step / 2,
            "accuracy": 0.8,
        }
        for step in range(1, 41)
    ]
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    write_records(tmp_path / "samples.jsonl", records)
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics), encoding="utf-8")
    return tmp_path
