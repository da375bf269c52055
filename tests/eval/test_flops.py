"""Operations against sums done by hand and against an operation counter run on a real model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, PreTrainedConfig, Qwen2Config

from eval.analysis.flops import Cost, DecoderSize, cost, decoder_size, generation_flops, prefill_flops, token_flops
from models.loading import load_model

# Qwen2-0.5B: 24 layers of 14 heads of 64, 151,936 x 896 embeddings, which also are the projection.
TIED, UNTIED = (
    Qwen2Config(
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        vocab_size=151_936,
        tie_word_embeddings=tied,
    )
    for tied in (True, False)
)
QWEN2_TABLE = 151_936 * 896
# Query and output 896 x 896 (query with a bias), key and value 896 x 128 with a bias, three of 896 x 4864, two norms.
QWEN2_LAYER = 2 * 896 * 896 + 896 + 2 * (896 * 128 + 128) + 3 * 896 * 4864 + 2 * 896
QWEN2_PARAMETERS = QWEN2_TABLE + 24 * QWEN2_LAYER + 896


def counted(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


def test_the_size_of_qwen2_half_a_billion_is_that_of_its_published_config() -> None:
    assert counted(TIED) == QWEN2_PARAMETERS == 494_032_768
    assert decoder_size(TIED, QWEN2_PARAMETERS) == DecoderSize(494_032_768, QWEN2_TABLE, 24, 896)


def test_a_token_of_qwen2_costs_what_the_formula_says() -> None:
    size = decoder_size(TIED, QWEN2_PARAMETERS)
    # 2 x 494,032,768 = 988,065,536 and 2 x 24 x 1000 x 896 = 43,008,000
    assert token_flops(size, 1000) == 1_031_073_536


def test_the_input_table_of_an_untied_model_costs_nothing() -> None:
    assert counted(UNTIED) == QWEN2_PARAMETERS + QWEN2_TABLE
    assert decoder_size(UNTIED, counted(UNTIED)) == decoder_size(TIED, counted(TIED))


def test_a_reply_costs_the_sum_of_its_tokens() -> None:
    size = DecoderSize(parameters=1000, projection=200, layers=3, attention_width=16)
    # Contexts 10, 11, 12 and 13: 4 x 2000 + 2 x 3 x 16 x 46
    assert generation_flops(size, 10, 4) == 8000 + 96 * 46 == sum(token_flops(size, 10 + i) for i in range(4))


def test_a_prompt_costs_the_sum_of_its_tokens_without_their_projections() -> None:
    size = DecoderSize(parameters=1000, projection=200, layers=3, attention_width=16)
    assert prefill_flops(size, 5) == sum(token_flops(size, 1 + i) - 2 * 200 for i in range(5)) == 8000 + 96 * 15


def test_a_cost_keeps_prefill_and_generation_apart() -> None:
    size = DecoderSize(parameters=1000, projection=200, layers=3, attention_width=16)
    assert cost(size, 5, 4) == Cost(9440, 8000 + 96 * 26, (8000 + 96 * 26) / 4)
    assert cost(size, 5, 4).as_dict() == {
        "prefill_flops": 9440,
        "generation_flops": 10_496,
        "flops_per_generated_token": 2624.0,
    }


def test_the_cost_of_a_prompt_agrees_with_torchs_operation_counter() -> None:
    model, _ = load_model("miniature/llama-medium")
    model.set_attn_implementation("eager")  # torch does not count the fused kernel of the CPU
    size = decoder_size(model.config, model.num_parameters())
    tokens = 64
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.base_model(torch.arange(5, 5 + tokens)[None], use_cache=False)
    # torch counts the whole square of attention twice (scores and values): 4·layers·tokens²·d_attn.
    square = 4 * 2 * tokens**2 * size.attention_width
    triangle = 2 * 2 * size.attention_width * tokens * (tokens + 1) // 2
    matrices = counter.get_total_flops() - square
    # Norms and biases count as parameters and are no matrix products.
    assert 0 <= prefill_flops(size, tokens) - triangle - matrices < 0.01 * matrices


def test_a_head_width_of_its_own_is_taken_from_the_config() -> None:
    config = LlamaConfig(hidden_size=64, num_attention_heads=2, head_dim=128, vocab_size=10, num_hidden_layers=1)
    assert decoder_size(config, 100_000).attention_width == 256


def test_a_mixture_of_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="experts=8: a token uses a part"):
        decoder_size(MixtralConfig(), 10**12)


def test_a_config_without_a_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="hidden_size=None"):
        decoder_size(PreTrainedConfig(), 100)


def test_fewer_parameters_than_the_tables_hold_are_refused() -> None:
    with pytest.raises(ValueError, match="494 parameters cannot hold"):
        decoder_size(TIED, 494)


def test_a_cost_of_no_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="0 generated"):
        cost(DecoderSize(1000, 200, 3, 16), 5, 0)
