"""vLLM as a sampler: its options, its messages, and the weights it is given.

vLLM gets the same token ids as the policy itself, in which a document cannot forge a control token, the same budget and
the same end token. This is written for TRL 1.16 and tested around a stand-in for vLLM's engine; it has been run neither
with vLLM itself nor on a GPU.
"""

from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer, ParamWrapper
from torch import Tensor
from trl.generation.vllm_generation import VLLMGeneration

from train.config import VllmConfig


def vllm_options(vllm: VllmConfig, end_token_id: int) -> dict[str, Any]:
    """The section in TRL's terms; ``end_token_id`` alone ends a message, whatever else the model's files name."""
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
    generation: VLLMGeneration, prompt_ids: Sequence[list[int]], group_size: int
) -> dict[str, list[list[Any]]]:
    """What vLLM writes to each prompt; TRL has sent it the present weights before.

    Args:
        generation: TRL's backend.
        prompt_ids: a prompt for each message; the equal prompts of a group lie next to each other.
        group_size: messages of a group.

    Returns:
        ``completion_ids``, and ``logprobs`` of the sampled tokens in nats, None where vLLM gave no number.
    """
    _, completion_ids, log_probs, _ = generation.generate(list(prompt_ids), images=None, num_generations=group_size)
    return {
        "completion_ids": [list(ids) for ids in completion_ids],
        "logprobs": [[sampled for sampled, *_ in message] for message in log_probs],
    }


def send_merged_weights(generation: VLLMGeneration, model: PeftModel) -> None:
    """Have TRL's backend send `sampler_weights`, in the place of its own walk over the parameters."""
    generation._iter_named_params = partial(sampler_weights, model)


@torch.no_grad()
def sampler_weights(model: PeftModel) -> Generator[tuple[str, Tensor], None, None]:
    """The weights vLLM samples with: every parameter under the base model's own name, adapted ones as merged copies.

    TRL's own walk over the parameters merges the adapter into the base and out of it again at every step: rounding
    would move the frozen base, and with it the scorer. That walk also gathers for ZeRO's third stage, which
    ``train.zero_stage`` does not offer.
    """
    base = model.get_base_model()
    modules = dict(base.named_modules())
    for name, parameter in base.named_parameters():
        if model.prefix in name:
            continue
        # The adapter of a fused parameter, such as all experts of a layer, wraps the module that holds it; several
        # wrap each other.
        outer, *wrapped = name.split(".base_layer")
        layers = [modules[outer + ".base_layer" * depth] for depth in range(len(wrapped))]
        updates = [layer for layer in layers if isinstance(layer, LoraLayer) and _adapts(layer, name)]
        yield name.replace(".base_layer", ""), _merged(updates, parameter)


def _adapts(layer: LoraLayer, name: str) -> bool:
    return name.rpartition(".")[2] == (layer.parameter_name if isinstance(layer, ParamWrapper) else "weight")


def _merged(layers: Sequence[LoraLayer], weight: Tensor) -> Tensor:
    """A copy of the weight with the active adapters' updates, rounded once; the weight itself where there are none."""
    if not layers:
        return weight.detach()
    total = weight.float()
    for layer in layers:
        for adapter in layer.active_adapters:
            if adapter in layer.scaling:
                total = total + layer.get_delta_weight(adapter)  # pyright: ignore[reportAttributeAccessIssue]
    return total.to(weight.dtype)
