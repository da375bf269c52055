"""Adapters on embedded models that change much, as they come out of PEFT's files, and their parity with a runtime."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import PreTrainedModel

from models.adapters import load_adapter, read_adapter, save_adapter
from models.compressor import Compressor
from models.export.runtime import Runtime
from models.loading import load_model
from models.shared_prefix import generate

MEMBERS = ("qwen2-small", "llama-medium")

TOKENS = 40
"""Tokens that are written after each prompt."""

TOLERANCE = 1e-3
"""Nats between the log-probabilities of two programs in float32."""

PLAIN: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"}

ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": PLAIN,
    "rsLoRA": PLAIN | {"use_rslora": True},
    "patterns": PLAIN
    | {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 6},
        "alpha_pattern": {"o_proj": 3, "layers.0.mlp.up_proj": 24},
    },
}
"""Adapters whose modules have other scales than alpha / rank says, and one that has not."""

TEXTS = (
    "Who keeps the archive?",
    "The box in room 1234 weighs 3.5 kg.",
    "From: Maria Lopez\nTo: all\nThe meeting moves to Tuesday.",
    "Question: where did Tom leave his keys? Answer:",
    "a",
    "It's 12:45, and the train's late; don't wait.",
    "  two blanks, a tab\tand a café",
    "The budget of Orion is 250, that of Lyra is 310, and that of Vega is 95.",
    "<|end|> is a token, and so is <|pad|>.",
    "Write the shortest note from which this question can be answered.",
)


def trained(member: str, settings: dict[str, Any], folder: Path, std: float = 0.1, budget: int = 40) -> PeftModel:
    """An adapter that changes much, saved with its settings as a run does, and read back."""
    model, tokenizer = load_model(f"miniature/{member}")
    compressor = Compressor(model, tokenizer, budget)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    assert isinstance(adapted, PeftModel)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=std)
    compressor.model = adapted
    remembered = compressor.settings(f"miniature/{member}", None, "")
    save_adapter(adapted, tokenizer, folder, f"miniature/{member}", settings=remembered)
    return load_adapter(load_model(f"miniature/{member}")[0], read_adapter(folder), member)


def prompts_of(member: str) -> list[list[int]]:
    """Ten prompts, of one token to some thirty."""
    _, tokenizer = load_model(f"miniature/{member}")
    return [[0, *tokenizer.encode(text)] for text in TEXTS]


def log_probs_of(model: PreTrainedModel | PeftModel, prompt: list[int]) -> Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)


def difference(model: PreTrainedModel | PeftModel, runtime: Runtime, prompts: list[list[int]]) -> float:
    """The largest difference of a log-probability, nats."""
    gaps = [(log_probs_of(model, prompt) - runtime.next_log_probs(prompt)).abs().max() for prompt in prompts]
    return float(torch.stack(gaps).max())


def check_parity(model: PreTrainedModel | PeftModel, prompts: list[list[int]], *runtimes: Runtime) -> None:
    """Equal greedy tokens after every prompt, and log-probabilities within the tolerance there and 39 tokens later."""
    no_end = -1
    expected = [reply.token_ids for reply in generate(model, prompts, TOKENS, no_end)]
    assert {len(tokens) for tokens in expected} == {TOKENS}
    continued = prompts + [prompt + tokens[:-1] for prompt, tokens in zip(prompts, expected, strict=True)]
    for runtime in runtimes:
        assert [runtime.greedy(prompt, TOKENS) for prompt in prompts] == expected
        found = difference(model, runtime, continued)
        print(f"largest difference of a log-probability: {found:.1e} nats")
        assert found < TOLERANCE
