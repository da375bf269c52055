"""Adapted linear layers compute what PEFT's do, with float32 adapters beside a base in any type."""

from collections.abc import Iterator
from contextlib import contextmanager

import peft
import pytest
import torch
from peft import PeftModel

from models.adapters import add_adapter
from models.loading import load_model
from models.lora_linear import LoraLinear
from models.shared_prefix import Continuation, token_scores

MODEL = "miniature/qwen2-small"
PROMPT, MESSAGES = list(range(5, 45)), [[7, 8, 9, 10], [11, 12]]


def adapted(dtype: str, dropout: float = 0.0) -> PeftModel:
    model = add_adapter(load_model(MODEL, dtype)[0], 4, 8, dropout, "all-linear", seed=0)
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@contextmanager
def as_peft_computes(model: PeftModel) -> Iterator[None]:
    layers = [module for module in model.modules() if type(module) is LoraLinear]
    assert layers
    for layer in layers:
        layer.__class__ = peft.tuners.lora.Linear  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        for layer in layers:
            layer.__class__ = LoraLinear


def scored(model: PeftModel) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of all tokens, and the gradient of their sum, of all of the adapter's parameters."""
    continuations = [Continuation(PROMPT[-1:], message) for message in MESSAGES]
    (scores,) = token_scores(model, [PROMPT[:-1]], [continuations], entropies=False)
    log_probs = torch.cat([score.log_probs for score in scores])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(log_probs.sum(), trained)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}
    return log_probs.detach(), torch.cat([gradient.flatten() for gradient in gradients])


def test_log_probs_and_gradients_are_those_of_pefts_own_layers() -> None:
    model = adapted("float32")
    log_probs, gradients = scored(model)
    with as_peft_computes(model):
        expected, references = scored(model)
    torch.testing.assert_close(log_probs, expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(gradients, references, atol=1e-4 * float(references.abs().max()), rtol=0)


def test_in_bfloat16_an_adapter_stays_float32_and_its_gradients_are_as_exact_as_pefts() -> None:
    exact_log_probs, exact = scored(adapted("float32"))
    model = adapted("bfloat16")
    assert {p.dtype for n, p in model.named_parameters() if ".lora_" in n} == {torch.float32}
    log_probs, gradients = scored(model)
    with as_peft_computes(model):
        _, references = scored(model)
    assert log_probs.dtype == torch.float32
    torch.testing.assert_close(log_probs, exact_log_probs, atol=0.15, rtol=0)
    ours, theirs = (float((found - exact).norm() / exact.norm()) for found in (gradients, references))
    assert ours < 1.2 * theirs < 0.12


@pytest.mark.parametrize("what", ["dropout", "disabled", "merged", "two adapters"])
def test_what_is_not_one_plain_adapter_goes_pefts_way(what: str) -> None:
    model = adapted("float32", 0.5 if what == "dropout" else 0.0)
    ids = torch.tensor([PROMPT])
    if what == "dropout":
        model.train()
    if what == "merged":
        model.merge_adapter()
    if what == "two adapters":
        add_adapter(model, 2, 4, 0.0, "all-linear", seed=2, name="second")
        model.base_model.set_adapter(["default", "second"])  # pyright: ignore[reportCallIssue]

    def logits() -> torch.Tensor:
        torch.manual_seed(3)
        if what == "disabled":
            with model.disable_adapter():
                return model(input_ids=ids).logits
        return model(input_ids=ids).logits

    found = logits()
    with as_peft_computes(model):
        assert torch.equal(found, logits())


def test_with_dropout_off_or_in_evaluation_the_products_are_used() -> None:
    model = adapted("float32", dropout=0.5).eval()
    found = scored(model)[0]
    with as_peft_computes(model):
        expected = scored(model)[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
