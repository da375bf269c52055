"""What an export lacks is said before anything is loaded: a place for it, a runtime, a prompt that fits."""

import json
import os
import sys
from pathlib import Path

import pytest

from models.adapter_settings import SETTINGS_FILE
from models.adapters import add_adapter, save_adapter
from models.compressor import Compressor
from models.export.__main__ import main
from models.export.files import check_target
from models.export.trained import Trained
from models.loading import load_model
from models.naming import ModelError

MODEL = "miniature/qwen2-small"


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "compressor"
    model, tokenizer = load_model(MODEL)
    adapted = add_adapter(model, 4, 8, 0.0, ["q_proj"], 0)
    settings = Compressor(adapted, tokenizer, 16).settings(MODEL, None, "")
    save_adapter(adapted, tokenizer, folder, MODEL, settings=settings)
    return folder


@pytest.fixture
def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trained, "load", lambda *_: pytest.fail("an adapter was loaded"))


def refusal(capsys: pytest.CaptureFixture[str], adapter: Path, target: str, output: Path, *more: str) -> str:
    """The one line that an export ends with."""
    assert main(["--adapter", str(adapter), "--to", target, "--output", str(output), *more]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


@pytest.mark.usefixtures("loads_nothing")
def test_a_place_that_no_folder_can_be_made_at_is_refused(
    adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "disk").mkdir()
    ismount = os.path.ismount
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "disk" or ismount(path))
    for output, said in {
        "file": f"'{tmp_path}/file': is a file, where a folder is to be made; name another folder (--output)",
        "link": f"'{tmp_path}/file': is a file, where",
        "file/x": f"'{tmp_path}/file/x': cannot be made: '{tmp_path}/file' is no folder",
        "disk": f"'{tmp_path}/disk': is a mount point, which no folder replaces: name a folder below it",
        ".": f"'{tmp_path}': there are files already",
    }.items():
        assert said in refusal(capsys, adapter, "peft", tmp_path / output)


def test_a_link_leads_to_the_folder_that_is_made(adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "there")
    arguments = ["--adapter", str(adapter), "--to", "peft", "--output", str(tmp_path / "link"), "--no-verify"]
    assert main(arguments) == 0
    assert (tmp_path / "there" / "README.md").is_file() and (tmp_path / "link").is_symlink()


@pytest.mark.usefixtures("loads_nothing")
@pytest.mark.parametrize(
    ("target", "missing", "install"),
    [
        ("gguf", "xllamacpp", "pip install xllamacpp"),
        ("gguf-lora", "xllamacpp", "pip install xllamacpp"),
        ("ollama", "xllamacpp", "pip install xllamacpp"),
        ("mlx", "mlx_lm", "mlx-lm on a Mac"),
    ],
)
def test_a_runtime_that_is_not_installed_is_missed_before_anything_is_loaded(
    adapter: Path,
    target: str,
    missing: str,
    install: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    said = refusal(capsys, adapter, target, tmp_path / "out")
    assert said.endswith(f"{install}; or export without a proof (--no-verify)") and not (tmp_path / "out").exists()


def test_without_a_proof_no_runtime_is_needed(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    arguments = ["--adapter", str(adapter), "--to", "gguf", "--output", str(tmp_path / "out"), "--no-verify"]
    assert main(arguments) == 0 and (tmp_path / "out" / "model-f16.gguf").is_file()


@pytest.mark.parametrize("role", ["compressor", "predictor"])
def test_a_prompt_that_the_window_does_not_take_is_refused(adapter: Path, tmp_path: Path, role: str) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_bytes((adapter / name).read_bytes())
    key = "instruction" if role == "compressor" else "answer_instruction"
    settings = json.loads((adapter / SETTINGS_FILE).read_text()) | {"role": role}
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    check_target(Trained.load(str(tmp_path)), "peft")
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings | {key: "word " * 5000}))
    with pytest.raises(ModelError, match=r"its prompt alone has \d+ tokens, .* shorten the instruction in shorthand"):
        Trained.load(str(tmp_path))
