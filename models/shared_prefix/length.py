"""Lengths at which a model reads differently: some rotary embeddings change all frequencies beyond a length.

Sequences of both sides of such a switch cannot lie in one pass, and a message that crosses it while it is written would
be read again with other frequencies. So nothing is read beyond it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from transformers import PreTrainedConfig

from models.naming import ModelError

SWITCHING = ("longrope", "dynamic")
"""Rotary embeddings whose frequencies follow the length of the sequence."""


def length_switch(config: PreTrainedConfig) -> int | None:
    """The longest sequence that a model reads with its first frequencies, in tokens; None where they never change."""
    text = config.get_text_config()
    lengths = []
    for rope in _rope_parameters(text):
        if rope.get("rope_type", rope.get("type")) in SWITCHING:
            original = rope.get("original_max_position_embeddings") or getattr(
                text, "original_max_position_embeddings", None
            )
            lengths.append(original or text.max_position_embeddings)
    return min(lengths, default=None)


def check_length(config: PreTrainedConfig, tokens: int) -> None:
    """Refuse a sequence beyond the switch.

    Raises:
        ModelError: naming the model, its switch and the length.
    """
    switch = length_switch(config)
    if switch is not None and tokens > switch:
        name = config.name_or_path or config.model_type
        raise ModelError(
            f"model {name!r} changes its rotary frequencies beyond {switch} tokens and was to read {tokens}: lower the "
            "context limit"
        )


def _rope_parameters(config: PreTrainedConfig) -> Iterator[Mapping[str, Any]]:
    """The rotary parameters of a model: one set, or one for each type of layer."""
    parameters = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if isinstance(parameters, Mapping):
        yield parameters
        yield from (nested for nested in parameters.values() if isinstance(nested, Mapping))
