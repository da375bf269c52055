"""Updates from numbers that are not finite: skipped, counted, kept, and many in a row end the run."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch.optim import AdamW

from train.grpo.guard import DivergenceError, Guard
from train.tracking.step_lines import StepLines

NAN, INFINITE = math.nan, math.inf


def setting(folder: Path, most: int = 2) -> tuple[Guard, torch.nn.Parameter, AdamW]:
    """A guard on an optimizer of one parameter that has already moved."""
    guard = Guard(folder, most, lambda own: own)
    parameter = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = AdamW([parameter], lr=0.1)
    guard.watch(optimizer)
    update(parameter, optimizer, 1.0)
    assert not guard.end_step(1, [{"id": "a"}])
    return guard, parameter, optimizer


def update(parameter: torch.nn.Parameter, optimizer: AdamW, gradient: float) -> None:
    parameter.grad = torch.tensor([gradient, 1.0])
    optimizer.step()


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float, tmp_path: Path) -> None:
    guard, parameter, optimizer = setting(tmp_path)
    before = parameter.detach().clone(), {k: v.clone() for k, v in optimizer.state[parameter].items()}
    update(parameter, optimizer, value)
    assert torch.equal(parameter, before[0])
    assert all(torch.equal(optimizer.state[parameter][name], state) for name, state in before[1].items())
    assert guard.end_step(2, [{"id": "b"}]) and guard.skipped == 1
    assert json.loads((tmp_path / "skipped_batches.jsonl").read_text()) == {
        "step": 2,
        "reasons": ["the gradient is not finite"],
        "id": "b",
    }
    update(parameter, optimizer, 1.0)
    assert not torch.equal(parameter, before[0]) and not guard.end_step(3, [])


def test_a_learning_rate_that_ruins_the_weights_is_undone(tmp_path: Path) -> None:
    guard, parameter, optimizer = setting(tmp_path)
    before = parameter.detach().clone()
    for rate in (NAN, INFINITE):
        optimizer.param_groups[0]["lr"] = rate
        update(parameter, optimizer, 1.0)
        assert torch.equal(parameter, before) and guard.refuses
    guard.end_step(2, [])
    update(parameter, optimizer, 1.0)
    with pytest.raises(DivergenceError, match=r"in a row were skipped, the last at step 3: a parameter after the up"):
        guard.end_step(3, [])


@pytest.mark.parametrize("name", ["the loss", "a reward"])
def test_what_is_not_finite_keeps_a_finite_gradient_from_being_used(name: str, tmp_path: Path) -> None:
    guard, parameter, optimizer = setting(tmp_path)
    before = parameter.detach().clone()
    guard.check(name, torch.tensor([0.0, NAN]))
    update(parameter, optimizer, 1.0)
    assert torch.equal(parameter, before) and guard.end_step(2, [])


def test_a_process_skips_what_another_one_refuses(tmp_path: Path) -> None:
    guard, parameter, optimizer = setting(tmp_path)
    before = parameter.detach().clone()
    guard.join = lambda own: [*own, ["the loss is not finite"]]
    update(parameter, optimizer, 1.0)
    assert torch.equal(parameter, before)


def test_only_updates_skipped_one_after_the_other_end_the_run(tmp_path: Path) -> None:
    guard, parameter, optimizer = setting(tmp_path, most=2)
    for step, gradient in enumerate((NAN, 1.0, NAN, 1.0), start=2):
        update(parameter, optimizer, gradient)
        guard.end_step(step, [])
    update(parameter, optimizer, NAN)
    guard.end_step(6, [])
    update(parameter, optimizer, NAN)
    with pytest.raises(DivergenceError, match=r"2 updates in a row .* step 7: the gradient is not finite"):
        guard.end_step(7, [])


def test_lines_of_steps_are_cut_back_and_torn_ones_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = StepLines(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        lines.add(step, [{"reward": NAN if step == 2 else 1.0}])
    with lines.path.open("a") as file:
        file.write('{"step": 4, "rew')
    lines.cut(2)
    assert [json.loads(line) for line in lines.path.read_text().splitlines()] == [
        {"step": 1, "reward": 1.0},
        {"step": 2, "reward": None},
    ]
    assert "damaged lines that are dropped: 1" in capsys.readouterr().err


def test_a_line_that_was_lost_is_written_again(tmp_path: Path) -> None:
    lines = StepLines(tmp_path / "metrics.jsonl")
    lines.add(1, [{"reward": 1.0}])
    lines.restore(2, [(1, {"reward": 1.0}), (2, {"reward": 3.0})])
    assert [json.loads(line)["reward"] for line in lines.path.read_text().splitlines()] == [1.0, 3.0]
