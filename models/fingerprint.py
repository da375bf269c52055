"""Fingerprints of parameters, which show what a run changed and what it left alone."""

import hashlib
from collections.abc import Callable, Iterable
from operator import itemgetter

import torch
from torch import nn


def parameter_hash(model: nn.Module, include: Callable[[str, nn.Parameter], bool] | None = None) -> str:
    """SHA-256 over names, types, shapes and bytes of parameters, to show which ones a run changed.

    Args:
        model: any module; shared parameters count once.
        include: which parameters count, by name and parameter; all of them without it.

    Returns:
        The hex digest; the same on every device.
    """
    named = sorted(model.named_parameters(), key=itemgetter(0))
    return _hash((name, parameter) for name, parameter in named if include is None or include(name, parameter))


def base_hash(model: nn.Module, dtype: torch.dtype) -> str:
    """SHA-256 over a base model as it is in a floating-point type: the same with and without adapters on it.

    Args:
        model: a causal LM, with or without adapters.
        dtype: what its floating-point parameters are converted to.
    """
    named = [(_plain_name(name), tensor) for name, tensor in model.named_parameters() if is_base(name, tensor)]
    # Converted one by one as they are hashed, so that no second copy of the model is held.
    converted = (
        (name, tensor.detach().to(dtype) if tensor.is_floating_point() else tensor)
        for name, tensor in sorted(named, key=itemgetter(0))
    )
    return _hash(converted)


def _hash(tensors: Iterable[tuple[str, torch.Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain_name(name: str) -> str:
    """A parameter's name in the model itself, where PEFT has wrapped the model and the layers that it adapts."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def is_trainable(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter takes part in training."""
    return parameter.requires_grad


def is_base(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter belongs to no LoRA adapter; TRL may add a frozen adapter called ``ref``."""
    return ".lora_" not in name
