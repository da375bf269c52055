"""Adapters and merged models as the files that mlx-lm reads, the runner of language models on Apple's devices.

mlx-lm takes one scale and one rank for all modules of an adapter, the transposes of PEFT's factors, and module names
within a block; of a model it reads the folder that transformers writes. It ignores what it does not know in
``config.json``, so that a model loads and computes something else: see `require_computed`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from data.writing import whole_folder, write_json
from models.adapters import DEFAULT
from models.export.factors import Factors, lora_factors
from models.model_folder import CONFIG
from models.naming import ADAPTER_CONFIG, ModelError

MLX_ADAPTER = "adapters.safetensors"
"""mlx-lm's name of an adapter's tensors."""

_PLAIN = {"hidden_act": "silu", "layer_types": "full_attention"}

COMPUTED: dict[str, dict[str, Any]] = {
    "llama": _PLAIN,
    "mistral": _PLAIN | {"sliding_window": None},
    "qwen2": _PLAIN,
    "qwen3": _PLAIN,
    "smollm3": _PLAIN,
}
"""The architectures that mlx-lm 0.32 was found to compute as transformers does, by their model type, and for each what
mlx-lm computes with whatever ``config.json`` says."""

ROPE: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "beta_fast", "beta_slow", "original_max_position_embeddings"},
}
"""The kinds of rotary embedding that mlx-lm was found to compute as transformers does, and the settings it reads."""

_OF_QWEN2 = ("model_type", "architectures", "attention_bias", "transformers_version")
"""Settings of a Qwen2 that a Llama has its own of."""

_IN_BLOCK = re.compile(r"model\.layers\.(\d+)\.(.+)")


def require_computed(config: PreTrainedConfig) -> None:
    """Refuse a model that mlx-lm does not have, or would compute otherwise than transformers does.

    Raises:
        ModelError: the message names the architecture, or the setting that mlx-lm passes over.
    """
    kind = config.model_type
    if kind not in COMPUTED:
        raise ModelError(f"a model of type {kind!r} is not written for MLX; there are {', '.join(sorted(COMPUTED))}")
    for field, computed in COMPUTED[kind].items():
        value = getattr(config, field, None)
        for given in value if isinstance(value, list) else [computed if value is None else value]:
            if given != computed:
                raise ModelError(f"{kind} with {field} = {given!r}: MLX would compute it as {computed!r}")
    rope = _rope(config)
    if (rope_type := rope["rope_type"]) not in ROPE:
        raise ModelError(f"{kind} with rope_type = {rope_type!r} is not written for MLX; there are {', '.join(ROPE)}")
    # All of each head is turned by MLX: the same as a part of 1.
    known = ROPE[rope_type] | {"rope_type", "rope_theta"}
    for field, value in rope.items():
        if field not in known and value is not None and (field, value) != ("partial_rotary_factor", 1.0):
            raise ModelError(f"{kind} with {rope_type} RoPE and {field} = {value!r}, which MLX passes over")


def write_mlx_adapter(adapted: PeftModel, folder: Path, name: str = DEFAULT) -> None:
    """An adapter as the folder that mlx-lm takes as ``adapter_path``, for the base it was trained on.

    All scales are folded into the factors and the scale of the file is 1, so that MLX adds exactly ``b @ a``. The file
    has one rank, the largest, and all its modules in the last blocks, as many as the adapter reaches back to: what is
    less is filled with zeros, which add nothing.

    Args:
        adapted: a model with the adapter, as `models.adapters.load_adapter` gives it.
        folder: where it goes; made, with those above it.
        name: which adapter of the model.

    Raises:
        ModelError: MLX cannot compute what the adapter does, or not on this base; nothing is written.
        OSError: there are files in the folder already, or it cannot be written.
    """
    base = cast(PreTrainedModel, adapted.get_base_model())
    require_computed(base.config)
    blocks = _by_block(lora_factors(adapted, name))
    layers, keys = base.config.num_hidden_layers, sorted({key for block in blocks.values() for key in block})
    rank = max(factors.rank for block in blocks.values() for factors in block.values())
    tensors: dict[str, Tensor] = {}
    for index in range(min(blocks), layers):
        for key in keys:
            path = f"model.layers.{index}.{key}"
            factors = blocks.get(index, {}).get(key) or _nothing(base, path)
            filled = factors.of_rank(rank)
            tensors[f"{path}.lora_a"] = filled.a.T.contiguous()
            tensors[f"{path}.lora_b"] = filled.b.T.contiguous()
    parameters = {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": keys}
    described = {"fine_tune_type": "lora", "num_layers": layers - min(blocks), "lora_parameters": parameters}
    with whole_folder(folder) as partial:
        save_file(tensors, partial / MLX_ADAPTER, metadata={"format": "mlx"})
        write_json(partial / ADAPTER_CONFIG, described)


def write_mlx_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """A model as the folder that ``mlx_lm.load`` reads, weights in the type they are in, and tokenizer.

    It stays a folder for transformers too, which computes the same from it.

    Args:
        model: a plain one; an adapter is merged into it before, see `models.adapters.merge_adapter`.
        tokenizer: the model's, chat template included.
        folder: where it goes; made, with those above it.

    Raises:
        ModelError: MLX would compute something else, or split text otherwise; nothing is written.
        OSError: there are files in the folder already, or it cannot be written.
    """
    for path, module in cast(nn.Module, model).named_modules():
        if isinstance(module, BaseTunerLayer):
            raise ModelError(f"the model has an adapter on {path!r}: merge it before the model is written")
    require_computed(model.config)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{type(tokenizer).__name__} has no tokenizer.json, which MLX reads")
    # Whoever loads the folder by transformers' AutoTokenizer, as mlx-lm does, gets Qwen's way to split text for any
    # model of the type qwen2, whatever its files say.
    if model.config.model_type == "qwen2" and type(tokenizer).__name__ != "Qwen2Tokenizer":
        model = _as_llama(model)
    with whole_folder(folder) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        config = json.loads((partial / CONFIG).read_text(encoding="utf-8"))
        write_json(partial / CONFIG, config | _flat_rope(model.config))
        _require_same_splits(tokenizer, partial)


def _by_block(factors: list[Factors]) -> dict[int, dict[str, Factors]]:
    """Factors by the number of their block, and by the path within it."""
    blocks: dict[int, dict[str, Factors]] = {}
    for one in factors:
        if (found := _IN_BLOCK.fullmatch(one.module)) is None:
            raise ModelError(f"the adapter changes {one.module!r}, and MLX adapts modules of the blocks alone")
        blocks.setdefault(int(found[1]), {})[found[2]] = one
    return blocks


def _nothing(base: PreTrainedModel, path: str) -> Factors:
    """Factors of rank 1 that add nothing to a linear layer."""
    layer = cast(nn.Linear, cast(nn.Module, base).get_submodule(path))
    return Factors(path, torch.zeros(1, layer.in_features), torch.zeros(layer.out_features, 1))


def _rope(config: PreTrainedConfig) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], config.rope_parameters)


def _flat_rope(config: PreTrainedConfig) -> dict[str, Any]:
    """The settings of the rotary embedding under the names of earlier versions of transformers, which mlx-lm reads.

    Without them it takes a base of its own.
    """
    rope = dict(_rope(config))
    return {"rope_theta": rope["rope_theta"]} | ({"rope_scaling": rope} if rope["rope_type"] != "default" else {})


def _as_llama(model: PreTrainedModel) -> PreTrainedModel:
    """A Qwen2 as the Llama that computes the same: one with biases, of which those of the output projection are 0."""
    given = model.config.to_dict()
    shared = {key: given[key] for key in LlamaConfig().to_dict() if key in given and key not in _OF_QWEN2}
    with torch.device("meta"):
        llama = LlamaForCausalLM(LlamaConfig(**shared, attention_bias=True))
    weights = dict(cast(nn.Module, model).state_dict())
    for index in range(model.config.num_hidden_layers):
        output = f"model.layers.{index}.self_attn.o_proj"
        weights[f"{output}.bias"] = torch.zeros_like(weights[f"{output}.weight"][:, 0])
    llama.load_state_dict(weights, assign=True)
    llama.tie_weights()
    llama.generation_config = model.generation_config
    return llama.eval()


def _require_same_splits(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Refuse a folder from which mlx-lm would load another tokenizer than the model was trained with."""
    loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    own, read = (json.loads(cast(Any, one).backend_tokenizer.to_str()) for one in (tokenizer, loaded))
    for part in ("normalizer", "pre_tokenizer", "model", "post_processor", "decoder", "added_tokens"):
        if own[part] != read[part]:
            kinds = f"{type(loaded).__name__} in place of {type(tokenizer).__name__}"
            raise ModelError(f"MLX would load another tokenizer from the folder ({kinds}, other {part})")
