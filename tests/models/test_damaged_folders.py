"""A damaged model folder is one line that names it, for whatever reads it, and nothing in it is run."""

import shutil
from pathlib import Path

import pytest

from eval.run import main as evaluate
from models.compress import main as compress
from models.loading import load_tokenizer
from models.naming import ModelError
from tests.models.damaged_folders import DAMAGES, HARMLESS, whole_folder
from train.run import main as train

pytestmark = pytest.mark.command

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return whole_folder(tmp_path_factory.mktemp("models") / "whole")


def damaged(whole: Path, tmp_path: Path, kind: str) -> Path:
    folder = shutil.copytree(whole, tmp_path / "damaged")
    DAMAGES[kind](folder)
    return folder


def compressed(folder: Path, capsys: Output) -> tuple[int, str]:
    """Status of a compression with a model, and what it said."""
    document = folder.parent / "document.txt"
    document.write_text("The zinc was 71.")
    status = compress([str(folder), "--document", str(document), "--question", "Zinc?", "--budget", "4"])
    return status, capsys.readouterr().err


def refusal(said: str) -> str:
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in said
    assert len(errors[0]) < 500
    return errors[0]


def test_a_whole_folder_is_used(whole: Path, capsys: Output) -> None:
    assert compressed(whole, capsys)[0] == 0


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind not in HARMLESS])
def test_a_damaged_folder_is_one_line_that_names_it(kind: str, whole: Path, tmp_path: Path, capsys: Output) -> None:
    folder = damaged(whole, tmp_path, kind)
    status, said = compressed(folder, capsys)
    assert status == 2
    # A window that is too small is told as what has no room in it.
    assert kind.startswith("window") or str(folder) in refusal(said)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("kind", HARMLESS)
def test_damage_to_what_is_not_read_does_no_harm(kind: str, whole: Path, tmp_path: Path, capsys: Output) -> None:
    assert compressed(damaged(whole, tmp_path, kind), capsys)[0] == 0


@pytest.mark.parametrize(
    "kind", ["config utf-16", "layers without end", "weights pickled", "weights cut", "tokenizer torn", "template gone"]
)
def test_training_and_evaluation_refuse_a_damaged_model_as_well(
    kind: str, whole: Path, tmp_path: Path, capsys: Output
) -> None:
    folder = damaged(whole, tmp_path, kind)
    more = [f"run_folder={tmp_path}/{{name}}", "eval.documents=2", "tasks=[miniature/notes]", "tracking.wandb=disabled"]
    model = f"compressor.model={folder}"
    assert train(["--config", "mi_rl.yaml", model, *more]) == 2
    assert str(folder) in refusal(capsys.readouterr().err)
    assert evaluate(["--config", "evaluation.yaml", model, "compressor.adapter=null", *more]) == 2
    assert str(folder) in refusal(capsys.readouterr().err)


def test_a_tokenizer_by_itself_is_refused_as_with_its_model(whole: Path, tmp_path: Path) -> None:
    folder = damaged(whole, tmp_path, "tokenizer settings a list")
    with pytest.raises(ModelError, match=f"^tokenizer of '{folder}' cannot be loaded: AttributeError"):
        load_tokenizer(str(folder))
