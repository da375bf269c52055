"""Models and LoRA adapters as GGUF files, which llama.cpp reads; written with the ``gguf`` package of its makers.

The format and the names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. On the Llama architecture
llama.cpp turns pairs of neighbouring dimensions where transformers turns the two halves of a head, so rows of the
query and key projections are reordered, and with them the second factor of their LoRA; on Qwen2 they are not.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import gguf
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from models.export.factors import Factors
from models.export.gguf_tokenizer import write_tokenizer
from models.naming import ModelError

ARCHITECTURES = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}
"""What is written, by transformers' ``model_type``; llama.cpp has the same two names."""

Packing = Literal["f32", "f16", "q8_0", "q4_1", "q4_0"]
"""How the matrices of a file are stored: 32, 16, 8.5, 5 or 4.5 bits a weight. Vectors stay in float32."""

PACKINGS: dict[Packing, tuple[gguf.GGMLQuantizationType, gguf.LlamaFileType]] = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_1": (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}


FOUR_BITS = ("q4_1", "q4_0")

VOCABULARY = ("token_embd.weight", "output.weight")
"""What stays in 8.5 bits in a file of 4-bit weights, as in llama.cpp's own: every token goes through them twice, and in
small models they are most of what is lost."""


def check_architecture(config: PreTrainedConfig) -> None:
    """Refuse a model that no GGUF file is written of.

    Raises:
        ModelError: its architecture is another, or its positions are scaled in a way that is not written.
    """
    if config.model_type not in ARCHITECTURES:
        raise ModelError(f"architecture {config.model_type!r}: GGUF files are written of {' and '.join(ARCHITECTURES)}")
    if (kind := _rope(config).get("rope_type", "default")) not in ("default", "llama3"):
        raise ModelError(f"positions scaled by rope_type = {kind!r}: default and llama3 are written")
    if config.model_type == "llama" and getattr(config, "mlp_bias", False):
        raise ModelError("mlp_bias = true: llama.cpp's Llama has no bias there")
    if getattr(config, "use_sliding_window", False):
        raise ModelError("use_sliding_window = true: llama.cpp's Qwen2 reads whole windows alone")


def write_model(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    packing: Packing,
    end_token_id: int,
    template: str,
    name: str,
) -> None:
    """A model with its tokenizer and the chat template it is used with.

    Args:
        path: the file.
        model: a plain model, without an adapter.
        tokenizer: the model's.
        packing: how matrices are stored; a matrix whose rows do not divide into blocks of 32 is stored as f16.
        end_token_id: the token that ends a reply.
        template: see `models.export.prompt`.
        name: what the file says it is.

    Raises:
        ModelError: the architecture or the tokenizer has no form in llama.cpp that is known here.
        OSError: the file cannot be written.
    """
    config = model.config
    check_architecture(config)
    writer = gguf.GGUFWriter(None, config.model_type)
    writer.add_name(name)
    writer.add_file_type(PACKINGS[packing][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _write_shape(writer, config)
    rows = cast(nn.Embedding, model.get_input_embeddings()).weight.shape[0]
    writer.add_vocab_size(rows)
    write_tokenizer(writer, tokenizer, rows, end_token_id, template)
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    tied = bool(getattr(config, "tie_word_embeddings", False))
    for key, tensor in cast(nn.Module, model).state_dict().items():
        if key == "lm_head.weight" and tied:
            continue
        array = reordered(key, tensor.detach().to("cpu", torch.float32), config).numpy()
        target = _gguf_name(names, key)
        _add(writer, target, array, "q8_0" if target in VOCABULARY and packing in FOUR_BITS else packing)
    if _rope(config).get("rope_type") == "llama3":
        _add(writer, "rope_freqs.weight", _frequency_factors(config), "f32")
    _finish(writer, path)


def write_lora(path: Path, factors: Sequence[Factors], config: PreTrainedConfig, name: str) -> None:
    """The factors of an adapter, to be loaded beside the file of its base.

    All have one rank and ``adapter.lora.alpha`` is that rank, so that llama.cpp's scale, alpha / rank, is 1.

    Args:
        path: the file.
        factors: of `models.export.factors.lora_factors`.
        config: the base's.
        name: what the file says it is.

    Raises:
        ModelError: the architecture is not written, or an adapted module has no LoRA in llama.cpp.
        OSError: the file cannot be written.
    """
    check_architecture(config)
    rank = max(part.rank for part in factors)
    writer = gguf.GGUFWriter(None, config.model_type)
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(name)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(rank))
    names = gguf.get_tensor_name_map(ARCHITECTURES[config.model_type], config.num_hidden_layers)
    for part in (part.of_rank(rank) for part in factors):
        key = f"{part.module}.weight"
        if key.startswith("model.embed_tokens"):
            raise ModelError(f"the adapter changes {part.module!r}, of which llama.cpp loads no LoRA: export it merged")
        target = _gguf_name(names, key)
        _add(writer, f"{target}.lora_a", part.a.numpy(), "f32")
        _add(writer, f"{target}.lora_b", reordered(key, part.b, config).numpy(), "f32")
    _finish(writer, path)


def reordered(key: str, tensor: Float[Tensor, "outputs ..."], config: PreTrainedConfig) -> Float[Tensor, "outputs ..."]:
    """A tensor with its rows in llama.cpp's order: those of Llama's query and key heads as pairs side by side.

    Args:
        key: its name in transformers.
        tensor: a weight, a bias, or the second factor of a LoRA.
        config: the model's.
    """
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    projection = key.split(".")[-2] if "." in key else ""
    if config.model_type != "llama" or projection not in heads:
        return tensor
    halves = tensor.reshape(heads[projection], 2, -1, *tensor.shape[1:])
    return halves.swapaxes(1, 2).reshape(tensor.shape).contiguous()


def _write_shape(writer: gguf.GGUFWriter, config: PreTrainedConfig) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(float(_rope(config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def _rope(config: PreTrainedConfig) -> dict[str, Any]:
    return dict(getattr(config, "rope_parameters", None) or {})


def _frequency_factors(config: PreTrainedConfig) -> np.ndarray:
    """By how much each frequency of Llama 3's positions is slowed down, as llama.cpp takes it."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = 1.0 / (_rope(config)["rope_theta"] ** (torch.arange(0, head, 2, dtype=torch.float32) / head))
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    return (plain / scaled).numpy().astype(np.float32)


def _gguf_name(names: gguf.TensorNameMap, key: str) -> str:
    module, _, kind = key.rpartition(".")
    name = names.get_name(module)
    if name is None or kind not in ("weight", "bias"):
        raise ModelError(f"tensor {key!r} has no place in llama.cpp's architecture")
    return f"{name}.{kind}"


def _add(writer: gguf.GGUFWriter, name: str, array: np.ndarray, packing: Packing) -> None:
    kind = PACKINGS[packing][0] if array.ndim > 1 else gguf.GGMLQuantizationType.F32
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    if array.shape[-1] % block:
        kind = gguf.GGMLQuantizationType.F16
    data = array if kind is gguf.GGMLQuantizationType.F32 else gguf.quants.quantize(array, kind)
    writer.add_tensor(name, np.ascontiguousarray(data), raw_dtype=kind)


def _finish(writer: gguf.GGUFWriter, path: Path) -> None:
    """Write the file whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        writer.write_header_to_file(partial)
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
