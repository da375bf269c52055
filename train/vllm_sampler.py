"""vLLM as a sampler: its options, its messages, and the weights it is given."""

from collections.abc import Generator
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from trl.generation.vllm_generation import VLLMGeneration

from train.config import VllmConfig


def vllm_options(vllm: VllmConfig, end_token_id: int) -> dict[str, Any]:
    """vLLM in TRL's terms; a message ends with ``end_token_id`` alone, whatever else the model's own files end with."""
    return {
        "use_vllm": True,
        "vllm_mode": vllm.mode,
        "vllm_gpu_memory_utilization": vllm.gpu_memory_utilization,
        "vllm_max_model_length": vllm.max_model_tokens,
        "vllm_server_host": vllm.server_host,
        "vllm_server_port": vllm.server_port,
        "vllm_importance_sampling_correction": vllm.importance_sampling,
        "generation_kwargs": {"stop_token_ids": [end_token_id], "ignore_eos": True},
    }


def vllm_messages(
    generation: VLLMGeneration, prompt_ids: list[list[int]], group_size: int
) -> dict[str, list[list[Any]]]:
    """What vLLM writes to each of the prompts, which lie in groups of equal ones; TRL has sent it the weights before.

    Returns:
        ``completion_ids``, and ``logprobs`` of the tokens sampled, nats, None where vLLM had no number for one.
    """
    _, completion_ids, log_probs, _ = generation.generate(prompt_ids, images=None, num_generations=group_size)
    return {
        "completion_ids": [list(ids) for ids in completion_ids],
        "logprobs": [[sampled for sampled, *_ in message] for message in log_probs],
    }


@torch.no_grad()
def sampler_weights(model: PeftModel) -> Generator[tuple[str, Tensor], None, None]:
    """The weights vLLM samples with: every parameter under the base model's own name, adapted ones as merged copies.

    It takes the place of TRL's walk over the parameters, which merges the adapter into the base and out of it again at
    every step: rounding would move the frozen base, and with it the scorer. ZeRO's third stage, which that walk
    gathers for, is none of ours.
    """
    base = model.get_base_model()
    adapted = {name: module for name, module in base.named_modules() if isinstance(module, LoraLayer)}
    for name, parameter in base.named_parameters():
        if model.prefix in name:
            continue
        layer, _, kind = name.rpartition(".base_layer.")
        merged = _merged(adapted[layer], parameter) if kind == "weight" else parameter.detach()
        yield name.replace(".base_layer.", "."), merged


def _merged(layer: LoraLayer, weight: Tensor) -> Tensor:
    """A copy of the weight with the active adapters' updates, rounded once."""
    total = weight.float()
    for adapter in layer.active_adapters:
        if adapter in layer.scaling:
            total = total + layer.get_delta_weight(adapter)  # pyright: ignore[reportAttributeAccessIssue]
    return total.to(weight.dtype)
