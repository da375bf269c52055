"""Attention over trees equals attention under one mask, and a model that cannot read them is refused."""

from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

from models.naming import ModelError
from models.shared_prefix.attention import masked_attention, share_prefixes, shared_prefix_attention
from models.shared_prefix.layout import Layout
from tests.models.shared_prefix.forest import forest, seen_columns
from tests.models.tiny import ARCHITECTURES, tiny_model


def tensors(columns: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value; a head of the keys serves two of the query."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, columns, 8, requires_grad=True) for heads in (4, 2, 2))
    return query, key, value


@pytest.mark.parametrize("window", [None, 1000, 120, 7])
@pytest.mark.parametrize("way", ["merged", "masked"])
def test_a_forest_is_attended_to_as_under_its_mask(window: int | None, way: str) -> None:
    tree_pass = forest()
    query, key, value = tensors(len(tree_pass.ids))
    layout = Layout(tree_pass.segments, torch.device("cpu"))
    keys, values = key.repeat_interleave(2, dim=1), value.repeat_interleave(2, dim=1)
    expected = scaled_dot_product_attention(query, keys, values, attn_mask=seen_columns(tree_pass, window))
    if way == "merged":
        options: dict[str, Any] = {"sliding_window": window, "layout": layout}
        attended = shared_prefix_attention(nn.Module(), query, key, value, None, **options)[0].transpose(1, 2)
    else:
        attended = masked_attention(query, keys, values, layout, window, 0.0, None)
    torch.testing.assert_close(attended, expected, atol=1e-5, rtol=0)
    weights = torch.randn_like(expected)
    inputs = [query, key, value]
    references = torch.autograd.grad((expected * weights).sum(), inputs, retain_graph=True)
    gradients = torch.autograd.grad((attended * weights).sum(), inputs)
    for gradient, reference in zip(gradients, references, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-4, rtol=1e-4)


def test_a_layout_knows_whether_attention_reached_it() -> None:
    tree_pass = forest()
    layout = Layout(tree_pass.segments, torch.device("cpu"))
    assert not layout.reached
    query, key, value = tensors(len(tree_pass.ids))
    shared_prefix_attention(nn.Module(), query, key, value, None, layout=layout)
    assert layout.reached


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_that_can_read_trees_reads_plain_sequences_as_before(architecture: str) -> None:
    ids = torch.arange(40)[None]
    model = tiny_model(architecture)
    with torch.no_grad():
        before = model(ids).logits
        assert share_prefixes(model) is model
        torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=0)


def test_the_wrapper_of_an_adapter_is_taken_off() -> None:
    model = tiny_model("llama")
    adapted = get_peft_model(model, LoraConfig(target_modules="all-linear"))
    assert share_prefixes(cast(PeftModel, adapted)) is model


def test_a_model_with_recurrent_layers_is_refused() -> None:
    config = Qwen3NextConfig(vocab_size=97, hidden_size=32, intermediate_size=32, num_hidden_layers=4)
    config.update({"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "num_experts": 2})
    with torch.device("meta"):
        model = Qwen3NextForCausalLM(config)
    with pytest.raises(ModelError, match="qwen3_next: layers with linear_attention cannot share a prefix"):
        share_prefixes(model)


def test_layers_that_cut_a_sequence_into_chunks_are_refused() -> None:
    model = tiny_model("llama")
    model.config.attention_chunk_size = 8
    with pytest.raises(ModelError, match="llama: layers with chunked attention cannot share a prefix"):
        share_prefixes(model)


@pytest.mark.parametrize("option", ["softcap", "s_aux", "position_bias"])
def test_what_no_fused_kernel_here_computes_is_refused(option: str) -> None:
    tree_pass = forest()
    layout = Layout(tree_pass.segments, torch.device("cpu"))
    options: dict[str, Any] = {"layout": layout, option: 30.0}
    query, key, value = tensors(len(tree_pass.ids))
    with pytest.raises(ModelError, match=f"Module attends with {option}, which shared prefixes do not"):
        shared_prefix_attention(nn.Module(), query, key, value, None, **options)
