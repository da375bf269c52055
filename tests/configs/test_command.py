"""What every command shares: its exit status, who prints what, and how many processes there are."""

from pathlib import Path

import pytest

from configs.command import config_parser, is_main, launched, say, status, world_size
from configs.tree import ConfigError
from data.errors import DataError
from eval.run import main as evaluate
from train.config import Config, load_config
from train.run import main as train


def refuse(error: Exception) -> int:
    raise error


def test_the_status_is_that_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert status(lambda: 3, lambda loaded: loaded + 1) == 4
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("rank", "said"), [("0", "error: seed = -1: no\n"), ("1", "")])
def test_a_refused_configuration_is_said_by_the_main_process_alone(
    rank: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert status(lambda: refuse(ConfigError("seed = -1: no")), lambda loaded: 0) == 2
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("rank", ["0", "1"])
def test_bad_input_met_at_work_is_said_by_whoever_meets_it(
    rank: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", rank)
    assert status(lambda: None, lambda loaded: refuse(DataError("papers.json: is empty"))) == 2
    assert capsys.readouterr().err == "error: papers.json: is empty\n"


@pytest.mark.parametrize(
    ("interruption", "origin"),
    [(KeyboardInterrupt(), "the last batch that was finished"), (KeyboardInterrupt("checkpoint-3"), "checkpoint-3")],
)
def test_an_interrupted_command_says_what_it_goes_on_from(
    interruption: KeyboardInterrupt, origin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(loaded: None) -> int:
        raise interruption

    assert status(lambda: None, work) == 130
    assert capsys.readouterr().err == f"\ninterrupted: the same command goes on from {origin}\n"


def test_an_error_of_the_program_itself_is_not_taken_for_bad_input() -> None:
    with pytest.raises(ValueError, match="a mistake of ours"):
        status(lambda: None, lambda loaded: refuse(ValueError("a mistake of ours")))


def test_the_processes_of_a_start_are_those_that_the_launcher_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert (is_main(), world_size(), launched()) == (True, 1, False)
    for name, value in (("RANK", "5"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert (is_main(), world_size(), launched()) == (False, 8, True)
    say("once")
    assert capsys.readouterr().out == ""


def test_options_may_stand_among_the_overrides_and_launchers_may_pass_a_rank() -> None:
    parser = config_parser("train/run.py", "Train.", ["train/run.py --config mi_rl.yaml"], Config)
    given = ["--local_rank=1", "seed=1", "--config", "mi_rl.yaml", "train.steps=2"]
    options = parser.parse_intermixed_args(given)
    assert (options.config, options.overrides) == ("mi_rl.yaml", ["seed=1", "train.steps=2"])


def test_the_help_page_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    page = config_parser("train/run.py", "Train. " * 30, ["train/run.py --config mi_rl.yaml"], Config).format_help()
    assert max(map(len, page.splitlines())) <= 60
    assert page.index("examples:") < page.index("configuration keys:") < page.index("train.steps: int = 100")
    monkeypatch.setenv("COLUMNS", "250")
    wide = config_parser("train/run.py", "Train. " * 30, ["train/run.py --config mi_rl.yaml"], Config).format_help()
    keys = wide[wide.index("configuration keys:") :]
    assert 90 < max(map(len, keys.splitlines())) <= 100


def test_a_dry_run_prints_the_configuration_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train(["--config", "mi_rl.yaml", "train.steps=3", "--dry-run"]) == 0
    file = tmp_path / "resolved.yaml"
    file.write_text(capsys.readouterr().out)
    assert load_config(str(file)) == load_config("mi_rl.yaml", ["train.steps=3"])
    assert evaluate(["--config", "evaluation.yaml", "compressor.adapter=null", "--dry-run"]) == 0
    assert "model: miniature/qwen2-leading" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["resolved.yaml"]


def test_a_dry_run_refuses_what_the_run_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.jsonl").write_text('{"context": "a", "question": "b?"}\n')
    own = f"tasks=[{{name: records, source: {tmp_path}/own.jsonl}}]"
    given = [own, "information.negatives={batch: 1}", "--dry-run"]
    assert train(["--config", "mi_rl.yaml", *given]) == 2
    assert "has no field 'answers'" in capsys.readouterr().err
    assert evaluate(["--config", "evaluation.yaml", "compressor.adapter=null", *given]) == 2
    assert "has no field 'answers'" in capsys.readouterr().err
    assert train(["--config", "mi_rl.yaml", f"run_folder={tmp_path}/own.jsonl", "--dry-run"]) == 2
    assert "something that is no folder" in capsys.readouterr().err
    assert train(["--config", "mi_rl.yaml", "tasks=[miniature/notes, qasper]", "--dry-run"]) == 2
    assert "have different instructions" in capsys.readouterr().err
