"""Whole trainings of compressor and predictor: what moved, after a kill, and in two processes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from configs.tree import PROJECT
from models.adapter_switch import adapter_parameters
from models.fingerprint import is_base, parameter_hash
from models.loading import load_model
from tests.train.test_run import ENVIRONMENT, deepspeed
from tests.train.test_survival import arguments, results
from tests.train.test_warm_start import prepared
from train.checkpoints.checkpoint import CHECKPOINTS, MANIFEST
from train.models import check_fingerprints, fingerprints
from train.run import main

SHARED = ("predictor.model=miniature/qwen2-leading", "predictor.shared_base=true")
KINDS = pytest.mark.parametrize("shared", [(), SHARED], ids=["own", "shared"])
UPDATE = "train.predictor_update={learning_rate: 1.0e-3, batch_size: 4, kl: 0.1}"
ADAPTERS = ("compressor", "trained_predictor")

NEAR = 1e-5
"""How far a weight of two processes may be from that of one: a step moves it by 1e-3 (predictor) or 2e-3 (compressor),
and sums in another order by 1e-7 of that; AdamW divides by the gradient's size, so that the smallest ones show it."""


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of the two adapters that a run leaves."""
    found = {name: load_file(folder / name / "adapter_model.safetensors") for name in ADAPTERS}
    return {f"{name} {key}": tensor for name, tensors in found.items() for key, tensor in tensors.items()}


def checkpoint_hashes(run: Path, step: int) -> dict[str, str]:
    """The hash of every file of a checkpoint with weights, moments, the replay or random states.

    Left out are the file with times, and those in which PEFT writes the names of layers, a set, in any order.
    """
    files = json.loads((run / CHECKPOINTS / f"checkpoint-{step}" / MANIFEST).read_text())["body"]["files"]
    assert {"optimizer.pt", "rng_state.pth", "predictor_update/tensors.safetensors"} <= files.keys()
    return {
        name: digest
        for name, digest in files.items()
        if Path(name).name not in ("trainer_state.json", "adapter_config.json")
    }


def meta(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())["meta"]


@KINDS
def test_a_fingerprint_tells_every_part_from_the_others(tmp_path: Path, shared: tuple[str, ...]) -> None:
    _, models, _ = prepared(tmp_path, UPDATE, "scorer.model=miniature/llama-medium", *shared)
    adapted, scorer = models.adapted_predictor, models.scorer_model
    assert adapted is not None and scorer is not None

    def base(model: nn.Module) -> nn.Parameter:
        return next(parameter for name, parameter in model.named_parameters() if is_base(name, parameter))

    both = {"compressor_base", "predictor_base"}
    parts: list[tuple[nn.Parameter, set[str]]] = [
        (adapter_parameters(models.adapted, "default")[0], {"adapter"}),
        (adapter_parameters(adapted.model, adapted.adapter)[0], {"predictor_adapter"}),
        (base(models.adapted), both if shared else {"compressor_base"}),
        (base(adapted.model), both if shared else {"predictor_base"}),
        (base(scorer), {"scorer"}),
    ]
    start = fingerprints(models)
    assert set(start) == {"adapter", "predictor_adapter", "compressor_base", "predictor_base", "scorer"}
    for parameter, names in parts:
        with torch.no_grad():
            parameter.view(-1).view(torch.int32)[-1] ^= 1
        now = fingerprints(models)
        assert {name for name in start if start[name] != now[name]} == names
        if names <= {"adapter", "predictor_adapter"}:
            assert set(check_fingerprints(start, now, predictor_learns=True)) == names
        else:
            with pytest.raises(RuntimeError, match=re.escape(f"it changed {sorted(names)}")):
                check_fingerprints(start, now, predictor_learns=True)
        start = now
    with torch.no_grad():
        parts[1][0].view(-1).view(torch.int32)[0] ^= 1
    with pytest.raises(RuntimeError, match=r"it changed \['predictor_adapter'\]"):
        check_fingerprints(start, fingerprints(models))


@pytest.mark.command
@pytest.mark.slow
@KINDS
def test_a_joint_run_killed_after_a_step_ends_as_the_one_that_was_not(tmp_path: Path, shared: tuple[str, ...]) -> None:
    given = (*shared, UPDATE, "scorer.model=miniature/llama-medium", "train.keep_checkpoints=4")
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert main(arguments(whole, *given)) == 0
    command = [sys.executable, "train/run.py", *arguments(run, *given)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=PROJECT, env=ENVIRONMENT, stdout=quiet, stderr=quiet, start_new_session=True
    )
    while not (run / CHECKPOINTS / "checkpoint-2").exists() and process.poll() is None:
        time.sleep(0.01)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (run / "results.json").exists()
    finished = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert results(run) == results(whole)
    for name in ADAPTERS:
        file = Path(name) / "adapter_model.safetensors"
        assert (run / file).read_bytes() == (whole / file).read_bytes()
    assert checkpoint_hashes(run, 4) == checkpoint_hashes(whole, 4)
    assert meta(run)["hashes"] == meta(whole)["hashes"]
    assert meta(run)["moved"] == meta(whole)["moved"] == ["adapter", "predictor_adapter"]
    # Bases and scorer are what anybody has who loads these models.
    llama = parameter_hash(load_model("miniature/llama-medium")[0])
    assert meta(run)["hashes"]["scorer"] == llama
    hashes = meta(run)["hashes"]
    assert (hashes["predictor_base"] == hashes["compressor_base"]) == bool(shared)


@pytest.mark.command
@pytest.mark.slow
@KINDS
def test_two_processes_pay_and_teach_as_one_does(tmp_path: Path, shared: tuple[str, ...]) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    given = (*shared, UPDATE, "train.steps=2")
    assert main(arguments(one, *given)) == 0
    command = [*deepspeed(2), "train/run.py", *arguments(two, *given)]
    finished = subprocess.run(command, cwd=PROJECT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900)
    assert finished.returncode == 0, finished.stdout[-2000:] + finished.stderr[-2000:]
    lines = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (one, two)
    ]
    assert [len(steps) for steps in lines] == [2, 2]
    for ours, theirs in zip(*lines, strict=True):
        told = [name for name in ours if name.endswith("/mean") or name in ("reward", "reward_std")]
        told += ["predictor/loss", "predictor/kl", "predictor/grad_norm"]
        assert len(told) >= 8
        expected = {name: ours[name] for name in told}
        assert {name: theirs[name] for name in told} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    ours, theirs = weights(one), weights(two)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=NEAR, msg=name)
        # What nobody has moved would be equal too.
        assert "lora_B" not in name or tensor.abs().max() > 50 * NEAR
    assert meta(two)["moved"] == meta(one)["moved"] == ["adapter", "predictor_adapter"]
