"""The benchmark counts the tokens that are read, goes on where it was stopped, and names what misses its floor."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from train.benchmark import __main__ as command
from train.benchmark import job
from train.benchmark.cases import HEADLINE, LONG_STEP, PHASES, SCORING, UPDATE, Case, benchmark_cases
from train.benchmark.figures import draw_growth, exponent, growth_of, growth_table, results_table, rows_along
from train.benchmark.measure import measure_case, stock_is_measured, tokens_processed
from train.benchmark.results import FLOORS, Results, Row
from train.benchmark.ways import WAYS, Subject

pytestmark = pytest.mark.command

SMALL = Case("scoring", context=24, message=5, group=2, contexts=3)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("cpu", str(tmp_path_factory.mktemp("subject")))


def tokens_read(subject: Subject, way: str, case: Case) -> int:
    with tokens_processed(subject) as processed:
        WAYS[case.phase][("ours", "stock").index(way)](subject, case)
    return sum(processed)


def test_the_tokens_of_scoring_and_update_are_those_that_are_read(subject: Subject) -> None:
    for phase, weight in (("scoring", 1), ("update", 3)):
        case = replace(SMALL, phase=phase)
        tokens_read(subject, "ours", case)
        for way in ("ours", "stock"):
            counted = case.tokens(once=way == "ours")
            # The last token of a message predicts nothing, and the last of a context is read with each message.
            slack = weight * (case.messages * (case.contexts if phase == "scoring" else 1) + case.contexts)
            assert abs(tokens_read(subject, way, case) - counted) <= slack, (phase, way)


def test_a_rollout_reads_every_context_once_and_stock_once_a_message(subject: Subject) -> None:
    case = replace(SMALL, phase="rollout")
    for way in ("ours", "stock"):
        read, counted = tokens_read(subject, way, case), case.tokens(once=way == "ours")
        # What was written last is not read.
        assert counted - case.messages <= read <= counted


def test_a_row_holds_what_was_measured(subject: Subject) -> None:
    for phase in PHASES:
        row = measure_case(subject, replace(SMALL, phase=phase), 2, 1e11, "here")
        assert row.stock_s is not None and row.ratio is not None
        assert row.ratio == pytest.approx(row.stock_s / row.ours_s)
        assert row.floor_share == pytest.approx(row.ratio * row.ours_tokens / row.stock_tokens)
        assert (row.ours_calls, row.stock_calls, row.settings) == (2, 2, "here")
        assert row.case == replace(SMALL, phase=phase)
        assert 0.8 * row.ours_tokens < row.ours_processed <= row.ours_tokens


def test_a_straightforward_call_that_would_take_too_long_is_left_out_except_in_the_headline(subject: Subject) -> None:
    slow_machine = 1e6
    assert not stock_is_measured(subject, SMALL, slow_machine, 60.0)
    assert stock_is_measured(subject, LONG_STEP, slow_machine, 60.0)
    assert not stock_is_measured(subject, LONG_STEP, slow_machine, 5.0)
    assert stock_is_measured(subject, SCORING, slow_machine, 5.0)
    row = measure_case(subject, SMALL, 1, slow_machine, "here")
    assert row.ours_s > 0 and row.stock_calls == 0
    assert (row.stock_s, row.ratio, row.floor_share, row.stock_peak_mb) == (None, None, None, None)


def test_multiplications_are_the_tokens_read_times_the_body_and_the_messages_times_the_projection() -> None:
    assert replace(SMALL, phase="rollout").multiplications(body=1, projection=0) == 3 * 24 + 6 * 5
    assert replace(SMALL, phase="update").multiplications(body=0, projection=1) == 2 * 6 * 5
    assert SMALL.multiplications(body=1, projection=0) == SMALL.tokens(once=True)
    assert SMALL.multiplications(body=0, projection=1) == 3 * 6 * 5


def test_the_models_vocabulary_weighs_what_a_real_ones_does(subject: Subject) -> None:
    assert subject.projection / subject.body == pytest.approx(151_936 * 1_536 / 1.31e9, abs=0.03)


def test_the_headline_covers_every_phase_and_the_sweeps_the_asked_for_sizes() -> None:
    assert tuple(case.phase for case in benchmark_cases(quick=True)) == PHASES
    cases = benchmark_cases(quick=False)
    assert len(set(cases)) == len(cases) and cases[: len(HEADLINE)] == list(HEADLINE)
    for phase in PHASES:
        assert {256, 1024, 4096} <= {case.context for case in cases if case.phase == phase}
    assert {case.contexts for case in cases if case.phase == "scoring"} == {2, 4, 8, 16}
    for phase in PHASES[:3]:
        assert {2, 4, 8, 16} <= {case.group for case in cases if case.phase == phase}


def fabricated(case: Case, ours_s: float, stock_s: float | None = None, device: str = "cpu") -> Row:
    ours_tokens, stock_tokens = case.tokens(once=True), case.tokens(once=False)
    ratio = None if stock_s is None else stock_s / ours_s
    return Row(
        phase=case.phase,
        context=case.context,
        message=case.message,
        group=case.group,
        contexts=case.contexts,
        device=device,
        ours_s=ours_s,
        stock_s=stock_s,
        ratio=ratio,
        floor_share=None if ratio is None else ratio * ours_tokens / stock_tokens,
        ours_calls=3,
        stock_calls=0 if stock_s is None else 1,
        ours_processed=ours_tokens,
        ours_tokens=ours_tokens,
        stock_tokens=stock_tokens,
        ours_peak_mb=100.0,
        stock_peak_mb=None if stock_s is None else 1000.0,
        matmul_share=0.5,
        settings="here",
    )


def squared(cases: Sequence[Case], device: str = "cpu") -> list[Row]:
    """Rows whose seconds grow with the square of the context, and stock's with the tokens."""
    return [fabricated(case, 1e-6 * case.context**2, 1e-4 * case.tokens(once=False), device) for case in cases]


def test_a_known_exponent_is_recovered() -> None:
    assert exponent([1, 2, 4, 8], [3 * size**1.7 for size in (1, 2, 4, 8)]) == pytest.approx(1.7)
    growths = {
        (growth.device, growth.phase, growth.varied): growth
        for growth in growth_of(squared(benchmark_cases(quick=False)))
    }
    scoring = growths["cpu", "scoring", "context"]
    assert scoring.sizes == [256, 512, 1024, 2048, 4096]
    assert scoring.ours == pytest.approx(2) and 0 < scoring.ours_counted < 1
    assert scoring.stock is not None and scoring.stock == pytest.approx(scoring.stock_counted)
    assert growths["cpu", "scoring", "message"].ours == pytest.approx(0, abs=1e-9)


def test_every_size_of_every_phase_has_its_exponent_where_it_is_varied() -> None:
    growths = growth_of(squared(benchmark_cases(quick=False)))
    sizes = {(growth.phase, growth.varied): growth.sizes for growth in growths}
    for phase in ("scoring", "update", "rollout"):
        assert {"context", "message", "group"} <= {varied for at, varied in sizes if at == phase}
    assert sizes["scoring", "contexts"] == [2, 4, 8, 16] and sizes["step", "contexts"] == [2, 4, 8]
    assert growth_of(squared(HEADLINE)) == []


def test_devices_and_points_without_stock_stay_apart_in_the_growth() -> None:
    varied = [replace(SMALL, context=context) for context in (32, 64, 128)]
    cpu = [*squared(varied), fabricated(replace(SMALL, context=256), 1e-6 * 256**2)]
    both = [*cpu, *squared(varied, "cuda")]
    on_cpu, on_gpu = growth_of(both)
    assert (on_cpu.device, on_cpu.sizes) == ("cpu", [32, 64, 128, 256])
    assert (on_gpu.device, on_gpu.sizes) == ("cuda", [32, 64, 128])
    assert on_cpu.stock == pytest.approx(on_gpu.stock)
    alone = growth_of([fabricated(case, 1.0) for case in varied])[0]
    assert alone.stock is None and alone.stock_counted is None
    assert len(rows_along(cpu, "scoring", "context")) == 4 and rows_along(cpu, "scoring", "message") == []


def test_the_tables_fit_a_terminal_and_the_plot_is_drawn(tmp_path: Path) -> None:
    rows = squared(benchmark_cases(quick=False))
    rows[-1] = fabricated(rows[-1].case, 123.456)
    lines = results_table(rows).splitlines()
    assert len(lines) == len(rows) + 1 and max(map(len, lines)) <= 160 and " - " in lines[-1]
    assert len(growth_table(growth_of(rows)).splitlines()) == len(growth_of(rows)) + 1
    draw_growth(rows, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="nothing to draw"):
        draw_growth(squared(HEADLINE), tmp_path / "bench.png")


def test_an_interrupted_run_measures_only_what_is_missing(tmp_path: Path) -> None:
    measured: list[Case] = []

    def measure(case: Case) -> Row:
        if len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(case)
        return fabricated(case, 1.0)

    path = tmp_path / "bench.json"
    with pytest.raises(KeyboardInterrupt):
        job.measure_missing("cpu", HEADLINE, Results(path, ["here"]), lambda: measure)
    assert measured == list(HEADLINE[:2])
    measured.clear()
    job.measure_missing("cpu", HEADLINE, Results(path, ["here"]), lambda: measure)
    assert measured == list(HEADLINE[2:])
    assert [row.case for row in Results(path, ["here"]).rows] == list(HEADLINE)
    measured.clear()
    job.measure_missing("cpu", HEADLINE, Results(path, ["here"]), lambda: measure)
    assert measured == []


def test_rows_of_other_settings_are_kept_in_another_file_and_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    old = Results(path, ["here"])
    for row in squared(HEADLINE):
        old.add(row)
    written = path.read_text()
    for settings, fresh in (("elsewhere", False), ("here", True)):
        path.write_text(written)
        assert Results(path, [settings], fresh).rows == []
        assert json.loads(path.read_text()) == []
        (aside,) = tmp_path.glob("bench.*-*.json")
        assert aside.read_text() == written
        aside.unlink()


def test_the_settings_tell_devices_and_repeats_apart() -> None:
    assert job.conditions("cpu", 3) == job.conditions("cpu", 3) != job.conditions("cpu", 4)
    assert job.code_hash(job.PROJECT) in job.conditions("cpu", 3)


@pytest.mark.parametrize(
    "changed",
    [
        "train/benchmark/ways.py",
        "train/grpo/shared_prefix_trainer.py",
        "models/scorer.py",
        "models/shared_prefix/scoring.py",
    ],
)
def test_a_change_of_any_timed_file_makes_earlier_rows_those_of_other_code(changed: str, tmp_path: Path) -> None:
    for source in (*job.PROJECT.glob("train/**/*.py"), *job.PROJECT.glob("models/**/*.py")):
        copy = tmp_path / source.relative_to(job.PROJECT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    before = job.code_hash(tmp_path)
    assert before == job.code_hash(job.PROJECT)
    with (tmp_path / changed).open("a") as file:
        file.write("\n")
    assert job.code_hash(tmp_path) != before


def run_command(monkeypatch: pytest.MonkeyPatch, folder: Path, rows: dict[Case, Row], *arguments: str) -> int:
    """The exit status of the headline's benchmark on a machine where every case gives the row of ``rows``."""

    def prepare(*_: object) -> Callable[[Case], Row]:
        return rows.__getitem__

    monkeypatch.setattr(job, "devices", lambda: ["cpu"])
    monkeypatch.setattr(job, "conditions", lambda *_: "here")
    monkeypatch.setattr(job, "prepare_device", prepare)
    return command.main(["--quick", "--fresh", "--out", str(folder), *arguments])


def test_the_check_names_what_is_under_its_floor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fast = {
        case: fabricated(case, 1.0, 1.1 * max(6.0, 0.7 * case.tokens(False) / case.tokens(True))) for case in HEADLINE
    }
    slow = fast | {UPDATE: fabricated(UPDATE, 1.0, 4.0)}
    for rows, arguments, exit_status in ((fast, ["--check"], 0), (slow, ["--check"], 1), (slow, [], 0)):
        assert run_command(monkeypatch, tmp_path, rows, *arguments) == exit_status
        lines = capsys.readouterr().out.splitlines()
        failed = [line for line in lines if line.startswith("FAIL")]
        assert len([line for line in lines if line.startswith(("PASS", "FAIL"))]) == len(FLOORS)
        assert len(failed) == (rows is slow)
        assert all(str(UPDATE) in line and "ratio, at least 5: 4.00" in line for line in failed)


def test_an_interrupted_benchmark_says_what_it_goes_on_from(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(dict[Case, Row]):
        def __missing__(self, case: Case) -> Row:
            raise KeyboardInterrupt

    rows = Stopped({SCORING: fabricated(SCORING, 1.0, 13.0)})
    assert run_command(monkeypatch, tmp_path, rows) == 130
    assert f"goes on from the last case in {tmp_path / 'bench.json'}" in capsys.readouterr().err


@pytest.mark.command
def test_help_and_a_wrong_command_line_answer_without_loading_what_takes_seconds() -> None:
    script = (
        "import runpy, sys\n"
        "try: runpy.run_module('train.benchmark', run_name='__main__')\n"
        "finally: print('heavy:', sorted({'torch', 'transformers', 'trl', 'numpy', 'matplotlib'} & set(sys.modules)))"
    )
    for arguments, exit_status in ((["--help"], 0), (["--repeats", "0"], 2)):
        ended = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, text=True, cwd=job.PROJECT
        )
        assert ended.returncode == exit_status
        assert "heavy: []" in ended.stdout


def test_a_floor_without_its_row_fails_and_one_the_system_is_silent_about_does_not() -> None:
    memory = next(floor for floor in FLOORS if floor.measure == "memory_share")
    assert memory.verdict([])[0] is False
    assert memory.verdict([fabricated(UPDATE, 1.0, 6.0)])[0] is True
    assert memory.verdict([replace(fabricated(UPDATE, 1.0, 6.0), stock_peak_mb=200.0)])[0] is False
    assert memory.verdict([replace(fabricated(UPDATE, 1.0, 6.0), ours_peak_mb=None)])[0] is None


def test_nothing_is_left_in_the_model(subject: Subject) -> None:
    assert all(parameter.grad is None for parameter in subject.trained)
    assert {name for name, p in subject.model.named_parameters() if p.requires_grad} == {
        name for name, _ in subject.model.named_parameters() if ".lora_" in name
    }
    assert torch.is_grad_enabled()
