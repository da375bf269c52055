"""What a pair on one base holds: the base once, and two adapters."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from models.adapter_switch import adapter_parameters
from models.fingerprint import is_base
from models.loading import load_model
from tests.train.test_warm_start import TINY
from train.benchmark import __main__ as command
from train.benchmark.pair_memory import KINDS, load, pair_config, storage_bytes

MODEL = "miniature/qwen2-small"


def recipe(folder: Path, *more: str) -> list[str]:
    return [*TINY, f"run_folder={folder}", "train.predictor_update={}", *more]


def test_storage_counts_once_however_many_names_and_views_it_has() -> None:
    first, second = nn.Linear(8, 4), nn.Linear(8, 4, bias=False)
    assert storage_bytes([first, second]) == 4 * (32 + 4 + 32)
    second.weight = first.weight
    assert storage_bytes([first, second, first]) == 4 * (32 + 4)
    second.weight = nn.Parameter(first.weight[:2])
    assert storage_bytes([first, second]) == 4 * (32 + 4)
    second.register_buffer("mask", torch.zeros(16, dtype=torch.bool))
    assert storage_bytes([first, second]) == 4 * (32 + 4) + 16


@pytest.mark.parametrize(("rank", "ratio"), [(1, 1.15), (16, 2.0)])
def test_a_pair_on_one_base_holds_one_model_and_two_adapters(tmp_path: Path, rank: int, ratio: float) -> None:
    """Adapters weigh much beside models of half a million parameters: rank 1 there as rank 16 beside a real one."""
    ranks = [f"{part}.lora={{rank: {rank}, alpha: {rank}}}" for part in ("compressor", "predictor")]
    found = {kind: load(kind, pair_config(kind, "mi_rl.yaml", recipe(tmp_path, *ranks))) for kind in KINDS}
    alone, shared, apart = (storage_bytes(holders) for _, _, holders in found.values())
    assert alone == storage_bytes([load_model(MODEL)[0]])
    (model, *others) = found["pair, one base"][2]
    assert all(other is model for other in others)
    adapters = sum(4 * p.numel() for name in ("default", "predictor") for p in adapter_parameters(model, name))
    assert adapters == 4 * sum(p.numel() for name, p in model.named_parameters() if not is_base(name, p)) > 0
    assert shared == alone + adapters and apart == 2 * alone + adapters
    assert 1 < shared / alone <= ratio


@pytest.mark.command
@pytest.mark.slow
def test_the_command_measures_the_three_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--out", str(tmp_path), "--pair", "mi_rl.yaml", *recipe(tmp_path / "run")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MODEL}, float32" and [line.split("  ")[0].strip() for line in lines[2:]]
    found = json.loads((tmp_path / "pair.json").read_text())["held"]
    assert [one["kind"] for one in found] == list(KINDS)
    assert all(one["resident"] > 0 for one in found)
    base, shared, apart = (one["parameters"] for one in found)
    assert base < shared < apart and apart == pytest.approx(base + shared)
    assert not (tmp_path / "run").exists()


def test_a_recipe_without_such_a_pair_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given, line in (
        ([*TINY], "error: predictor.shared_base = True: there is no adapter to put on it"),
        ([*TINY, "predictor.modell=m"], "error: "),
    ):
        assert command.main(["--out", str(tmp_path), "--pair", "mi_rl.yaml", *given]) == 2
        assert capsys.readouterr().err.startswith(line)
