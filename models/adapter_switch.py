"""Several adapters on one base model: which of them a pass goes through, and which of them learns.

PEFT's own ``set_adapter`` makes the adapter that it names trainable and all others not, so that an optimizer that
holds one of them loses its gradients. Here the adapter at work changes for as long as it is used, and nothing else
does: not what trains, not what another context has switched off.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn


def adapter_parameters(model: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters of one LoRA adapter of a model, in the order of their names; empty where it has none so called."""
    named = sorted(model.named_parameters(), key=lambda item: item[0])
    return [parameter for path, parameter in named if belongs_to(path, name)]


def belongs_to(path: str, adapter: str) -> bool:
    """Whether a parameter is one of an adapter's, by its path in the model."""
    return ".lora_" in path and adapter in path.split(".")


@contextmanager
def adapter_at_work(model: nn.Module, name: str, trains: bool = False) -> Iterator[None]:
    """Let a model compute with one of its adapters alone, in evaluation mode; all is put back afterwards.

    Args:
        model: a model that holds the adapter, with or without PEFT's wrapper; its adapters may be switched off.
        name: what the model calls the adapter.
        trains: whether this adapter's parameters require gradients meanwhile, in training mode, and no others do;
            without it none is changed.

    Raises:
        ValueError: the model has no adapter of this name.
    """
    own = adapter_parameters(model, name)
    if not own:
        raise ValueError(f"the model has no adapter {name!r}")
    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    former = [(layer, layer._active_adapter, layer._disable_adapters) for layer in layers]
    modes = [(module, module.training) for module in model.modules()]
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for layer in layers:
            layer._active_adapter, layer._disable_adapters = [name], False
        model.train(trains)
        if trains:
            for parameter, _ in gradients:
                parameter.requires_grad_(False)
            for parameter in own:
                parameter.requires_grad_(True)
        yield
    finally:
        for layer, active, disabled in former:
            layer._active_adapter, layer._disable_adapters = active, disabled
        for module, training in modes:
            module.training = training
        for parameter, required in gradients:
            parameter.requires_grad_(required)
