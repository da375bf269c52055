"""What befalls a training run: divergence, damaged checkpoints, planted objects, kills."""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from models.shared_prefix import generation
from tests.local_server import Answer, Asked, chat, serving
from tests.train.test_run import ENVIRONMENT, deepspeed
from train.checkpoints.checkpoint import CHECKPOINTS, find_checkpoint
from train.grpo.guarded_trainer import GuardedGRPOTrainer
from train.reward.message_reward import MessageReward
from train.run import main

pytestmark = pytest.mark.command

SMALL = [
    "tasks=[{name: miniature/notes, facts: 6}]",
    "train.steps=4",
    "train.contexts_per_step=2",
    "train.group_size=2",
    "train.save_every=1",
    "information.negatives={counterfactual: 1, batch: 1}",
    "compressor.budget_tokens=16",
    "eval.documents=2",
    "eval.questions_per_document=1",
    "eval.greedy=false",
    "tracking.wandb=disabled",
]


def arguments(folder: Path, *more: str) -> list[str]:
    return ["--config", "mi_rl.yaml", f"run_folder={folder}", *SMALL, *more]


def results(folder: Path) -> dict[str, Any]:
    """All that a run leaves and that does not depend on the clock."""
    figures = json.loads((folder / "results.json").read_text())
    del figures["meta"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    metrics = [{name: value for name, value in line.items() if not is_time(name)} for line in lines]
    adapter = (folder / "compressor" / "adapter_model.safetensors").read_bytes()
    return {
        "figures": figures,
        "metrics": metrics,
        "adapter": adapter,
        "samples": (folder / "samples.jsonl").read_text(),
        "report": (folder / "report.html").exists() and (folder / "tables.md").exists(),
    }


def is_time(name: str) -> bool:
    # What a server has cost is counted from the start of a process.
    return "second" in name or name == "step_time" or name.startswith("server/")


def spoil_reward(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    original = MessageReward.__call__

    def spoiled(
        self: MessageReward, prompts: Any, completion_ids: Any, trainer_state: Any, log_metric: Any, **_: Any
    ) -> list[float | None]:
        rewards = original(self, prompts, completion_ids, trainer_state, log_metric)
        return [value, *rewards[1:]] if trainer_state.global_step == step else rewards

    monkeypatch.setattr(MessageReward, "__call__", spoiled)


def spoil_loss(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    original = GuardedGRPOTrainer._compute_loss

    def spoiled(self: GuardedGRPOTrainer, model: Any, inputs: Any) -> Tensor:
        loss = original(self, model, inputs)
        return loss * value if self.state.global_step == step else loss

    monkeypatch.setattr(GuardedGRPOTrainer, "_compute_loss", spoiled)


def spoil_logits(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    """Every logit while messages of one step are written."""
    original, choose = GuardedGRPOTrainer._generate_and_score_completions, generation._choose

    def spoiled(self: GuardedGRPOTrainer, inputs: Any) -> Any:
        def broken(logits: Tensor, *rest: Any) -> Any:
            return choose(logits * value if rest[0] == 1.0 else logits, *rest)

        monkeypatch.setattr(generation, "_choose", broken if self.state.global_step == step else choose)
        output = original(self, inputs)
        monkeypatch.setattr(generation, "_choose", choose)
        return output

    monkeypatch.setattr(GuardedGRPOTrainer, "_generate_and_score_completions", spoiled)


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=["nan", "infinite"])
@pytest.mark.parametrize("spoil", [spoil_reward, spoil_loss, spoil_logits])
def test_one_step_of_what_is_not_finite_is_skipped_said_and_kept(
    spoil: Callable[[pytest.MonkeyPatch, int, float], None],
    value: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(monkeypatch, 1, value)
    assert main(arguments(tmp_path / "run", "train.steps=3")) == 0
    assert "step 2: " in (told := capsys.readouterr().err) and "is skipped" in told
    kept = [json.loads(line) for line in (tmp_path / "run" / "skipped_batches.jsonl").read_text().splitlines()]
    assert len(kept) == 4 and {line["step"] for line in kept} == {2}
    assert all(line["reasons"] and isinstance(line["message"], str) for line in kept)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["update_skipped"] for line in metrics] == [0, 1, 0]
    adapter = load_file(tmp_path / "run" / "compressor" / "adapter_model.safetensors")
    assert all(weights.isfinite().all() for weights in adapter.values())


@pytest.mark.parametrize("rate", ["1.0e+30", "1.0e+300"])
def test_a_learning_rate_that_diverges_ends_the_run_in_one_line(
    rate: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(arguments(tmp_path / "run", f"train.learning_rate={rate}", "train.steps=6", "train.warmup_steps=0"))
    error = capsys.readouterr().err
    assert status == 2 and error.count("error:") == 1 and "Traceback" not in error
    assert "training has diverged" in error and str(tmp_path / "run" / "skipped_batches.jsonl") in error
    assert not (tmp_path / "run" / "compressor").exists()


def test_a_damaged_checkpoint_is_passed_over_and_the_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tmp_path / "whole")) == 0
    assert main(arguments(tmp_path / "run")) == 0
    forget_the_end(tmp_path / "run")
    newest = tmp_path / "run" / CHECKPOINTS / "checkpoint-4"
    content = bytearray((newest / "optimizer.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (newest / "optimizer.pt").write_bytes(content)
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "rew')
    capsys.readouterr()
    assert main(arguments(tmp_path / "run")) == 0
    error = capsys.readouterr().err
    assert f"{newest}: optimizer.pt is not what was written; it is passed over" in error
    assert "damaged lines that are dropped: 1" in error
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def forget_the_end(folder: Path) -> None:
    """A run folder as a kill right after the last checkpoint leaves it."""
    marker = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(marker | {"finished": False}))
    for name in ("results.json", "report.html", "samples.jsonl", "tables.md"):
        (folder / name).unlink()
    shutil.rmtree(folder / "compressor")


def test_a_run_that_was_killed_before_its_report_is_finished_by_the_same_command(tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "run", "train.steps=1")) == 0
    whole = results(tmp_path / "run")
    marker = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(marker | {"finished": False}))
    (tmp_path / "run" / "report.html").unlink()
    (tmp_path / "run" / "tables.md").unlink()
    assert main(arguments(tmp_path / "run", "train.steps=1")) == 0
    assert results(tmp_path / "run") == whole


class Planted:
    """Makes a file when it is unpickled as code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[sys.executable], deepspeed(1)], ids=["python", "deepspeed"])
def test_no_planted_object_runs_even_under_a_manifest_that_fits(launcher: list[str], tmp_path: Path) -> None:
    """Each file of a checkpoint in turn is an object that would make a file, sealed as if the run had written it."""
    run = tmp_path / "run"
    command = [*launcher, "train/run.py", *arguments(run, "train.steps=2")]
    subprocess.run(command, check=True, env=ENVIRONMENT, capture_output=True)
    shutil.copytree(run, tmp_path / "kept")
    newest = run / CHECKPOINTS / "checkpoint-2"
    names = [str(path.relative_to(newest)) for path in newest.rglob("*.p*t*") if path.is_file()]
    assert len(names) >= 3
    for number, name in enumerate([*names, "training_args.bin", "pytorch_model.bin"]):
        shutil.rmtree(run)
        shutil.copytree(tmp_path / "kept", run)
        forget_the_end(run)
        torch.save({"module": Planted(tmp_path / f"ran-{number}")}, newest / name)
        reseal(newest)
        done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
        assert not (tmp_path / f"ran-{number}").exists(), name
        assert done.returncode == 0 or "Traceback" not in done.stderr, done.stderr[-2000:]


def reseal(checkpoint: Path) -> None:
    """Give a checkpoint a manifest that fits what it holds now, as an attacker would."""
    from train.checkpoints.checkpoint import MANIFEST, _files, _fingerprint, _sealed

    (checkpoint / MANIFEST).unlink()
    files = {str(path.relative_to(checkpoint)): _fingerprint(path) for path in _files(checkpoint)}
    (checkpoint / MANIFEST).write_text(_sealed({"reward": None, "files": files}))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "kills"), [([sys.executable], 12), (deepspeed(1), 6)], ids=["python", "deepspeed"]
)
def test_a_run_killed_anywhere_ends_as_the_one_that_was_not(launcher: list[str], kills: int, tmp_path: Path) -> None:
    """SIGKILL: every second one while a checkpoint or a result is written, the others at random moments."""
    generator = random.Random(0)
    start_run(launcher, tmp_path / "whole").wait()
    whole, done = results(tmp_path / "whole"), 0
    while done < kills:
        run = tmp_path / f"run-{done}"
        process = start_run(launcher, run)
        for _ in range(3):
            done += kill_once(process, run, generator, aimed=done % 2 == 0)
            process = start_run(launcher, run)
        assert process.wait() == 0
        assert results(run) == whole and find_checkpoint(run).damaged == []


def start_run(launcher: list[str], run: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*launcher, "train/run.py", *arguments(run)],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill_once(process: "subprocess.Popen[bytes]", run: Path, generator: random.Random, aimed: bool) -> bool:
    """Kill a run and all of its processes; whether there was something left to kill."""
    end = time.monotonic() + generator.uniform(8, 30)
    while process.poll() is None and time.monotonic() < end:
        writing = [*run.glob(f"{CHECKPOINTS}/unfinished/*/*"), *run.glob(".*.partial"), *run.glob("samples.jsonl")]
        if aimed and writing:
            time.sleep(generator.uniform(0, 0.1))
            break
        time.sleep(0.002)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    # Ranks have sessions of their own under DeepSpeed's launcher.
    subprocess.run(["pkill", "-KILL", "-f", f"run_folder={run} "], check=False)
    time.sleep(0.2)
    return alive


def test_a_servers_fault_saves_what_was_trained_and_the_run_goes_on_from_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, metrics = [True], tmp_path / "run" / "metrics.jsonl"

    def script(asked: Asked, _: int) -> Answer:
        trained = len(metrics.read_text().splitlines()) if metrics.exists() else 0
        return (
            Answer("<html>", 200) if broken[0] and trained == 2 else Answer(chat(f"Answer: {len(str(asked.body)) % 3}"))
        )

    with serving(script) as server:
        predictor = f"predictor={{endpoint: '{server.url}', model: m, retries: 0}}"
        assert main(arguments(tmp_path / "run", predictor, "train.save_every=100")) == 2
        error = capsys.readouterr().err
        saved = tmp_path / "run" / CHECKPOINTS / "checkpoint-2"
        assert f"goes on from {saved}" in error and "Traceback" not in error
        broken[0] = False
        assert main(arguments(tmp_path / "run", predictor, "train.save_every=100")) == 0
        assert main(arguments(tmp_path / "whole", predictor, "train.save_every=100")) == 0
    assert results(tmp_path / "run") == results(tmp_path / "whole")
