"""The benchmark of a real model times its phases beside its own matrix products, here on an embedded model."""

import json
from pathlib import Path

import pytest
import torch

from models.fingerprint import is_base
from models.loading import load_model
from train.benchmark import __main__ as command
from train.benchmark import real_model
from train.benchmark.ways import Subject

pytestmark = pytest.mark.command

MODEL = "miniature/qwen2-small"


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("cpu", str(tmp_path_factory.mktemp("subject")), load_model(MODEL)[0])


def test_the_parameters_of_body_and_projection_are_those_of_the_model(subject: Subject) -> None:
    named = {name: weight.numel() for name, weight in subject.base.named_parameters() if is_base(name, weight)}
    embedding = next(count for name, count in named.items() if "embed" in name)
    assert subject.projection == embedding and subject.body == sum(named.values()) - embedding * (
        2 if any("lm_head" in name for name in named) else 1
    )


def test_the_products_are_those_with_every_weight_of_the_layers_and_the_projection(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    operations = {}
    for backward in (False, True):
        with torch.profiler.profile(with_flops=True) as profiled:
            real_model.multiply(subject, 10, 3, backward)
        operations[backward] = sum(event.flops or 0 for event in profiled.key_averages())
    norms_and_biases = sum(weight.numel() for weight in subject.base.parameters() if weight.ndim == 1)
    expected = 2 * (10 * (subject.body - norms_and_biases) + 3 * subject.projection)
    assert operations == {False: expected, True: 2 * expected}


def test_a_phase_is_told_by_its_tokens_and_its_share(subject: Subject) -> None:
    ticks = iter(range(1000))
    phase = real_model.Phase("prefill", lambda: None, rows=100, passes=2, projected=0)
    figure = real_model.measure(subject, phase, 2, lambda: float(next(ticks)))
    assert (figure.tokens, figure.seconds, figure.tokens_per_second) == (200, 1.0, 200.0)
    # Two passes of products, each of which took one tick as well.
    assert figure.matmul_share == 2.0
    assert figure.matmul_gflops == pytest.approx(2 * 100 * subject.body / 1e9)


def test_the_command_prints_a_table_and_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", MODEL, "--dtype", "bfloat16", "--repeats", "1", "--out", str(tmp_path)]
    threads = torch.get_num_threads()
    try:
        assert command.main(arguments) == 0
    finally:
        torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{MODEL}, bfloat16, 1 thread, process_time"
    assert [line.split()[0] for line in lines[2:6]] == ["prefill", "decode", "scoring", "update"]
    found = json.loads((tmp_path / "model.json").read_text())
    assert found["dtype"] == "bfloat16" and found["step_s"] is None
    assert [phase["tokens"] for phase in found["phases"]] == [1280, 960, 2304, 1792]
    assert all(0 < phase["matmul_share"] < 1 for phase in found["phases"])


def test_an_unknown_type_or_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, line in (
        (["--dtype", "float33"], "error: dtype 'float33' is not a floating-point type of torch"),
        (["--model", "miniature/none"], "error: "),
    ):
        assert command.main(["--out", str(tmp_path), "--model", MODEL, *arguments]) == 2
        assert capsys.readouterr().err.startswith(line)
