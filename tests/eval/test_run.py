"""The evaluation as a command: what it leaves, how it goes on after a kill, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from configs.tree import PROJECT
from data.registry import TASKS
from eval.run import main
from tests.eval.small_evaluation import comparable, evaluated, logged, records, small, write_adapter
from tests.local_server import serving

pytestmark = pytest.mark.command

FILES = ("results.json", "samples.jsonl", "report.html", "tables.md", "tables.tex", "config.yaml")
BINARIES = Path(sys.executable).parent
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(PROJECT),
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "PATH": f"{BINARIES}:{os.environ['PATH']}",
}
PLAIN = [sys.executable, "-m", "eval.run"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "eval.run"]
DEEPSPEED = [str(BINARIES / "deepspeed"), "--num_accelerators", "2", "eval/run.py"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter"))


def arguments(folder: Path, adapter: Path, *more: str) -> list[str]:
    """A run with an adapter, what it is held against, and baselines, over the whole embedded suite."""
    tasks = "tasks=[miniature/notes, miniature/filings, miniature/papers, miniature/pages, miniature/chats]"
    baselines = "baselines=[{name: no-context, information: false}, {name: bm25, budgets: [8, 16]}]"
    return small(folder, f"compressor.adapter={adapter}", baselines, "eval.documents=1", *more, tasks=tasks)


def launch(launcher: list[str], given: list[str]) -> None:
    done = subprocess.run([*launcher, *given], env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def results(folder: Path) -> str:
    """The whole of a run's results, but for when and where it was made and the name of its folder."""
    return json.dumps(comparable(folder)).replace(str(folder), "")


def test_an_evaluation_leaves_everything_and_a_second_start_repeats_nothing(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main(arguments(folder, adapter)) == 0
    assert all((folder / name).stat().st_size > 0 for name in FILES)
    found = json.loads((folder / "results.json").read_text())
    named = [(b["name"], b["budget_tokens"]) for b in found["baselines"]]
    assert named == [("no-context", None), ("bm25", 8), ("bm25", 16)]
    assert all(b["accuracy"]["value"] is not None and b["n"] == 10 for b in found["baselines"])
    assert [b["information_bits"]["value"] is None for b in found["baselines"]] == [True, False, False]
    assert [found["overall"][stage]["n"] for stage in ("before", "after")] == [10, 10]
    assert [cost["name"] for cost in found["flops"]] == ["compressor, before", "compressor, after"]
    messages = {stage: [r["message"] for r in records(folder) if r["stage"] == stage] for stage in ("before", "after")}
    assert messages["before"] != messages["after"]
    log, before = folder / "records" / "0.jsonl", comparable(folder)
    lines = log.read_bytes()
    assert main(arguments(folder, adapter)) == 0
    assert log.read_bytes() == lines and comparable(folder) == before
    assert "interrupted or damaged batches" not in capsys.readouterr().out


def test_a_log_cut_short_is_said_once_and_gives_the_same_results(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    whole = evaluated(folder, f"compressor.adapter={adapter}")
    keys, log = logged(folder), folder / "records" / "0.jsonl"
    os.truncate(log, log.stat().st_size - 100)
    assert evaluated(folder, f"compressor.adapter={adapter}") == whole
    assert capsys.readouterr().out.count("interrupted or damaged batches that will be redone: 1") == 1
    assert logged(folder) == keys
    assert evaluated(folder, f"compressor.adapter={adapter}") == whole
    assert "interrupted or damaged batches" not in capsys.readouterr().out


@pytest.mark.slow
def test_after_a_kill_results_are_the_same_and_one_batch_at_most_is_repeated(tmp_path: Path, adapter: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed" / "run", tmp_path / "killed" / "run"
    launch(PLAIN, arguments(undisturbed, adapter))
    process = subprocess.Popen([*PLAIN, *arguments(killed, adapter)], env=ENVIRONMENT, cwd=PROJECT)
    log = killed / "records" / "0.jsonl"
    deadline = time.monotonic() + 120
    while (not log.exists() or log.read_bytes().count(b"\n") < 6) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = log.read_bytes().count(b"\n")
    assert 6 <= done < len(logged(undisturbed)) and not (killed / "results.json").exists()
    kept = log.read_bytes().splitlines()[:done]
    launch(PLAIN, arguments(killed, adapter))
    assert log.read_bytes().splitlines()[:done] == kept
    assert logged(killed) == logged(undisturbed) and len(logged(killed)) == len(set(logged(killed)))
    assert results(killed) == results(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [TORCHRUN, DEEPSPEED], ids=["torchrun", "deepspeed"])
def test_two_processes_give_the_results_of_one(launcher: list[str], tmp_path: Path, adapter: Path) -> None:
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert main(arguments(one, adapter)) == 0
    launch(launcher, arguments(two, adapter))
    assert results(two) == results(one)
    assert sorted(logged(two)) == sorted(logged(one))
    assert all((two / "records" / f"{process}.jsonl").stat().st_size > 0 for process in (0, 1))
    # What two did is found by one.
    assert main(arguments(two, adapter)) == 0
    assert results(two) == results(one) and len(logged(two)) == len(logged(one))


@pytest.mark.slow
def test_two_processes_refuse_bad_input_once(tmp_path: Path) -> None:
    command = [*TORCHRUN, *small(tmp_path / "run", "compressor.adapter=nowhere")]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("error: compressor.adapter = 'nowhere'") == 1 and "eval/run.py" not in done.stderr


@pytest.mark.slow
def test_what_records_depend_on_makes_them_anew_and_nothing_else_does(
    tmp_path: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, one = tmp_path / "run", ("eval.documents=1", "eval.questions_per_document=1")
    evaluated(folder, *one)
    batches = len(logged(folder))
    with serving([]) as server:
        judge = f"judge={{endpoint: '{server.url}', model: m}}"
        evaluated(folder, *one, "name=other", "tracking.project=other", judge)
    assert len(logged(folder)) == batches == 1
    for change in (
        "seed=1",
        "predictor.model=miniature/qwen2-small",
        "predictor.max_answer_tokens=5",
        "compressor.budget_tokens=11",
        "compressor.sentences=2",
        "compressor.max_context_tokens=1000",
        "eval.temperature=0",
        "information.negatives.counterfactual=2",
        "scorer.model=miniature/qwen2-large",
        "second_scorer={model: miniature/qwen2-large}",
        "tasks=[{name: miniature/notes, facts: 6}]",
    ):
        evaluated(folder, *one, change)
        assert len(logged(folder)) == batches + 1, change
        batches += 1
    evaluated(folder, *one, f"compressor.adapter={adapter}")
    other = write_adapter(tmp_path / "other", seed=1)
    before = len(logged(folder))
    evaluated(folder, *one, f"compressor.adapter={other}")
    assert len(logged(folder)) == before + 1  # the reference is the same
    monkeypatch.setitem(TASKS, "miniature/notes", replace(TASKS["miniature/notes"], version=99))
    evaluated(folder, *one)
    assert len(logged(folder)) == before + 2


def test_a_compressor_held_against_nothing_has_results_and_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    # Its messages differ in information, so that there is a correlation to be measured.
    model = "compressor.model=miniature/qwen2-small"
    found = evaluated(folder, model, "eval.greedy=true", "baselines=[{name: head, budgets: [8]}]")
    assert found["overall"]["before"]["n"] == 0 and found["overall"]["after"]["n"] == 4
    assert found["overall"]["after"]["bits_per_token"]["value"] is not None
    assert [cost["name"] for cost in found["flops"]] == ["compressor, after"]
    shown = [capsys.readouterr().out, (folder / "tables.md").read_text(), (folder / "tables.tex").read_text()]
    for text in shown:
        assert "held against nothing" in text and "before" not in text and "untrained" not in text
    page = (folder / "report.html").read_text().partition("<footer>")[0]
    assert "The compressor was held against nothing." in page and "not measured" not in page


def test_another_model_is_a_reference(tmp_path: Path) -> None:
    found = evaluated(tmp_path / "run", "reference={model: miniature/qwen2-large, budget_tokens: 6}")
    assert found["overall"]["before"]["message_tokens"]["value"] <= 6
    assert found["flops"][0]["prefill_flops"] > found["flops"][1]["prefill_flops"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["compressor.adapter=nowhere"], "compressor.adapter = 'nowhere': no folder with an adapter_config.json"),
        (["baselines=[{name: bm26}]"], "baselines.0.name = 'bm26'"),
        (["baselines=[{name: bm25, budgets: []}]"], "baselines.0.budgets = []: should have at least one item"),
        (["baselines=[{name: bm25, budgets: [8, 5000]}]"], "baselines.0.budgets = 5000 and predictor.max_answer"),
        (["compressor.budget_tokens=999999"], "999999 tokens leave no room in the window"),
        (["reference={model: miniature/qwen2-large, budget_tokens: 4096}"], "reference.budget_tokens = 4096"),
        (["reference.model=miniature/none"], "no such embedded model"),
        (["tasks=[{name: longhealth, source: README.md, variant: '9'}]"], "longhealth has no such protocol"),
        (["tasks=[{name: financebench, source: nowhere.jsonl}]"], "tasks.0.source = 'nowhere.jsonl': no such file"),
        (["tasks=[miniature/notes, {name: qasper, source: README.md}]"], "have different instructions"),
        (["tasks=[{name: qasper, source: README.md}]"], "README.md"),
        (["judge={model: m}"], "judge.endpoint: is missing"),
        (["predictor.endpoint=nowhere"], "endpoint 'nowhere': should be a URL"),
        (["predictor.endpoint=http://127.0.0.1:9/v1", "predictor.api_key_variable=NO_SUCH_KEY"], "'NO_SUCH_KEY'"),
        (["information.negatives={counterfactual: 0, batch: 4}", "eval.documents=1"], "has no negative context"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], reason: str
) -> None:
    assert main(small(tmp_path / "run", *overrides)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and reason in error[-1]
    assert not [line for line in error[:-1] if not line.startswith("evaluating after")]


def test_an_adapter_that_cannot_be_loaded_is_named(
    tmp_path: Path, adapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = write_adapter(tmp_path / "torn")
    os.truncate(torn / "adapter_model.safetensors", 100)
    weightless = write_adapter(tmp_path / "weightless")
    (weightless / "adapter_model.safetensors").unlink()
    for folder, model, reason in (
        (adapter, "miniature/qwen2-large", " does not fit model 'miniature/qwen2-large': "),
        (torn, "miniature/qwen2-small", ": adapter_model.safetensors cannot be read: "),
        (weightless, "miniature/qwen2-small", ": holds no adapter_model.safetensors"),
    ):
        given = small(tmp_path / "run", f"compressor.adapter={folder}", f"compressor.model={model}")
        assert main(given) == 2
        error = capsys.readouterr().err.strip()
        assert error.startswith(f"error: adapter '{folder}'{reason}") and "\n" not in error
