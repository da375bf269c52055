"""Early warning in whole runs: it changes no training, is measured once, resumes, and keeps the best adapter."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from eval.evaluation import Evaluation
from tests.local_server import Answer, Asked, chat, serving
from tests.train.test_run import ENVIRONMENT, deepspeed
from tests.train.test_survival import arguments, forget_the_end, results
from train.checkpoints.checkpoint import CHECKPOINTS
from train.config import load_config
from train.early_warning import watch as watching
from train.early_warning.kept import FILE as KEPT
from train.early_warning.kept import KeptAdapter
from train.models import load_models
from train.run import main
from train.tracking.metrics import METRICS_FILE

pytestmark = pytest.mark.command

WATCH = "watch={every: 2, documents: 3, questions_per_document: 1}"
KEEP = "watch={every: 2, documents: 3, questions_per_document: 1, keep: accuracy}"


def held_out(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]
    return [line for line in lines if "held_out/accuracy" in line]


def weights(file: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(file).items()}


def adapter(folder: Path, step: int | None = None) -> dict[str, bytes]:
    """The adapter that a run has left, or that of a checkpoint."""
    of_step = folder / "compressor" if step is None else folder / CHECKPOINTS / f"checkpoint-{step}"
    return weights(of_step / "adapter_model.safetensors")


def test_a_run_that_is_watched_trains_the_same_to_the_last_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Dropout draws from torch's own generator, which a measurement must leave where it was.
    dropout = "compressor.lora.dropout=0.1"
    assert main(arguments(tmp_path / "plain", dropout)) == 0
    assert main(arguments(tmp_path / "watched", dropout, WATCH)) == 0
    said = capsys.readouterr().out
    assert adapter(tmp_path / "watched") == adapter(tmp_path / "plain")
    plain, watched = results(tmp_path / "plain"), results(tmp_path / "watched")
    lines = held_out(tmp_path / "watched")
    assert [line["step"] for line in lines] == [0, 2, 4] and held_out(tmp_path / "plain") == []
    assert [line for line in watched["metrics"] if "held_out/accuracy" not in line] == plain["metrics"]
    assert watched["figures"] == plain["figures"]
    assert all(f"step {step}: held out: accuracy " in said for step in (0, 2, 4)) and "is kept" not in said
    assert "watched while it trains, every 2 steps: 3 questions about 3 documents" in said
    page = (tmp_path / "watched" / "report.html").read_text()
    assert "greedy, held out" in page and "Diamonds" in page
    assert "greedy, held out" not in (tmp_path / "plain" / "report.html").read_text()


def planted(monkeypatch: pytest.MonkeyPatch, accuracies: dict[int, float]) -> list[int]:
    """Let every measurement be a real one whose accuracy is then told to be another; the steps that are measured."""
    measured, original, name = list[int](), watching.Watch._records, "accuracy"

    def told(self: watching.Watch) -> Any:
        step = measured_step[0]
        measured.append(step)
        return [{**record, name: accuracies[step]} for record in original(self)]

    measured_step, figures = [0], watching.Watch._figures

    def at(self: watching.Watch, step: int) -> Any:
        measured_step[0] = step
        return figures(self, step)

    monkeypatch.setattr(watching.Watch, "_records", told)
    monkeypatch.setattr(watching.Watch, "_figures", at)
    return measured


def test_the_adapter_of_the_best_step_is_left_and_its_step_is_told_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, {0: 0.5, 2: 0.9, 4: 0.3})
    run = tmp_path / "run"
    assert main(arguments(run, KEEP, "train.keep_checkpoints=4")) == 0
    said = capsys.readouterr()
    assert adapter(run) == adapter(run, 2) != adapter(run, 4)
    assert "the adapter is that of step 2 of 4, the best by held-out accuracy (90.0%)" in said.out
    assert "warning: step 4: held-out accuracy has fallen to 30.0%, 60.0 points below the 90.0% of step 2" in said.err
    assert "warning: step 2" not in said.err
    assert json.loads((run / "results.json").read_text())["meta"]["kept"] == {
        "step": 2,
        "steps": 4,
        "by": "accuracy",
        "value": 0.9,
    }
    assert "Adapter of step 2 of 4, the best by held-out accuracy (90.0%)" in (run / "compressor/README.md").read_text()
    page = (run / "report.html").read_text()
    assert "step 2 of 4, the best by held-out accuracy (90.0%)" in page and "Upright line: step 2" in page
    # What is evaluated in the end is what is left: the hash of its records is that of the kept adapter.
    assert main(arguments(run, KEEP, "train.keep_checkpoints=4")) == 0


def test_of_equal_figures_the_later_adapter_is_left_and_the_start_may_be_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(monkeypatch, {0: 0.5, 2: 0.5, 4: 0.4})
    assert main(arguments(tmp_path / "ties", KEEP, "train.keep_checkpoints=4")) == 0
    assert adapter(tmp_path / "ties") == adapter(tmp_path / "ties", 2)
    planted(monkeypatch, {0: 0.9, 2: 0.5, 4: 0.4})
    assert main(arguments(tmp_path / "start", KEEP, "train.keep_checkpoints=4")) == 0
    assert "the adapter is that of step 0 of 4" in (said := capsys.readouterr()).out
    assert "the adapter is unchanged: within no group" not in said.err
    assert all(not any(value) for name, value in adapter(tmp_path / "start").items() if "lora_B" in name)


@pytest.mark.parametrize("checkpoint", [1, 2, 3, 4])
def test_a_killed_run_goes_on_with_the_same_figures_and_measures_none_twice(
    checkpoint: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = planted(monkeypatch, {0: 0.5, 2: 0.9, 4: 0.3})
    run = tmp_path / "run"
    command = arguments(run, KEEP, "train.keep_checkpoints=4")
    assert main(command) == 0 and measured == [0, 2, 4]
    whole, lines = results(run), (run / watching.FILE).read_text()
    # As after a kill in the step after a checkpoint: what came later was measured, and trains once more.
    forget_the_end(run)
    for step in range(checkpoint + 1, 5):
        shutil.rmtree(run / CHECKPOINTS / f"checkpoint-{step}")
    (run / watching.FILE).write_text(f'{lines}{{"step": 4, "ada')
    assert main(command) == 0
    assert measured == [0, 2, 4] and (run / watching.FILE).read_text() == lines
    assert results(run) == whole and whole["adapter"]
    assert adapter(run) == adapter(run, 2)


def test_a_kill_before_the_first_checkpoint_measures_the_start_no_second_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = planted(monkeypatch, {0: 0.5, 2: 0.9, 4: 0.3})
    run = tmp_path / "run"
    assert main(arguments(run, KEEP)) == 0
    whole = results(run)
    forget_the_end(run)
    shutil.rmtree(run / CHECKPOINTS)
    assert main(arguments(run, KEEP)) == 0
    assert measured == [0, 2, 4] and results(run) == whole


def test_a_figure_of_another_adapter_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = planted(monkeypatch, {0: 0.5, 2: 0.9, 4: 0.3})
    run = tmp_path / "run"
    assert main(arguments(run, KEEP)) == 0
    forget_the_end(run)
    shutil.rmtree(run / CHECKPOINTS)
    lines = [json.loads(line) for line in (run / watching.FILE).read_text().splitlines()]
    lines[1]["adapter"] = lines[0]["adapter"]
    (run / watching.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert main(arguments(run, KEEP)) == 0
    assert measured == [0, 2, 4, 2]


def test_a_checkpoint_holds_the_adapter_that_is_kept_and_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, {0: 0.5, 2: 0.9, 4: 0.3})
    run = tmp_path / "run"
    assert main(arguments(run, KEEP, "train.keep_checkpoints=4")) == 0
    models = load_models(load_config("mi_rl.yaml", arguments(run, KEEP)[2:]))
    kept, steps = KeptAdapter(models, predictor_learns=False), []
    for checkpoint in (1, 2, 3, 4):
        # Of step 2 is measured when step 3 begins, and so held by the checkpoint of step 3 for the first time.
        kept.load(run / CHECKPOINTS / f"checkpoint-{checkpoint}")
        kept.put_back()
        steps.append((kept.step, kept.hash))
    assert [step for step, _ in steps] == [0, 0, 2, 2]
    measured = [json.loads(line) for line in (run / watching.FILE).read_text().splitlines()]
    assert [name for _, name in steps] == [measured[0]["adapter"]] * 2 + [measured[1]["adapter"]] * 2
    assert json.loads((run / CHECKPOINTS / "checkpoint-3" / "manifest.json").read_text())["body"]["files"][KEPT]


def test_what_is_measured_is_what_an_evaluation_of_that_adapter_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watched documents, evaluated by the command itself after a run that ends with the watched adapter."""
    taken: list[Any] = []
    original = Evaluation.share

    def share(self: Evaluation, *given: Any) -> Any:
        records = original(self, *given)
        taken.append((given[3]["stage"], self.score_gold, given[0], records))
        return records

    monkeypatch.setattr(Evaluation, "share", share)
    assert main(arguments(tmp_path / "run", WATCH, "eval.greedy=true", "eval.documents=3")) == 0
    watched = [entry for entry in taken if entry[0] == watching.STAGE]
    evaluated = {sample.document.id for stage, _, samples, _ in taken if stage == "after" for sample in samples}
    assert len(watched) == 3 and not any(score_gold for _, score_gold, _, _ in watched)
    assert not evaluated & {sample.document.id for _, _, samples, _ in watched for sample in samples}
    last = held_out(tmp_path / "run")[-1]
    records = watched[-1][3]
    assert last["held_out/message_tokens"] == sum(record["message_tokens"] for record in records) / len(records)
    assert last["held_out/accuracy"] == sum(record["accuracy"] for record in records) / len(records)
    assert {record["temperature"] for record in records} == {0.0}


def test_a_servers_fault_in_a_measurement_loses_no_step_and_is_measured_when_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, run = [True], tmp_path / "run"

    def script(asked: Asked, _: int) -> Answer:
        trained, watched = (
            len(file.read_text().splitlines()) if file.exists() else 0
            for file in (run / METRICS_FILE, run / watching.FILE)
        )
        # Two steps and the start are logged: what is asked next is asked by the second measurement.
        fails = broken[0] and trained == 3 and watched == 1
        return Answer("<html>", 200) if fails else Answer(chat(f"Answer: {len(str(asked.body)) % 3}"))

    with serving(script) as server:
        # Steps so large that the greedy messages change: what was asked before is answered from a file.
        given = (KEEP, f"predictor={{endpoint: '{server.url}', model: m, retries: 0}}", "train.save_every=100")
        given = (*given, "train.learning_rate=0.05")
        assert main(arguments(run, *given)) == 2
        error = capsys.readouterr().err
        assert f"goes on from {run / CHECKPOINTS / 'checkpoint-2'}" in error and "Traceback" not in error
        assert [line["step"] for line in held_out(run)] == [0]
        broken[0] = False
        assert main(arguments(run, *given)) == 0
        assert main(arguments(tmp_path / "whole", *given)) == 0
    assert [line["step"] for line in held_out(run)] == [0, 2, 4]
    assert results(run) == results(tmp_path / "whole")


def test_watch_on_a_finished_run_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main(arguments(run, "train.steps=1")) == 0
    before = adapter(run)
    capsys.readouterr()
    assert main(arguments(run, "train.steps=1", WATCH)) == 2
    error = capsys.readouterr().err
    assert "holds a run of another configuration" in error and error.count("\n") == 1
    assert main(arguments(run, "train.steps=1", "watch=null")) == 0
    assert "is finished" in capsys.readouterr().out and adapter(run) == before


@pytest.mark.slow
def test_two_processes_measure_and_keep_what_one_does(tmp_path: Path) -> None:
    tasks = "tasks=[{name: miniature/notes, facts: 6}, {name: miniature/papers, facts: 6}]"
    watch = "watch={every: 1, documents: 2, questions_per_document: 2, keep: reward}"
    lines, kept = [], []
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        command = [*deepspeed(processes), "train/run.py", *arguments(folder, tasks, watch, "train.steps=2")]
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert done.stdout.count("held out: accuracy") == 3
        lines.append(held_out(folder))
        kept.append(json.loads((folder / "results.json").read_text())["meta"]["kept"])
    for one, two in zip(*lines, strict=True):
        assert one.keys() == two.keys() and one["held_out/questions"] == two["held_out/questions"] == 8
    # Before the first step both have the same adapter; later, sums of gradients differ by rounding.
    for name in lines[0][0].keys() - {"held_out/seconds"}:
        assert lines[0][0][name] == pytest.approx(lines[1][0][name], abs=1e-4), name
    assert kept[0]["by"] == kept[1]["by"] == "reward"
    value = next(line for line in lines[1] if line["step"] == kept[1]["step"])["held_out/reward"]
    assert kept[1]["value"] == value == max(line["held_out/reward"] for line in lines[1])


@pytest.mark.slow
def test_the_predictor_that_learns_is_kept_with_the_compressor_and_found_again_after_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, {0: 0.5, 2: 0.9, 4: 0.3})
    run, update = tmp_path / "run", "train.predictor_update={learning_rate: 1.0e-3, batch_size: 2}"
    for killed in (False, True):
        if killed:
            forget_the_end(run)
            shutil.rmtree(run / CHECKPOINTS / "checkpoint-4")
        assert main(arguments(run, KEEP, update)) == 0
        start, best, last = (json.loads(line)["adapter"].split() for line in (run / watching.FILE).open())
        assert all(len({*hashes}) == 3 for hashes in zip(start, best, last, strict=True))
        hashes = json.loads((run / "results.json").read_text())["meta"]["hashes"]
        assert [hashes["adapter"], hashes["predictor_adapter"]] == best
