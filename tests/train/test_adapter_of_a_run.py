"""The adapter that a run leaves can be given away: it remembers its training, has a card, and names no machine."""

import json
from pathlib import Path

import pytest

from configs.tree import PROJECT
from models.compress import main as compress
from train.run import main as train

pytestmark = pytest.mark.command

TINY = (
    "tasks=[{name: miniature/notes, facts: 6}]",
    "train.steps=1",
    "train.contexts_per_step=2",
    "train.group_size=2",
    "information.negatives.batch=1",
    "compressor.budget_tokens=24",
    "eval.documents=2",
    "eval.questions_per_document=2",
    "tracking.wandb=disabled",
)


def test_an_adapter_is_used_as_it_was_trained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run" / "compressor"
    assert train(["--config", "mi_rl.yaml", f"run_folder={tmp_path / 'run'}", *TINY]) == 0
    machine = [str(PROJECT), str(tmp_path)]
    assert not [file.name for file in folder.iterdir() for path in machine if path.encode() in file.read_bytes()]
    assert not list((tmp_path / "run" / "checkpoints").rglob("README.md"))
    card = (folder / "README.md").read_text()
    assert "| Accuracy |" in card and "4 held-out questions of 2 documents" in card
    assert json.loads((folder / "shorthand.json").read_text())["budget_tokens"] == 24
    capsys.readouterr()
    (tmp_path / "note.txt").write_text("The zinc was 41. The iron was 7.")
    assert compress([str(folder), "--document", str(tmp_path / "note.txt"), "--question", "What was the zinc?"]) == 0
    printed = capsys.readouterr()
    assert printed.out.strip() and "shorthand.json" not in printed.err and "instead" not in printed.err
