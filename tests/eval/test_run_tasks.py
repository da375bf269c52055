"""The evaluation of every published task: on its real records where they are at hand, on synthesised sets."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from configs.tree import PROJECT
from data.written_questions import Material
from eval.run import main
from tests.eval.small_evaluation import EVIDENCE_BATCH, evaluated, logged, records, small
from tests.record_files import write_records
from tests.written_questions import rows_of

pytestmark = pytest.mark.command

SHARED = PROJECT.parent / "shared" / "data"
FIGURES = ("information_bits", "information_upper_bits", "bits_per_token", "task_information_bits", "perplexity")


def shared(name: str) -> Path:
    """Published records beside the checkout; the test is skipped where there are none."""
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not here: these records are not part of the repository")
    return path


def assert_measured(found: dict[str, Any], accuracy: bool = True) -> None:
    """All figures, of all that was evaluated, are there."""
    for figures in [found["overall"]["after"], *found["baselines"]]:
        assert all(figures[figure]["value"] is not None for figure in FIGURES)
        assert (figures["accuracy"]["value"] is not None) == accuracy


def test_qasper_papers_as_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = shared("qasper/qasper-train-first10.official-layout.json")
    tasks = f"tasks=[{{name: qasper, source: '{source}', eval_split: train}}]"
    folder, limit = tmp_path / "run", "compressor.max_context_tokens=400"
    found = evaluated(folder, EVIDENCE_BATCH, limit, "baselines=[{name: bm25, budgets: [8]}]", tasks=tasks)
    assert_measured(found)
    assert "2 of 2 contexts to evaluate on are longer than the room for them, 400 tokens" in capsys.readouterr().out
    assert {record["metric"] for record in records(folder)} == {"qasper_f1"}


def test_a_context_too_long_to_be_a_message_leaves_its_information_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shared("qasper/qasper-train-first10.official-layout.json")
    tasks = f"tasks=[{{name: qasper, source: '{source}', eval_split: train}}]"
    baselines = "baselines=[{name: full-context}, {name: head, budgets: [8]}]"
    one = ["eval.questions_per_document=1", "compressor.max_context_tokens=1200"]
    found = evaluated(tmp_path / "run", EVIDENCE_BATCH, baselines, *one, tasks=tasks)
    whole, head = found["baselines"]
    assert whole["message_tokens"]["value"] > 1000 and whole["accuracy"]["value"] is not None
    assert whole["information_bits"]["value"] is None and whole["perplexity"]["value"] is not None
    assert head["information_bits"]["value"] is not None
    assert "full-context: 2 messages are too long to be scored" in capsys.readouterr().out


def test_financebench_questions_as_published(tmp_path: Path) -> None:
    tasks = f"tasks=[{{name: financebench, source: '{shared('financebench')}', variant: evidence}}]"
    given = ["eval.documents=3", "compressor.max_context_tokens=500", "baselines=[{name: head, budgets: [8]}]"]
    found = evaluated(tmp_path / "run", EVIDENCE_BATCH, *given, tasks=tasks)
    assert_measured(found)
    assert found["overall"]["after"]["n"] >= 3


def pages(folder: Path, count: int = 3) -> str:
    materials = [
        Material(
            "fineweb", f"page{n}", (f"Page {n} speaks of zinc.\nIt is {n}1 metres high.\nIts colour is blue {n}.",)
        )
        for n in range(count)
    ]
    return write_records(folder / "test.jsonl", rows_of(materials))


def histories(folder: Path, count: int = 3) -> str:
    materials = [
        Material(
            "wildchat",
            f"user{n}",
            tuple(f"User: My code is {n}{m}{m}.\n\nAssistant: Noted, {n}{m}{m}." for m in range(2 + n % 2)),
            variant="natural",
            group=f"user{n}",
        )
        for n in range(count)
    ]
    return write_records(folder / "test.jsonl", rows_of(materials))


def test_pages_are_compressed_without_their_question(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    given = ["eval.documents=3", "eval.questions_per_document=5", "eval.temperature=0"]
    tasks = f"tasks=[{{name: fineweb, source: '{pages(tmp_path)}'}}]"
    found = evaluated(folder, EVIDENCE_BATCH, *given, "baselines=[{name: bm25, budgets: [8]}]", tasks=tasks)
    assert_measured(found, accuracy=False)
    made = records(folder)
    # Greedy messages of one page are the same for all its questions, and so is what they carry; answers differ.
    for document in {record["document_id"] for record in made}:
        own = [record for record in made if record["document_id"] == document]
        assert len(own) == 5 and len({record["message"] for record in own}) == 1
        assert max(r["information_nats"] for r in own) - min(r["information_nats"] for r in own) < 1e-4
        assert len({record["answer_nll_nats"] for record in own}) > 1
    assert "held against nothing: the answers have a perplexity of" in (folder / "tables.md").read_text()


def test_histories_are_compressed_session_by_session(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    tasks = f"tasks=[{{name: wildchat, source: '{histories(tmp_path)}'}}]"
    baselines = "baselines=[{name: full-context}, {name: head, budgets: [6]}]"
    found = evaluated(folder, EVIDENCE_BATCH, "eval.documents=3", baselines, tasks=tasks)
    assert_measured(found, accuracy=False)
    for record in records(folder):
        parts = 2 + int(record["document_id"].removeprefix("user")) % 2
        assert len(record["message"].split("\n\n")) <= parts
        assert record["information_ceiling_nats"] == pytest.approx(parts * math.log(3))
        assert record["message_tokens"] <= 12 * parts and len(record["tokens"]) == record["message_tokens"]
    # As many prompts as sessions: 7 of 3 histories.
    [cost] = found["flops"]
    assert cost["prompt_tokens"] > 2 * cost["generated_tokens"] and found["overall"]["after"]["n"] == 3
    assert found["baselines"][1]["message_tokens"]["value"] <= 6 * 7 / 3


def test_a_changed_negative_is_noticed(tmp_path: Path) -> None:
    folder, tasks = tmp_path / "run", f"tasks=[{{name: fineweb, source: '{pages(tmp_path)}'}}]"
    given = [EVIDENCE_BATCH, "eval.questions_per_document=1", "eval.documents=3", "eval.batch_size=1"]
    evaluated(folder, *given, tasks=tasks)
    assert len(logged(folder)) == 3
    file = tmp_path / "test.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[2]["texts"] = ["Another page altogether.\nIt has other lines."]
    write_records(file, rows)
    evaluated(folder, *given, tasks=tasks)
    assert len(logged(folder)) == 6


def test_one_page_alone_has_nothing_to_be_told_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tasks = f"tasks=[{{name: fineweb, source: '{pages(tmp_path, 1)}'}}]"
    assert main(small(tmp_path / "run", EVIDENCE_BATCH, tasks=tasks)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: fineweb, questions from 'fineweb/page0/") and "ask for more documents" in error
