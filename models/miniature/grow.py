"""Widens a trained member into a larger one that computes the same (Net2Net, Chen et al. 2016), to be trained on.

Every hidden unit is there twice, so that norms see what they saw; new heads and new feed-forward units start random on
their way in and at nothing on their way out.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

NOISE = 0.02
"""Of each parameter's own spread: what is there twice would stay the same twice without it."""


@torch.no_grad()
def widen(small: PreTrainedModel, large: PreTrainedModel, noise: float = NOISE) -> None:
    """Write the function of ``small`` into ``large``: twice as wide, as deep, with heads of the same size.

    Raises:
        ValueError: the sizes are others than that.
    """
    one, two = small.config, large.config
    head, wide_head = (config.hidden_size // config.num_attention_heads for config in (one, two))
    fits = two.hidden_size == 2 * one.hidden_size and two.num_hidden_layers == one.num_hidden_layers
    if not fits or head != wide_head or two.intermediate_size < one.intermediate_size:
        raise ValueError(
            f"a model of width {one.hidden_size} and {one.num_hidden_layers} layers grows into one twice as wide, as "
            f"deep and with heads of {head}, not into width {two.hidden_size}, {two.num_hidden_layers} layers, heads "
            f"of {wide_head}"
        )
    large.model.embed_tokens.weight.copy_(twice(small.model.embed_tokens.weight, 1))
    # Logits are sums over all units, each of which is there twice.
    large.model.norm.weight.copy_(twice(small.model.norm.weight, 0) / 2)
    for source, target in zip(small.model.layers, large.model.layers, strict=True):
        for name in ("input_layernorm", "post_attention_layernorm"):
            getattr(target, name).weight.copy_(twice(getattr(source, name).weight, 0))
        for name in ("q_proj", "k_proj", "v_proj"):
            widen_input(getattr(source.self_attn, name), getattr(target.self_attn, name))
        for name in ("gate_proj", "up_proj"):
            widen_input(getattr(source.mlp, name), getattr(target.mlp, name))
        widen_output(source.self_attn.o_proj, target.self_attn.o_proj)
        widen_output(source.mlp.down_proj, target.mlp.down_proj)
    for parameter in large.parameters():
        if parameter.ndim > 1:
            parameter.add_(torch.randn_like(parameter) * parameter.std() * noise)


def twice(values: Tensor, dimension: int) -> Tensor:
    """The values behind themselves."""
    return torch.cat([values, values], dim=dimension)


def widen_input(source: nn.Linear, target: nn.Linear) -> None:
    """The first outputs of ``target`` are those of ``source`` when every input is there twice; the rest stays."""
    rows = source.out_features
    target.weight[:rows] = twice(source.weight, 1) / 2
    if source.bias is not None:
        target.bias[:rows] = source.bias


def widen_output(source: nn.Linear, target: nn.Linear) -> None:
    """Every output of ``source`` twice, from the first inputs of ``target`` alone."""
    target.weight.zero_()
    target.weight[:, : source.in_features] = twice(source.weight, 0)
