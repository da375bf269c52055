"""The spread between runs with several seeds."""

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from data.errors import DataError
from eval.report.__main__ import main
from eval.report.seeds import spread_table
from tests.records import summary

ACCURACIES = (0.945, 0.952, 0.905)


def runs(**meta: Any) -> dict[str, Any]:
    """Three runs of one recipe: accuracies after training as named, and half the tokens."""
    return {
        f"run{seed}": summary((0.7, accuracy), (accuracy - 0.7, 0.1, 0.3), (2.0, 1.9, 2.1), (2.0, 1.8, 2.2))
        | {"temperature": 1.0, "meta": {"config": {"seed": seed, "name": f"run{seed}", "train": {"steps": 4}} | meta}}
        for seed, accuracy in enumerate(ACCURACIES)
    }


def test_the_spread_is_that_of_the_values_of_each_run() -> None:
    table = spread_table(runs())
    lines = {line[1:3]: line for line in table.lines}
    mean, deviation = statistics.fmean(ACCURACIES), statistics.stdev(ACCURACIES)
    assert lines["Accuracy", "after"][3:] == (
        f"{100 * mean:.1f}%",
        f"{100 * deviation:.1f} points",
        "90.5%",
        "95.2%",
        "3",
    )
    assert lines["Accuracy", "change"][5:7] == ("+20.5 points", "+25.2 points")
    assert lines["Message tokens", "change"][3:5] == ("2.00x fewer", "0")
    assert table.note == "Seeds 0, 1, 2."


def test_greedy_and_sampled_messages_are_apart() -> None:
    both = {name: results | {"greedy": results} for name, results in runs().items()}
    assert list(dict.fromkeys(line[0] for line in spread_table(both).lines)) == ["Greedy messages", "Sampled messages"]


def test_runs_that_differ_in_more_than_their_seed_or_not_in_it_are_told() -> None:
    other = runs()
    other["run1"]["meta"]["config"] |= {"train": {"steps": 9}, "seed": 0}
    note = spread_table(other).note
    assert note.startswith("Seeds 0, 0, 2. Some runs have one seed")
    assert note.endswith("The runs differ in more than their seed: train.")


def test_runs_without_messages_of_one_kind_are_refused() -> None:
    mixed = runs()
    mixed["run0"]["temperature"] = 0.0
    with pytest.raises(DataError, match="neither greedy nor sampled"):
        spread_table(mixed)


def test_the_command_takes_several_runs_and_prints_the_spread(
    run_folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    again = tmp_path_factory.mktemp("other") / "again"
    shutil.copytree(run_folder, again)
    results = json.loads((again / "results.json").read_text())
    (again / "results.json").write_text(json.dumps(results | {"meta": {"config": {"seed": 1}}}))
    assert main([str(run_folder), str(again)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{run_folder / 'report.html'}\n{again / 'report.html'}\n")
    assert "## Spread between 2 runs" in said and "| Accuracy | after | 66.7% |" in said
