"""Builds a member of the family: a stock transformers model, initialised so that lookup of a value by its key forms.

Mimetic initialisation (Trockman and Kolter 2023): attention starts where it has to go, a first layer that smears the
last tokens over each position, then layers that match like with like.
"""

import math
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from models.miniature.members import WINDOW, Member

ROPE_THETA = 1e6
"""RoPE's base, in the configuration and in the biases that make it peak."""

SMEARED = 3
"""How many tokens back the first layer looks at the start, one head for each."""


def build_member(member: Member, vocabulary: int, pad: int, end: int) -> PreTrainedModel:
    """A stock transformers model of the member's size, initialised for lookup.

    Args:
        member: its sizes and its seed.
        vocabulary: tokens of the tokenizer.
        pad: id of the padding token.
        end: id of the token that ends a turn.
    """
    shared: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": member.width,
        "intermediate_size": member.feed_forward,
        "num_hidden_layers": member.layers,
        "num_attention_heads": member.heads,
        "num_key_value_heads": member.heads,
        "max_position_embeddings": WINDOW,
        "tie_word_embeddings": True,
        "initializer_range": 0.06,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "pad_token_id": pad,
        "eos_token_id": end,
        "bos_token_id": None,
    }
    torch.manual_seed(member.seed)
    if member.architecture == "qwen2":
        model: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(**shared))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shared, attention_bias=True))
    initialise_for_lookup(model, member)
    return model


@torch.no_grad()
def initialise_for_lookup(model: PreTrainedModel, member: Member, scale: float = 0.7, bias: float = 2.5) -> None:
    """Start attention near a smear-then-match circuit: equal query and key maps, value and output maps that cancel.

    In the first layer, biases on queries and keys make RoPE peak one to ``SMEARED`` tokens back.

    Args:
        model: the model; its attention weights are overwritten.
        member: its sizes.
        scale: size of the value and output maps, 1 being orthogonal.
        bias: size of the biases that make RoPE peak.
    """
    size = member.width // member.heads
    half = size // 2
    frequencies = ROPE_THETA ** (-torch.arange(half) / half)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        for head in range(member.heads):
            rows = slice(head * size, (head + 1) * size)
            matching = torch.randn(size, member.width) / math.sqrt(member.width) * 1.5
            smears = index == 0 and head < SMEARED
            attention.q_proj.weight[rows] = attention.k_proj.weight[rows] = matching * (0.2 if smears else 1.0)
            if smears:
                offset = head + 1
                start = head * size
                attention.q_proj.bias[start : start + half] = bias
                attention.k_proj.bias[start : start + half] = bias * torch.cos(offset * frequencies)
                attention.k_proj.bias[start + half : start + size] = bias * torch.sin(offset * frequencies)
        orthogonal = torch.linalg.qr(torch.randn(member.width, member.width))[0]
        if index == 0:
            # Smeared tokens share one subspace, so that a key is found again whatever its distance was.
            orthogonal[: SMEARED * size] = orthogonal[:size].repeat(SMEARED, 1)
        attention.v_proj.weight.copy_(orthogonal * scale)
        attention.o_proj.weight.copy_(orthogonal.T * scale)
