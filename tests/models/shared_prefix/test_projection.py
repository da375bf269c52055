"""Logits from hidden states are those of the model itself, or the model is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedModel,
)

from models.naming import ModelError
from models.shared_prefix.projection import projection
from tests.models.tiny import ARCHITECTURES, SIZE, tiny_model

GROUPED: dict[str, Any] = SIZE | {"num_key_value_heads": 2, "head_dim": 16}
IDS = torch.tensor([[5, 6, 7, 8]])

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    **{architecture: lambda architecture=architecture: tiny_model(architecture) for architecture in ARCHITECTURES},
    "cohere, which scales": lambda: CohereForCausalLM(CohereConfig(**GROUPED, pad_token_id=0, logit_scale=0.2)),
    "granite, which divides": lambda: GraniteForCausalLM(GraniteConfig(**GROUPED, logits_scaling=3.0)),
    "gemma2, which caps": lambda: Gemma2ForCausalLM(Gemma2Config(**GROUPED, final_logit_softcapping=2.0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_projection_gives_the_logits_of_the_models_own_forward_pass(name: str) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    with torch.no_grad():
        hidden = model.base_model(input_ids=IDS).last_hidden_state[0]
        torch.testing.assert_close(projection(model)(hidden), model(IDS).logits[0], atol=1e-5, rtol=1e-5)


def test_logits_that_are_changed_in_an_unknown_way_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("qwen2")
    forward = model.forward

    def doubled(*arguments: Any, **options: Any) -> Any:
        output = forward(*arguments, **options)
        output.logits = 2 * output.logits
        return output

    monkeypatch.setattr(model, "forward", doubled)
    with pytest.raises(ModelError, match="qwen2 changes its logits in a way that is not known here"):
        projection(model)


def test_a_model_is_compared_with_its_own_forward_pass_once() -> None:
    model = tiny_model("qwen2")
    passes: list[int] = []
    model.register_forward_hook(lambda *_: passes.append(1))
    projection(model)
    projection(model)
    assert len(passes) == 1
