"""What reading and writing cost: floating-point operations of a decoder, from its config and parameter count alone.

A token costs 2·parameters + 2·layers·context·d_attn (Kaplan et al. 2020, "Scaling laws for neural language models",
section 2.1): one multiplication and one addition for each parameter, and attention to the context. Softmax, norms'
reductions and activations are left out, as there.
"""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class DecoderSize:
    """What the operations of a decoder depend on.

    Attributes:
        parameters: those that a token is multiplied with, the vocabulary projection included.
        projection: parameters of the vocabulary projection among them: prompts need it at their last position only.
        layers: how many there are.
        attention_width: d_attn, query heads x head width; keys that query heads share are read by each of them.
    """

    parameters: int
    projection: int
    layers: int
    attention_width: int


@dataclass(frozen=True)
class Cost:
    """Floating-point operations of one prompt and one reply.

    Attributes:
        prefill: FLOPs of reading the prompt.
        generation: FLOPs of writing the reply.
        per_token: mean FLOPs of a token written.
    """

    prefill: int
    generation: int
    per_token: float

    def as_dict(self) -> dict[str, float]:
        """The form it has in ``results.json``."""
        return {
            "prefill_flops": self.prefill,
            "generation_flops": self.generation,
            "flops_per_generated_token": self.per_token,
        }


def decoder_size(config: PreTrainedConfig, parameters: int) -> DecoderSize:
    """The size of a dense decoder.

    Looking an embedding up multiplies nothing, so the input table does not count. Where it also is the vocabulary
    projection (tied), it counts once, as that. Kaplan et al. leave the projection out, which matters in small models:
    it is a quarter of Qwen2-0.5B.

    Args:
        config: the model's; of a model of text and images, its text part is taken.
        parameters: distinct parameters, a tied table once (``model.num_parameters()``). Those of an adapter add to the
            cost unless it is merged.

    Raises:
        ValueError: the config lacks a size, describes a mixture of experts (of which a token uses a part only: build
            the `DecoderSize` from its active parameters), or has more in its tables than ``parameters``.
    """
    text = config.get_text_config()
    _refuse_experts(text)
    hidden, heads, vocabulary, layers = (
        _size(text, name) for name in ("hidden_size", "num_attention_heads", "vocab_size", "num_hidden_layers")
    )
    table = vocabulary * hidden
    tied = bool(getattr(config, "tie_word_embeddings", getattr(text, "tie_word_embeddings", False)))
    used = parameters if tied else parameters - table
    if used < table:
        raise ValueError(f"{parameters} parameters cannot hold the model's tables of {vocabulary} x {hidden}")
    return DecoderSize(used, table, layers, heads * (getattr(text, "head_dim", None) or hidden // heads))


def token_flops(size: DecoderSize, context: int) -> int:
    """Operations of one token that attends to ``context`` tokens: 2·parameters + 2·layers·context·d_attn.

    Layers with a sliding window are counted as if they attended to all of it.
    """
    return 2 * size.parameters + 2 * size.layers * context * size.attention_width


def generation_flops(size: DecoderSize, prompt_tokens: int, generated_tokens: int) -> int:
    """Operations of a reply: `token_flops` summed over its tokens, the end token included, as their context grows.

    That is `token_flops` at the mean context, prompt_tokens + (generated_tokens - 1) / 2, times generated_tokens.
    """
    context_sum = generated_tokens * prompt_tokens + generated_tokens * (generated_tokens - 1) // 2
    return 2 * size.parameters * generated_tokens + 2 * size.layers * size.attention_width * context_sum


def prefill_flops(size: DecoderSize, prompt_tokens: int) -> int:
    """Operations of reading a prompt once: each token attends to itself and to those before it.

    The vocabulary projection is left out: at the one position that needs it, it belongs to the reply's first token.
    """
    body = size.parameters - size.projection
    attended = prompt_tokens * (prompt_tokens + 1) // 2
    return 2 * body * prompt_tokens + 2 * size.layers * size.attention_width * attended


def cost(size: DecoderSize, prompt_tokens: int, generated_tokens: int) -> Cost:
    """The cost of one exchange.

    Args:
        size: the sizes of the model.
        prompt_tokens: what is read, the template included.
        generated_tokens: what is written, the end token included.

    Raises:
        ValueError: nothing is read or nothing written.
    """
    if prompt_tokens < 1 or generated_tokens < 1:
        raise ValueError(f"a cost needs tokens, got {prompt_tokens} in the prompt and {generated_tokens} generated")
    generation = generation_flops(size, prompt_tokens, generated_tokens)
    return Cost(prefill_flops(size, prompt_tokens), generation, generation / generated_tokens)


def _size(config: PreTrainedConfig, name: str) -> int:
    value: Any = getattr(config, name, None)
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"config of {config.model_type!r} says {name}={value!r}; the cost needs a positive number")
    return value


def _refuse_experts(config: PreTrainedConfig) -> None:
    for name in ("num_experts", "num_local_experts", "n_routed_experts"):
        experts = getattr(config, name, None)
        if isinstance(experts, int) and experts > 1:
            raise ValueError(f"config of {config.model_type!r} has {name}={experts}: a token uses a part of them only")
