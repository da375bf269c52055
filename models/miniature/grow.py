"""Widens a trained member into a larger one that computes the same (Net2Net, Chen et al. 2016), to be trained on.

Every hidden unit is doubled, so that norms see the statistics they saw before. New heads and new feed-forward units
keep their random input weights and start with output weights of 0.
"""

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

NOISE = 0.02
"""Noise that is added to each weight matrix, as a share of its standard deviation: without it, units that start equal
get equal gradients and stay equal."""


@torch.no_grad()
def widen(small: PreTrainedModel, large: PreTrainedModel, noise: float = NOISE) -> None:
    """Write the function of ``small`` into ``large``: twice as wide, as deep, with heads of the same size.

    Raises:
        ValueError: ``large`` has another width, depth or head size, or fewer feed-forward units.
    """
    _check_sizes(small, large)
    large.model.embed_tokens.weight.copy_(repeated(small.model.embed_tokens.weight, 1))
    # Logits are sums over all units, each of which is there twice.
    large.model.norm.weight.copy_(repeated(small.model.norm.weight, 0) / 2)
    for source, target in zip(small.model.layers, large.model.layers, strict=True):
        for name in ("input_layernorm", "post_attention_layernorm"):
            getattr(target, name).weight.copy_(repeated(getattr(source, name).weight, 0))
        for name in ("q_proj", "k_proj", "v_proj"):
            widen_input(getattr(source.self_attn, name), getattr(target.self_attn, name))
        for name in ("gate_proj", "up_proj"):
            widen_input(getattr(source.mlp, name), getattr(target.mlp, name))
        widen_output(source.self_attn.o_proj, target.self_attn.o_proj)
        widen_output(source.mlp.down_proj, target.mlp.down_proj)
    for parameter in large.parameters():
        if parameter.ndim > 1:
            parameter.add_(torch.randn_like(parameter) * parameter.std() * noise)


def repeated(values: Tensor, dimension: int) -> Tensor:
    """The values twice in a row along a dimension."""
    return torch.cat([values, values], dim=dimension)


def widen_input(source: nn.Linear, target: nn.Linear) -> None:
    """Give the first outputs of ``target`` the values of ``source`` for doubled inputs; its other outputs stay."""
    rows = source.out_features
    target.weight[:rows] = repeated(source.weight, 1) / 2
    if source.bias is not None:
        target.bias[:rows] = source.bias


def widen_output(source: nn.Linear, target: nn.Linear) -> None:
    """Give ``target`` every output of ``source`` twice, computed from its first inputs alone."""
    target.weight.zero_()
    target.weight[:, : source.in_features] = repeated(source.weight, 0)


def _check_sizes(small: PreTrainedModel, large: PreTrainedModel) -> None:
    """Refuse a model that the small one cannot be written into.

    Raises:
        ValueError: see `widen`.
    """
    narrow, wide = small.config, large.config
    head, wide_head = (config.hidden_size // config.num_attention_heads for config in (narrow, wide))
    fits = wide.hidden_size == 2 * narrow.hidden_size and wide.num_hidden_layers == narrow.num_hidden_layers
    if not fits or head != wide_head or wide.intermediate_size < narrow.intermediate_size:
        raise ValueError(
            f"a model of width {narrow.hidden_size} and {narrow.num_hidden_layers} layers grows into one twice as "
            f"wide, as deep, with heads of {head} and at least {narrow.intermediate_size} feed-forward units, not into "
            f"width {wide.hidden_size}, {wide.num_hidden_layers} layers, heads of {wide_head}, "
            f"{wide.intermediate_size} feed-forward units"
        )
