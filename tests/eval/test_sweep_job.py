"""The sweep itself on embedded models: kills, processes, servers, and what it leaves."""

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from configs.build import evaluation_request, load_samples
from configs.run_folder import MARKER
from configs.tree import PROJECT
from data.sample import Sample
from eval.evaluation import by_compressor
from eval.record import SweepRecord
from eval.record_file import read_records
from eval.stages import build_compressor
from eval.sweep.__main__ import main
from eval.sweep.config import SweepConfig, load_config
from tests.eval.planted_sweep import (
    ENVIRONMENT,
    PLAIN,
    TASKS,
    TORCHRUN,
    verdict_of,
)
from tests.local_server import Answer, chat, serving

pytestmark = pytest.mark.command


def small(folder: Path, *more: str) -> list[str]:
    """Two compressors, two predictors, a document of each of two tasks, two seeds."""
    return [
        "--config",
        "sweep.yaml",
        f"run_folder={folder}",
        "name=sweep",
        "compressors=[{family: qwen2, model: miniature/qwen2-small, budget_tokens: 24},"
        " {family: llama, model: miniature/llama-medium, budget_tokens: 24}]",
        "predictors=[{family: qwen2, model: miniature/qwen2-small}, {family: llama, model: miniature/llama-medium}]",
        "scorer.model=miniature/qwen2-small",
        "second_scorer=null",
        "control=null",
        f"tasks=[{', '.join('{name: ' + task + ', facts: 4}' for task in TASKS[:2])}]",
        "seeds=[0, 1]",
        "information.negatives={counterfactual: 1, batch: 0}",
        "eval.documents=1",
        "eval.questions_per_document=2",
        "eval.batch_size=1",
        *more,
    ]


def samples_in(folder: Path) -> list[SweepRecord]:
    return list(read_records(folder / "samples.jsonl", SweepRecord))


def logs(folder: Path) -> dict[str, list[bytes]]:
    return {
        name: sorted(line for path in (folder / "records" / name).glob("*.jsonl") for line in path.open("rb"))
        for name in ("messages", "answers")
    }


def results_in(folder: Path) -> dict[str, Any]:
    results = json.loads((folder / "sweep.json").read_text())
    return {key: value for key, value in results.items() if key != "meta"}


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "run"
    assert main(small(folder)) == 0
    return folder


def drawn_samples(config: SweepConfig) -> list[Sample]:
    recipe = config.recipe()
    compressor = build_compressor(config.compressors[0], "")
    return load_samples(recipe, compressor, "evaluate", evaluation_request, print)


def test_a_sweep_leaves_every_answer_and_everything_drawn_from_them(swept: Path) -> None:
    found = samples_in(swept)
    assert len(found) == 2 * 2 * 2 * 4 and len({r["id"] for r in found}) == 4
    by_message: dict[tuple[str, int, str], set[str]] = {}
    for one in found:
        by_message.setdefault((one["compressor"], one["seed"], one["id"]), set()).add(one["message"])
    assert len(by_message) == 16 and all(len(texts) == 1 for texts in by_message.values())
    parameters = {one["compressor"]: one["compressor_parameters"] for one in found}
    assert parameters == {"qwen2-small": 525_696, "llama-medium": 1_182_144}
    assert all(0 < (one["generation_flops"] or 0) < (one["prefill_flops"] or 0) for one in found)
    assert all((swept / name).stat().st_size > 0 for name in ("sweep.md", "sweep.json", "config.yaml"))
    assert (swept / "figures" / "accuracy-by-compressor.svg").is_file()
    assert load_config(str(swept / "config.yaml")).compressors[1].family == "llama"


def test_messages_are_those_an_evaluation_with_the_same_seed_writes(swept: Path) -> None:
    config = load_config("sweep.yaml", small(swept)[2:])
    samples = drawn_samples(config)
    for one in config.compressors:
        for seed in config.seeds:
            written = by_compressor(build_compressor(one, ""), 1.0, seed)(samples)
            swept_messages = {
                r["id"]: r["message"]
                for r in samples_in(swept)
                if (r["compressor"], r["seed"], r["predictor"]) == (one.called, seed, "qwen2-small")
            }
            assert swept_messages == {s.id: message.text for s, message in zip(samples, written, strict=True)}


def test_a_second_start_repeats_nothing_and_another_predictor_writes_nothing_again(swept: Path, tmp_path: Path) -> None:
    before, results = logs(swept), results_in(swept)
    assert main(small(swept)) == 0
    assert logs(swept) == before and results_in(swept) == results
    more = (
        "predictors=[{family: qwen2, model: miniature/qwen2-small}, {family: llama, model: miniature/llama-medium},"
        " {name: brief, family: qwen2, model: miniature/qwen2-small, max_answer_tokens: 2}]"
    )
    assert main(small(swept, more)) == 0
    assert logs(swept)["messages"] == before["messages"] and len(logs(swept)["answers"]) == 24
    # A name, a family: nothing that an answer depends on.
    renamed = "compressors.0={name: other, family: x, model: miniature/qwen2-small, budget_tokens: 24}"
    assert main(small(swept, more, renamed)) == 0
    assert len(logs(swept)["messages"]) == 8 and len(logs(swept)["answers"]) == 24
    assert main(small(swept)) == 0


def test_a_predictor_behind_an_endpoint_answers_and_has_the_parameters_it_is_given(swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept / "records", tmp_path / "run" / "records")
    shutil.copy(swept / MARKER, tmp_path / "run")
    with serving(lambda asked, number: Answer(chat("Answer: blue"))) as server:
        remote = f"{{name: far, family: gpt, model: far-8b, endpoint: '{server.url}', parameters: 8000000000}}"
        assert main(small(tmp_path / "run", f"predictors=[{remote}]")) == 0
        assert server.asked and all(one.body["model"] == "far-8b" for one in server.asked)
    found = samples_in(tmp_path / "run")
    assert {(r["predictor"], r["predictor_parameters"], r["prediction"]) for r in found} == {("far", 8 * 10**9, "blue")}
    assert all(r["answer_nll_nats"] is None for r in found)
    assert verdict_of(json.loads((tmp_path / "run" / "sweep.json").read_text()), "perplexity") == "not measured"
    assert len(logs(tmp_path / "run")["messages"]) == len(logs(swept)["messages"])


def test_what_cannot_be_run_is_one_line_and_status_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(small(tmp_path, "scorer.model=none/such")) == 2
    assert main(small(tmp_path, "tasks.0.facts=9999")) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and all(line.startswith("error: ") for line in lines), lines
    assert not (tmp_path / "records" / "messages" / "0.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["messages", "answers"])
def test_after_a_kill_results_are_the_same_and_one_batch_at_most_is_repeated(
    stage: str, swept: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    process = subprocess.Popen([*PLAIN, *small(folder)], env=ENVIRONMENT, cwd=PROJECT)
    log = folder / "records" / stage / "0.jsonl"
    deadline = time.monotonic() + 300
    while (not log.exists() or log.read_bytes().count(b"\n") < 3) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = log.read_bytes().count(b"\n")
    assert done >= 3 and not (folder / "sweep.json").exists()
    kept = log.read_bytes().splitlines()[:done]
    again = subprocess.run([*PLAIN, *small(folder)], env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-2000:]
    assert log.read_bytes().splitlines()[:done] == kept
    assert results_in(folder) == results_in(swept) and samples_in(folder) == samples_in(swept)
    assert len(logs(folder)["messages"]) == 8 and len(logs(folder)["answers"]) == 16


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(swept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    done = subprocess.run([*TORCHRUN, *small(folder)], env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert results_in(folder) == results_in(swept) and samples_in(folder) == samples_in(swept)
    assert all((folder / "records" / "messages" / f"{rank}.jsonl").stat().st_size > 0 for rank in (0, 1))
