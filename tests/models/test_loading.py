"""Models load by member, folder or hub name; whatever cannot be loaded is one line that names it."""

from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from models import loading, naming
from models.fingerprint import parameter_hash
from models.loading import check_window, context_window, fastest_dtype, load_model, torch_type
from models.miniature.tokenizer import train_tokenizer
from models.naming import ModelError


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights with one member, ``small``."""
    folder = tmp_path_factory.mktemp("weights")
    tokenizer = train_tokenizer(["some words to learn from"] * 4, 280)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder / "small")
    tokenizer.save_pretrained(folder / "small")
    return folder


def hub_that_fails(error: Exception) -> type:
    class Hub:
        def model_info(self, name: str, revision: str | None, timeout: float) -> None:
            raise error

    return Hub


def test_a_folder_gives_model_and_tokenizer_in_the_asked_type(family: Path) -> None:
    model, tokenizer = load_model(str(family / "small"), dtype="float32")
    assert model.dtype == torch.float32
    assert not model.training
    assert tokenizer.decode(tokenizer.encode("some words ü")) == "some words ü"
    assert load_model(str(family / "small"), dtype="auto")[0].dtype == fastest_dtype("cpu")
    assert load_model(str(family / "small"), dtype=torch.float16)[0].dtype == torch.float16


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ({"avx2": True, "avx512_f": True}, torch.float32),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"avx2": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({"neon": True}, torch.float32),
    ],
)
def test_auto_is_bfloat16_on_processors_that_multiply_it_in_hardware(
    processor: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    assert torch_type("auto", "cpu") == fastest_dtype("cpu") == expected
    assert torch_type("float32", "cpu") == torch.float32 and torch_type("bfloat16", "cpu") == torch.bfloat16


def test_a_family_member_loads_by_its_name(family: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "MINIATURE_WEIGHTS", family)
    member, _ = load_model("miniature/small")
    assert parameter_hash(member) == parameter_hash(load_model(str(family / "small"))[0])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OfflineModeIsEnabled("offline"), r"the hub is switched off \(HF_HUB_OFFLINE\)"),
        (OSError("no route\nto host"), r"the hub cannot be reached \(no route to host\)"),
        (loading.HTTPError("Name not known"), r"the hub cannot be reached \(Name not known\)"),
        (HFValidationError("bad"), "not a well-formed hub id"),
    ],
)
def test_a_hub_model_out_of_reach_is_one_line(error: Exception, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "HfApi", hub_that_fails(error))
    with pytest.raises(ModelError, match=f"^model 'nobody/nothing': no such folder.*{reason}$"):
        load_model("nobody/nothing")


def test_an_empty_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the folder has no config.json") as caught:
        load_model(str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_that_are_incomplete_or_broken_are_refused(family: Path, tmp_path: Path) -> None:
    for file in (family / "small").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights, among them 'model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_model(str(tmp_path))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(str(tmp_path))


def test_an_unknown_type_of_number_is_refused(family: Path) -> None:
    for name in ("float33", "int8", "nn"):
        with pytest.raises(ModelError, match=f"dtype '{name}' is not a floating-point type"):
            load_model(str(family / "small"), dtype=name)


def test_the_window_is_the_longest_sequence_a_model_takes() -> None:
    config = LlamaConfig(max_position_embeddings=128)
    config.name_or_path = "some/model"
    check_window(config, 128)
    with pytest.raises(ModelError, match="'some/model' takes 128 tokens and was to read 129"):
        check_window(config, 129)
    assert context_window(config) == 128
