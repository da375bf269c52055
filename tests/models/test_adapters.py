"""Adapters are added, saved and loaded by name, and whatever is wrong with one is one line that names it."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedModel, PreTrainedTokenizerBase

from models.adapters import add_adapter, load_adapter, merge_adapter, read_adapter, save_adapter
from models.compress import main
from models.fingerprint import parameter_hash
from models.loading import load_model
from models.naming import ADAPTER_CONFIG, WEIGHTS_FILE, ModelError
from models.shared_prefix import Continuation, token_scores

MODEL = "miniature/qwen2-small"
IDS = torch.tensor([[5, 6, 7, 8, 9]])


def at_work(adapted: PeftModel, seed: int = 1) -> PeftModel:
    """The adapted model with random weights where fresh ones are 0, so that every adapter of it does something."""
    torch.manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return adapted


def logits(model: PreTrainedModel | PeftModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def base() -> PreTrainedModel:
    return load_model(MODEL)[0]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_model(MODEL)[1]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> Path:
    """A run's folder with an adapter in ``compressor``."""
    folder = tmp_path_factory.mktemp("run")
    save_adapter(at_work(add_adapter(base(), 4, 8, 0.0, "all-linear", 0)), tokenizer, folder / "compressor", MODEL)
    return folder


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """A copy of the adapter that a test may damage."""
    return Path(shutil.copytree(saved / "compressor", tmp_path / "adapter"))


def test_a_fresh_adapter_changes_nothing_and_is_all_that_trains() -> None:
    model = base()
    before = logits(model)
    adapted = add_adapter(model, 4, 8, 0.0, ["q_proj", "v_proj"], seed=0)
    assert torch.equal(logits(adapted), before)
    assert all(".lora_" in name for name, parameter in adapted.named_parameters() if parameter.requires_grad)


def test_a_seed_repeats_a_fresh_adapter() -> None:
    hashes = [parameter_hash(add_adapter(base(), 4, 8, 0.0, "all-linear", seed)) for seed in (0, 0, 1)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_saved_adapter_loads_bit_for_bit_and_frozen(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    trained = at_work(add_adapter(base(), 4, 8, 0.0, "all-linear", 0)).eval()
    save_adapter(trained, tokenizer, tmp_path / "compressor", MODEL)
    assert {path.name for path in (tmp_path / "compressor").iterdir()} >= {
        ADAPTER_CONFIG,
        WEIGHTS_FILE,
        "tokenizer.json",
    }
    stored = read_adapter(tmp_path / "compressor")
    assert stored.base == MODEL
    loaded = load_adapter(base(), stored, MODEL)
    assert parameter_hash(loaded) == parameter_hash(trained)
    assert torch.equal(logits(loaded), logits(trained))
    assert not loaded.training and not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_base_holds_two_adapters_each_saved_and_loaded_by_its_name(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    both = add_adapter(base(), 4, 8, 0.0, "all-linear", seed=0)
    first = {name for name, parameter in both.named_parameters() if parameter.requires_grad}
    assert add_adapter(both, 2, 8, 0.0, "all-linear", seed=1, name="predictor") is both
    assert both.active_adapters == ["default"]
    assert {name for name, parameter in both.named_parameters() if parameter.requires_grad} == first
    at_work(both).eval()
    expected = {}
    for name in ("default", "predictor"):
        both.set_adapter(name)
        expected[name] = logits(both)
        save_adapter(both, tokenizer, tmp_path / name, MODEL, name)
    assert not torch.equal(expected["default"], expected["predictor"])
    assert sorted(path.name for path in (tmp_path / "predictor").glob("adapter_*")) == [ADAPTER_CONFIG, WEIGHTS_FILE]
    alone = load_adapter(base(), read_adapter(tmp_path / "predictor"), MODEL)
    assert torch.equal(logits(alone), expected["predictor"])
    loaded = load_adapter(base(), read_adapter(tmp_path / "default"), MODEL)
    assert load_adapter(loaded, read_adapter(tmp_path / "predictor"), MODEL, "predictor") is loaded
    assert torch.equal(logits(loaded), expected["default"])
    loaded.set_adapter("predictor")
    assert torch.equal(logits(loaded), expected["predictor"])


def test_a_name_is_given_once(saved: Path) -> None:
    adapted = add_adapter(base(), 4, 8, 0.0, "all-linear", 0)
    with pytest.raises(ValueError, match="has an adapter 'default' already"):
        add_adapter(adapted, 4, 8, 0.0, "all-linear", 0)
    with pytest.raises(ValueError, match="has an adapter 'default' already"):
        load_adapter(adapted, read_adapter(saved / "compressor"), MODEL)


@pytest.mark.parametrize("target", [["nothing"], "nothing", "*["])
def test_layers_that_a_model_does_not_have_are_named(target: str | list[str]) -> None:
    with pytest.raises(ModelError, match=r"^target_modules .* name no layers of the model: "):
        add_adapter(base(), 4, 8, 0.0, target, 0)


Damage = Callable[[Path], object]
"""Does something to an adapter's folder."""


def edit_config(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        fields = json.loads((folder / ADAPTER_CONFIG).read_text())
        change(fields)
        (folder / ADAPTER_CONFIG).write_text(json.dumps(fields))

    return damage


def edit_weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    def damage(folder: Path) -> None:
        # Cloned, for the file that is written is the one that the tensors are a view of.
        weights = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS_FILE).items()}
        save_file(change(weights), folder / WEIGHTS_FILE, metadata={"format": "pt"})

    return damage


def cut(file: str, size: int) -> Damage:
    return lambda folder: os.truncate(folder / file, size)


def half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weights[name] for name in sorted(weights)[: len(weights) // 2]}


def renamed(weights: dict[str, torch.Tensor], old: str, new: str) -> dict[str, torch.Tensor]:
    return {name.replace(old, new): tensor.clone() for name, tensor in weights.items()}


def not_finite(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    min(weights.items())[1][0, 0] = torch.nan
    return weights


def a_thousand_times(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: 1000 * tensor for name, tensor in weights.items()}


def both(one: Damage, other: Damage) -> Damage:
    return lambda folder: (one(folder), other(folder))


def as_utf16(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).write_text((folder / ADAPTER_CONFIG).read_text(), encoding="utf-16")


def as_folder(folder: Path) -> None:
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).mkdir()


DAMAGES: dict[str, tuple[Damage, str]] = {
    "no configuration": (lambda folder: (folder / ADAPTER_CONFIG).unlink(), "no folder with an adapter_config.json"),
    "cut configuration": (cut(ADAPTER_CONFIG, 300), "adapter_config.json: Invalid JSON: EOF"),
    "empty configuration": (cut(ADAPTER_CONFIG, 0), "adapter_config.json: Invalid JSON"),
    "a list as configuration": (
        lambda f: (f / ADAPTER_CONFIG).write_text("[]"),
        "adapter_config.json: Input should be",
    ),
    "a configuration in UTF-16": (as_utf16, "adapter_config.json: Invalid JSON"),
    "another kind of adapter": (edit_config(lambda c: c.update(peft_type="IA3")), "adapter_config.json, peft_type: "),
    "no rank": (edit_config(lambda c: c.pop("r")), "adapter_config.json, r: Field required"),
    "rank 0": (edit_config(lambda c: c.update(r=0)), "adapter_config.json, r: Input should be greater than 0"),
    "a word as rank": (
        edit_config(lambda c: c.update(r="x")),
        "adapter_config.json, r: Input should be a valid integer",
    ),
    "a huge rank": (
        edit_config(lambda c: c.update(r=10**12)),
        "gives rank 1000000000000, and adapter_model.safetensors",
    ),
    "a scaling that is no number": (
        edit_config(lambda c: c.update(lora_alpha=float("nan"))),
        "adapter_config.json, lora_alpha: Input should be a finite number",
    ),
    "an infinite scaling of one layer": (
        edit_config(lambda c: c.update(alpha_pattern={"q_proj": float("inf")})),
        "adapter_config.json, alpha_pattern, q_proj: Input should be a finite number",
    ),
    "a scaling beyond float32": (
        edit_config(lambda c: c.update(lora_alpha=-1e300)),
        "adapter_config.json, lora_alpha: Value error, -1e+300 should be a number of float32, which end at 3.4e+38",
    ),
    "a scaling that makes weights infinite": (
        both(edit_config(lambda c: c.update(lora_alpha=3e38)), edit_weights(a_thousand_times)),
        "scaled by 7.5e+37, it has values that are not finite, in 'model.layers.0.",
    ),
    "layers without a name": (edit_config(lambda c: c.update(target_modules=3)), f"does not fit model {MODEL!r}: "),
    "layers by a broken pattern": (
        edit_config(lambda c: c.update(target_modules="*[")),
        f"does not fit model {MODEL!r}: ",
    ),
    "no weights": (lambda folder: (folder / WEIGHTS_FILE).unlink(), "holds no adapter_model.safetensors"),
    "a folder as weights": (as_folder, "holds no adapter_model.safetensors"),
    "torn weights": (cut(WEIGHTS_FILE, 1000), "adapter_model.safetensors cannot be read: "),
    "empty weights": (cut(WEIGHTS_FILE, 0), "adapter_model.safetensors cannot be read: "),
    "weights without a tensor": (edit_weights(lambda _: {}), "holds no matrices of a LoRA adapter"),
    "a single number as weights": (
        edit_weights(lambda _: {"model.lora_A.weight": torch.tensor(1.0)}),
        "holds no matrices of a LoRA adapter",
    ),
    "half of the tensors": (edit_weights(half), f"does not fit model {MODEL!r}: lacks 14 of 28 tensors, among them "),
    "no tensor of the base": (
        edit_weights(lambda weights: renamed(weights, ".layers.", ".blocks.")),
        f"does not fit model {MODEL!r}: lacks 28 of 28 tensors, among them ",
    ),
    "tensors of a deeper model": (
        edit_weights(lambda weights: weights | renamed(weights, ".layers.1.", ".layers.7.")),
        f"does not fit model {MODEL!r}: 14 tensors have no place in it, among them ",
    ),
    "values that are not finite": (edit_weights(not_finite), "holds values that are not finite, in 'base_model."),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_is_one_line_that_names_it(
    adapter: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    document = adapter.parent / "document.txt"
    document.write_text("The zinc was 41.")
    change, reason = DAMAGES[damage]
    change(adapter)
    assert main([str(adapter), "--document", str(document), "--question", "What was the zinc?"]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: adapter '{adapter}'") and "\n" not in error and "document.txt" not in error
    assert reason in error


def test_an_adapter_that_is_infinite_once_merged_is_refused() -> None:
    adapted = at_work(add_adapter(base(), 4, 8, 0.0, ["q_proj"], 0))
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            parameter.data.fill_(1e25)
    with pytest.raises(ModelError, match="cannot be merged into its base: "):
        merge_adapter(adapted)


def test_weights_of_another_base_do_not_fit(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, other = saved / "compressor", "miniature/qwen2-large"
    document = saved / "document.txt"
    document.write_text("The zinc was 41.")
    assert main([str(folder), "--document", str(document), "--question", "What?", "--model", other]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"error: adapter '{folder}' does not fit model '{other}': ") and "\n" not in error


def test_a_run_folder_is_told_from_the_adapter_in_it(saved: Path) -> None:
    with pytest.raises(ModelError, match=rf"no folder with an .*; did you mean '{saved}/compressor'\?$"):
        read_adapter(saved)


def test_an_adapter_in_the_home_folder_goes_by_a_tilde(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved))
    assert read_adapter("~/compressor").folder == saved / "compressor"


def test_the_base_drops_nothing_in_training() -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=97, n_embd=64, n_layer=2, n_head=4, n_positions=256)
    adapted = add_adapter(AutoModelForCausalLM.from_config(config), 4, 8, 0.0, "all-linear", 0).train()
    ids = [Continuation([3], [7, 8, 9])]
    first, second = (token_scores(adapted, [list(range(5, 45))], [ids])[0][0].log_probs for _ in range(2))
    assert torch.equal(first, second)
