"""What MLX would compute otherwise than PyTorch is refused by name before a file is written; that needs no MLX."""

from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer, ByT5Tokenizer

from models.adapters import add_adapter
from models.export.mlx import write_mlx_adapter, write_mlx_model
from models.loading import load_model, load_tokenizer
from models.naming import MINIATURE_WEIGHTS, ModelError
from tests.models.tiny import tiny_model


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"use_dora": True}, "'model.layers.0.self_attn.q_proj' by Dora"),
        ({"target_modules": ["q_proj"], "modules_to_save": ["mlp"]}, "'model.layers.0.mlp' whole"),
        ({"target_modules": ["q_proj", "lm_head"]}, "'lm_head'"),
        ({"bias": "lora_only"}, "bias = 'lora_only'"),
        ({"lora_bias": True}, "bias to 'model.layers.0.self_attn.q_proj'"),
    ],
)
def test_an_adapter_that_mlx_cannot_compute_is_refused_by_name(
    settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    model = tiny_model("qwen2", tie_word_embeddings=False)
    lora = LoraConfig(**{"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear"} | settings)
    adapted = get_peft_model(model, lora)
    assert isinstance(adapted, PeftModel)
    with pytest.raises(ModelError, match=named):
        write_mlx_adapter(adapted, tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("architecture", "changes", "named"),
    [
        ("gpt_neox", {}, "type 'gpt_neox'"),
        ("mistral", {}, "sliding_window = 16"),
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}, "sliding_attention"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "'dynamic'"),
        (
            "llama",
            {
                "rope_parameters": {
                    "rope_type": "yarn",
                    "rope_theta": 1e4,
                    "factor": 2.0,
                    "original_max_position_embeddings": 16,
                    "attention_factor": 1.5,
                }
            },
            "attention_factor = 1.5",
        ),
    ],
)
def test_a_model_that_mlx_would_compute_otherwise_is_refused_by_name(
    architecture: str, changes: dict[str, Any], named: str, tmp_path: Path
) -> None:
    model, tokenizer = tiny_model(architecture, **changes), load_tokenizer("miniature/llama-medium")
    with pytest.raises(ModelError, match=named):
        write_mlx_model(model, tokenizer, tmp_path / "model")
    with pytest.raises(ModelError, match=named):
        write_mlx_adapter(add_adapter(model, 2, 4, 0.0, "all-linear", 0), tmp_path / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_that_is_not_merged_is_refused(tmp_path: Path) -> None:
    model = tiny_model("llama")
    add_adapter(model, 2, 4, 0.0, "all-linear", 0)
    with pytest.raises(ModelError, match="adapter on 'model.layers.0.self_attn.q_proj': merge it"):
        write_mlx_model(model, load_tokenizer("miniature/llama-medium"), tmp_path / "model")


def test_a_tokenizer_that_mlx_would_read_otherwise_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ByT5Tokenizer has no tokenizer.json"):
        write_mlx_model(tiny_model("qwen2"), ByT5Tokenizer(), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(str(MINIATURE_WEIGHTS / "qwen2-small"))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(ModelError, match="another tokenizer .*other pre_tokenizer"):
        write_mlx_model(tiny_model("qwen2"), tokenizer, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_fails_leaves_nothing_and_one_over_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = load_model("miniature/llama-medium")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(OSError, match="not empty"):
        write_mlx_model(model, tokenizer, tmp_path / "mine")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left.*model"):
        write_mlx_model(model, tokenizer, tmp_path / "model")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["mine", "mine/notes.txt"]
