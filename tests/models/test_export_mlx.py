"""mlx-lm itself, from the exported files, computes what PyTorch does: the same greedy tokens, log-probs within 1e-3."""

import copy
import json
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from models.adapters import merge_adapter
from models.export.mlx import MLX_ADAPTER, write_mlx_adapter, write_mlx_model
from models.export.mlx_runtime import Mlx
from models.loading import load_model, load_tokenizer
from models.naming import ADAPTER_CONFIG, MINIATURE_WEIGHTS, ModelError
from tests.models.exported import (
    ADAPTERS,
    MEMBERS,
    PLAIN,
    TEXTS,
    TOLERANCE,
    check_parity,
    difference,
    log_probs_of,
    trained,
)
from tests.models.tiny import SIZE, tiny_model

pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

VISIBLE = 0.1
"""How far a mistake in the files moves some log-prob at the least: a hundred times what parity allows."""

CASES = {"base": None, **ADAPTERS}
PARTIAL: dict[str, dict[str, Any]] = {
    "some modules": PLAIN | {"target_modules": ["v_proj", "down_proj"]},
    "the first block": PLAIN | {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0]},
    "the last block": PLAIN | {"target_modules": ["o_proj", "up_proj"], "layers_to_transform": [1]},
    "others in each block": PLAIN | {"target_modules": r".*\.(0\.self_attn\.q_proj|1\.mlp\.gate_proj)"},
}


class Exported(NamedTuple):
    """A model with an adapter as PEFT's files hold it, and what is written for MLX."""

    adapted: PeftModel
    adapter: Path


class Base(NamedTuple):
    """An embedded model, as it is exported without an adapter."""

    member: str
    tokenizer: PreTrainedTokenizerBase
    folder: Path
    prompts: list[list[int]]

    def model(self) -> PreTrainedModel:
        return load_model(f"miniature/{self.member}")[0]

    def export(self, settings: dict[str, Any], folder: Path) -> Exported:
        """An adapter that changes much, written for MLX."""
        adapted = trained(self.member, settings, folder / "peft")
        write_mlx_adapter(adapted, folder / "mlx")
        return Exported(adapted, folder / "mlx")


@pytest.fixture(scope="module", params=MEMBERS)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Base:
    model, tokenizer = load_model(f"miniature/{request.param}")
    folder = tmp_path_factory.mktemp(request.param) / "base"
    write_mlx_model(model, tokenizer, folder)
    return Base(request.param, tokenizer, folder, [[0, *tokenizer.encode(text)] for text in TEXTS])


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may reach for the hub."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def running() -> Iterator[Callable[..., Mlx]]:
    """Starts MLX on folders, and closes it after the test."""
    started: list[Mlx] = []

    def run(model: Path, adapter: Path | None = None) -> Mlx:
        started.append(Mlx(model, adapter))
        return started[-1]

    yield run
    for runtime in started:
        runtime.close()


@pytest.mark.parametrize("case", CASES)
def test_mlx_computes_what_pytorch_does(base: Base, case: str, tmp_path: Path, running: Callable[..., Mlx]) -> None:
    settings = CASES[case]
    if settings is None:
        check_parity(base.model(), base.prompts, running(base.folder))
        return
    exported = base.export(settings, tmp_path)
    through_files = running(base.folder, exported.adapter)
    merged = merge_adapter(copy.deepcopy(exported.adapted))
    write_mlx_model(merged, base.tokenizer, tmp_path / "merged")
    check_parity(exported.adapted, base.prompts, through_files, running(tmp_path / "merged"))


@pytest.mark.parametrize("case", PARTIAL)
def test_an_adapter_on_some_modules_or_blocks_is_the_same_in_mlx(
    base: Base, case: str, tmp_path: Path, running: Callable[..., Mlx]
) -> None:
    exported = base.export(PARTIAL[case], tmp_path)
    runtime, prompts = running(base.folder, exported.adapter), base.prompts[:3]
    assert difference(base.model(), runtime, prompts) > VISIBLE
    assert difference(exported.adapted, runtime, prompts) < TOLERANCE
    described = json.loads((exported.adapter / ADAPTER_CONFIG).read_text())
    assert described["num_layers"] == (1 if case == "the last block" else 2)
    assert described["lora_parameters"] | {"keys": None} == {"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": None}


def transpose(adapter: Path) -> None:
    """The product of one square layer is transposed, which fits it as well."""
    path = "model.layers.0.self_attn.v_proj.lora_"
    weights = load_file(adapter / MLX_ADAPTER)
    a, b = weights[f"{path}a"].T.contiguous(), weights[f"{path}b"].T.contiguous()
    assert a.shape == weights[f"{path}b"].shape
    save_file(weights | {f"{path}a": b, f"{path}b": a}, adapter / MLX_ADAPTER)


def scale(adapter: Path) -> None:
    """PEFT's scale beside factors that it is folded into."""
    described = json.loads((adapter / ADAPTER_CONFIG).read_text())
    described["lora_parameters"]["scale"] = 2.0
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(described))


def test_mistakes_in_the_files_are_seen(base: Base, tmp_path: Path, running: Callable[..., Mlx]) -> None:
    """Each moves a log-prob a hundred times further than parity allows."""
    found = {}
    for mistake in (None, transpose, scale):
        folder = tmp_path / (mistake.__name__ if mistake else "right")
        exported = base.export(PLAIN, folder)
        if mistake is None:
            found["left out"] = difference(exported.adapted, running(base.folder), base.prompts)
            found["right"] = difference(exported.adapted, running(base.folder, exported.adapter), base.prompts)
            continue
        mistake(exported.adapter)
        runtime = running(base.folder, exported.adapter)
        found[mistake.__name__] = difference(exported.adapted, runtime, base.prompts)
    print({what: f"{size:.1e}" for what, size in found.items()})
    assert found.pop("right") < TOLERANCE
    assert min(found.values()) > VISIBLE


def test_a_base_of_the_rotary_embedding_that_mlx_does_not_find_is_seen(
    base: Base, tmp_path: Path, running: Callable[..., Mlx]
) -> None:
    config = json.loads((shutil.copytree(base.folder, tmp_path / "model") / "config.json").read_text())
    assert config.pop("rope_theta") == 1e6 and str(MINIATURE_WEIGHTS) not in json.dumps(config)
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert difference(base.model(), running(tmp_path / "model"), base.prompts) > VISIBLE


def test_the_exported_folder_is_one_for_transformers_too(base: Base) -> None:
    model, tokenizer = load_model(str(base.folder))
    assert model.dtype == torch.float32
    assert torch.equal(log_probs_of(model, base.prompts[1]), log_probs_of(base.model(), base.prompts[1]))
    assert [[0, *tokenizer.encode(text)] for text in TEXTS] == base.prompts


def test_mlx_has_the_models_tokenizer_template_and_float32(base: Base, running: Callable[..., Mlx]) -> None:
    runtime = running(base.folder)
    assert [[0, *runtime.tokenizer.encode(text)] for text in TEXTS] == base.prompts
    messages = [{"role": "user", "content": TEXTS[1]}]
    asked = {"conversation": messages, "add_generation_prompt": True, "tokenize": False}
    assert runtime.tokenizer.apply_chat_template(**asked) == base.tokenizer.apply_chat_template(**asked)
    assert list(runtime.tokenizer.eos_token_ids) == [base.tokenizer.eos_token_id]
    weights = load_file(base.folder / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32} and "lm_head.weight" not in weights
    assert runtime.next_log_probs([5]).dtype == torch.float32
    assert "mlx-lm 0." in runtime.name


def test_bfloat16_stays_bfloat16(tmp_path: Path, running: Callable[..., Mlx]) -> None:
    model, tokenizer = load_model("miniature/qwen2-small", "bfloat16")
    write_mlx_model(model, tokenizer, tmp_path / "model")
    assert {tensor.dtype for tensor in load_file(tmp_path / "model" / "model.safetensors").values()} == {torch.bfloat16}
    found = difference(model, running(tmp_path / "model"), [[0, *tokenizer.encode(text)] for text in TEXTS])
    assert TOLERANCE < found < 0.5


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn"])
def test_scaled_rotary_embeddings_are_the_same_in_mlx(rope: str, tmp_path: Path, running: Callable[..., Mlx]) -> None:
    settings: dict[str, Any] = {"rope_type": rope, "rope_theta": 5000.0, "factor": 4.0}
    if rope != "linear":
        settings["original_max_position_embeddings"] = 16
    if rope == "llama3":
        settings |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    check_tiny(tiny_model("llama", rope_parameters=settings, vocab_size=1536), tmp_path / "model", running)


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "mistral", "smollm3"])
def test_other_architectures_are_the_same_in_mlx(
    architecture: str, tmp_path: Path, running: Callable[..., Mlx]
) -> None:
    torch.manual_seed(0)
    size = SIZE | {"num_key_value_heads": 2, "vocab_size": 1536, "tie_word_embeddings": False}
    models: dict[str, Callable[[], PreTrainedModel]] = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**size)),
        "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**size, head_dim=32)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**size, sliding_window=None)),
        "smollm3": lambda: SmolLM3ForCausalLM(SmolLM3Config(**size, pad_token_id=0, no_rope_layers=[1, 0])),
    }
    # Read as transformers reads any of Qwen2, without a look at what the files say.
    tokenizer = AutoTokenizer.from_pretrained(str(MINIATURE_WEIGHTS / "qwen2-small"))
    check_tiny(models[architecture]().eval(), tmp_path / "model", running, tokenizer)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["model_type"] == architecture


def check_tiny(
    model: PreTrainedModel,
    folder: Path,
    running: Callable[..., Mlx],
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> None:
    write_mlx_model(model, tokenizer or load_tokenizer("miniature/llama-medium"), folder)
    prompts = torch.randint(0, 1536, (3, 50), generator=torch.Generator().manual_seed(0)).tolist()
    assert difference(model, running(folder), prompts) < TOLERANCE


def test_a_runtime_says_in_one_line_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="'Qwen/Qwen2.5-0.5B' is no folder with config.json"):
        Mlx(Path("Qwen/Qwen2.5-0.5B"))
    member = MINIATURE_WEIGHTS / "llama-medium"
    with pytest.raises(ModelError, match="is no folder with adapter_config.json"):
        Mlx(member, tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="MLX cannot load .*"):
        Mlx(tmp_path)
    monkeypatch.setitem(sys.modules, "mlx_lm", None)
    with pytest.raises(ModelError, match=r"MLX is not installed .*pip install 'mlx\[cpu\]' mlx-lm") as refused:
        Mlx(member)
    assert "\n" not in str(refused.value)
