"""A model that the engine does not compute as its own plain pass does is refused by name before it is used."""

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from models.loading import context_window
from models.naming import ModelError
from models.shared_prefix import Continuation, batched_message_log_probs, decoding, generate, require_agreement
from models.shared_prefix.attention import share_prefixes
from models.shared_prefix.layout import Layout
from tests.models.tiny import tiny_model

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MODERNBERT = {"local_attention": 16} | {
    f"{name}_token_id": n for n, name in enumerate(("pad", "cls", "sep", "bos", "eos"))
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0 + 0.01 * n for n in range(8)],
    "long_factor": [1.0 + 3.0 * n for n in range(8)],
    "original_max_position_embeddings": 64,
}


def built(model_type: str, **fields: Any) -> PreTrainedModel:
    """A random model whose layers matter: what it reads shows in its log-probabilities."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[model_type](**SIZES | fields)).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim >= 2 and parameter.std() < 0.05:
                parameter.normal_(std=0.15)
    return model


@pytest.mark.parametrize("family", ["qwen2", "llama", "mistral", "gemma3", "gpt_neox"])
def test_models_that_the_engine_computes_agree(family: str) -> None:
    require_agreement(tiny_model(family))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_types_of_less_precision_agree_within_their_rounding(dtype: torch.dtype) -> None:
    model = tiny_model("qwen2")
    torch.nn.Module.to(model, dtype)
    require_agreement(model)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("diffllama", {}),
        ("nemotron", {"head_dim": 16}),
        ("falcon", {"num_kv_heads": 2, "new_decoder_architecture": True, "alibi": False, "bias": False}),
        ("gemma2", {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}),
        ("modernbert-decoder", MODERNBERT),
        ("gpt_oss", {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
    ],
)
def test_an_architecture_that_would_be_wrong_is_refused_by_name_for_scores_and_replies(
    model_type: str, fields: dict[str, Any]
) -> None:
    model = built(model_type, **fields)
    for use in (
        lambda: require_agreement(model),
        lambda: batched_message_log_probs(model, [[5, 6, 7]], [[Continuation([8], [9])]]),
        lambda: generate(model, [[5, 6, 7]], 4, 96),
    ):
        with pytest.raises(ModelError, match=model_type) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_frequencies_that_follow_the_length_are_read_up_to_their_switch() -> None:
    model = built("phi3", original_max_position_embeddings=64, rope_parameters=LONGROPE)
    assert context_window(model.config) == 64
    prefixes = [list(range(5, 35)), list(range(5, 50))]
    scores = batched_message_log_probs(model, prefixes, [[Continuation([3], [7, 8, 9])]] * 2)
    for prefix, (row,) in zip(prefixes, scores, strict=True):
        ids = torch.tensor([[*prefix, 3, 7, 8, 9]])
        with torch.no_grad():
            plain = model(ids, use_cache=False).logits[0].log_softmax(-1)[-4:-1].gather(1, ids[0, -3:, None])[:, 0]
        assert torch.allclose(row, plain, atol=1e-4)
    with pytest.raises(ModelError, match="beyond 64 tokens and was to read 65"):
        generate(model, [list(range(1, 62))], 4, 96)
    with pytest.raises(ModelError, match="beyond 64 tokens"):
        batched_message_log_probs(model, [list(range(1, 62))], [[Continuation([3], [7, 8, 9])]])


def test_an_engine_that_hides_a_piece_of_the_context_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = Layout.pieces
    monkeypatch.setattr(Layout, "pieces", lambda *arguments: pieces(*arguments)[:-1])
    # A configuration of its own: what agreed before is not compared again.
    with pytest.raises(ModelError, match="log-probabilities"):
        require_agreement(built("llama", rms_norm_eps=1.1e-6))


def test_an_engine_that_forgets_its_context_while_it_writes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    attend = decoding._attend

    def forgetful(query: Any, key: Any, value: Any, mask: Any, scale: float) -> Any:
        out, lse = attend(query, key, value, mask, scale)
        return out, lse.clamp(max=lse.mean())

    monkeypatch.setattr(decoding, "_attend", forgetful)
    with pytest.raises(ModelError, match="replies"):
        require_agreement(built("llama", rms_norm_eps=1.2e-6))


def test_the_check_leaves_no_trace() -> None:
    model = built("llama", rms_norm_eps=1.3e-6).train()
    share_prefixes(model)
    before = model.config._attn_implementation
    require_agreement(model)
    assert model.training and model.config._attn_implementation == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.get_input_embeddings()._forward_hooks
