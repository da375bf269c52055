"""An adapter remembers what it was trained with, and whatever is wrong with its memory is one line that names it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from models.adapter_settings import SETTINGS_FILE, AdapterSettings, read_settings
from models.adapters import add_adapter, load_adapter, read_adapter, save_adapter, trained_on
from models.compress import main
from models.compressor import DEFAULT_BUDGET, Compressor
from models.fingerprint import base_hash
from models.loading import load_model
from models.naming import ModelError

MODEL = "miniature/qwen2-small"


def adapted_model(dtype: str = "float32") -> tuple[PeftModel, PreTrainedTokenizerBase]:
    plain, tokenizer = load_model(MODEL, dtype)
    return add_adapter(plain, 4, 8, 0.0, "all-linear", seed=0), tokenizer


def saved(folder: Path, dtype: str = "float32", base: str = MODEL) -> AdapterSettings:
    adapted, tokenizer = adapted_model(dtype)
    compressor = Compressor(adapted, tokenizer, 24, 300, "Write a note.")
    settings = compressor.settings(base, None, "Answer from the note.")
    save_adapter(adapted, tokenizer, folder, base, settings=settings)
    return settings


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "compressor"
    saved(folder)
    return folder


@pytest.fixture
def adapter(original: Path, tmp_path: Path) -> Path:
    """A copy of an adapter with its settings that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "adapter"))


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    settings = saved(tmp_path)
    assert read_settings(tmp_path) == settings == read_adapter(tmp_path).settings
    assert settings.base.model == MODEL and settings.dtype == "float32"
    assert set(settings.base.parameters) == {"float32", "bfloat16", "float16"}


def test_a_loaded_compressor_is_as_it_was_trained_unless_told_otherwise(adapter: Path) -> None:
    compressor = Compressor.load(adapter)
    assert (compressor.budget_tokens, compressor.max_context_tokens) == (24, 300)
    assert compressor.instruction == "Write a note."
    assert compressor.trained is not None and compressor.trained.answer_instruction == "Answer from the note."
    other = Compressor.load(adapter, 8, max_context_tokens=50, instruction="")
    assert (other.budget_tokens, other.max_context_tokens, other.instruction) == (8, 50, "")


def test_an_adapter_without_settings_loads_with_defaults(adapter: Path) -> None:
    (adapter / SETTINGS_FILE).unlink()
    compressor = Compressor.load(adapter)
    assert compressor.trained is None and compressor.instruction == ""
    assert compressor.budget_tokens == DEFAULT_BUDGET


def test_a_model_trained_in_bfloat16_is_loaded_so(tmp_path: Path) -> None:
    saved(tmp_path, "bfloat16")
    assert Compressor.load(tmp_path).model.dtype == torch.bfloat16


def test_the_hash_of_a_base_is_the_same_with_and_without_adapters() -> None:
    plain, _ = load_model(MODEL)
    before = base_hash(plain, torch.float32)
    adapted = add_adapter(plain, 4, 8, 0.0, ["q_proj"], seed=0)
    assert base_hash(adapted, torch.float32) == before
    assert base_hash(load_model(MODEL, "bfloat16")[0], torch.bfloat16) == base_hash(adapted, torch.bfloat16) != before


@pytest.mark.parametrize("trained", ["float32", "bfloat16"])
@pytest.mark.parametrize("loaded", ["float32", "bfloat16", "float16"])
def test_a_base_is_recognised_in_every_floating_point_type(trained: str, loaded: str, tmp_path: Path) -> None:
    settings = saved(tmp_path, trained)
    model = load_model(MODEL, loaded)[0]
    assert trained_on(settings, model)
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    comparable = {trained, loaded} != {"bfloat16", "float16"}
    assert trained_on(settings, model) is not comparable


def test_a_base_with_other_values_is_refused_before_anything_is_written(adapter: Path) -> None:
    model = load_model(MODEL)[0]
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    with pytest.raises(ModelError, match=f"does not fit model 'mine': it was trained on {MODEL}, whose parameters"):
        load_adapter(model, read_adapter(adapter), "mine")


def test_the_path_of_a_local_base_stays_on_its_machine(tmp_path: Path) -> None:
    plain, tokenizer = load_model(MODEL)
    base = tmp_path / "private" / "tuned"
    plain.save_pretrained(base)
    tokenizer.save_pretrained(base)
    saved(tmp_path / "adapter", base=str(base))
    settings = read_settings(tmp_path / "adapter")
    assert settings is not None and settings.base.model == "tuned"
    assert "private" not in (tmp_path / "adapter" / SETTINGS_FILE).read_text()
    assert Compressor.load(tmp_path / "adapter").budget_tokens == 24


def test_an_adapter_whose_base_lies_elsewhere_asks_for_it(tmp_path: Path) -> None:
    plain, tokenizer = load_model(MODEL)
    for where in ("there", "here"):
        plain.save_pretrained(tmp_path / where)
        tokenizer.save_pretrained(tmp_path / where)
    saved(tmp_path / "adapter", base=str(tmp_path / "there"))
    shutil.rmtree(tmp_path / "there")
    with pytest.raises(ModelError, match=r"its base is not here; pass where it is \(--model\): model '.*/there'"):
        Compressor.load(tmp_path / "adapter")
    assert Compressor.load(tmp_path / "adapter", model=str(tmp_path / "here")).budget_tokens == 24


def test_no_save_of_an_adapter_names_the_machine(adapter: Path, tmp_path: Path) -> None:
    adapted_model()[0].save_pretrained(str(tmp_path / "checkpoint"))
    assert not (tmp_path / "checkpoint" / "README.md").exists()
    here = str(Path(__file__).resolve().parents[2]).encode()
    assert not [path.name for path in adapter.iterdir() if here in path.read_bytes()]


def edited(**changes: object) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_text(""), ": Invalid JSON"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:60]), ": Invalid JSON"),
    "binary": (lambda path: path.write_bytes(b"\xff\xfe\x00"), ": Invalid JSON"),
    "nested": (lambda path: path.write_text("[" * 100_000), ": Invalid JSON"),
    "another program's": (lambda path: path.write_text('{"keys": ["ctrl+c"]}'), ", format: Field required"),
    "a list": (lambda path: path.write_text("[]"), ": Input should be an object"),
    "a later format": (edited(format=2), ", format: Input should be 1, it is 2"),
    "a budget of 0": (edited(budget_tokens=0), ", budget_tokens: Input should be greater than 0"),
    "a type that is none": (edited(dtype="float12"), ", dtype: Input should be 'float32'"),
    "an instruction that is no text": (edited(instruction=None), ", instruction: Input should be a valid string"),
    "a field of nobody's": (edited(colour="red"), ", colour: Extra inputs are not permitted"),
    "half of a character": (
        lambda path: path.write_text(path.read_text().replace("Write a", "Write \\ud800")),
        ": Invalid JSON",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_settings_are_one_line(adapter: Path, damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = adapter.parent / "document.txt"
    document.write_text("The zinc was 41.")
    change, reason = DAMAGES[damage]
    change(adapter / SETTINGS_FILE)
    assert main([str(adapter), "--document", str(document), "--question", "What was the zinc?"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: adapter '{adapter}': {SETTINGS_FILE}{reason}") and "\n" not in error


def test_settings_that_are_a_folder_are_one_line(adapter: Path) -> None:
    (adapter / SETTINGS_FILE).unlink()
    (adapter / SETTINGS_FILE).mkdir()
    with pytest.raises(ModelError, match=f"{SETTINGS_FILE} cannot be read: "):
        read_adapter(adapter)
