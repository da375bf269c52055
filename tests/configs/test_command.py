"""What every command shares: its exit status, who prints what, and how many processes there are."""

import pytest

from configs.command import config_parser, is_main, launched, say, status, world_size
from configs.tree import ConfigError
from data.errors import DataError
from train.config import Config


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
