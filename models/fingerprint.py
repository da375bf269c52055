"""Fingerprints of parameters, which show what a run changed and what it left alone."""

import hashlib
from collections.abc import Callable

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
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        if include is None or include(name, parameter):
            digest.update(f"{name} {parameter.dtype} {tuple(parameter.shape)}\n".encode())
            values = parameter.detach().cpu().contiguous().reshape(-1)
            digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def is_trainable(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter takes part in training."""
    return parameter.requires_grad


def is_base(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter belongs to no LoRA adapter; TRL may add a frozen adapter called ``ref``."""
    return ".lora_" not in name
