"""Random two-layer models of every architecture the engine is held against."""

from typing import Any

import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

ARCHITECTURES = ("qwen2", "llama", "mistral", "gemma3", "gpt_neox")
WINDOW = 16
"""Of Mistral and of one Gemma-3 layer: shorter than the prefixes in the tests."""

SIZE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
}


def tiny_model(architecture: str = "qwen2", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model in evaluation mode; ``changes`` are fields of its config."""
    torch.manual_seed(seed)
    size: dict[str, Any] = SIZE | changes
    grouped: dict[str, Any] = size | {"num_key_value_heads": 2}
    layers = ["sliding_attention", "full_attention"]
    models = {
        "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**grouped)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**grouped)),
        "mistral": lambda: MistralForCausalLM(MistralConfig(**grouped, sliding_window=WINDOW)),
        "gemma3": lambda: Gemma3ForCausalLM(
            Gemma3TextConfig(**grouped, head_dim=16, sliding_window=WINDOW, layer_types=layers)
        ),
        "gpt_neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**size)),
    }
    return models[architecture]().eval()
