"""The plain computation that shared prefixes are held against."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel


def full_sequence_log_probs(
    model: PreTrainedModel, ids: Sequence[int], message_tokens: int
) -> Float[Tensor, " tokens"]:
    """One pass over the whole sequence: no cache, no padding, nothing shared.

    Returns:
        Log-probabilities (nats, float32) of the last ``message_tokens`` of ``ids`` given everything before each.
    """
    input_ids = torch.tensor([list(ids)], device=model.device)
    log_probs = model(input_ids=input_ids, use_cache=False).logits[0].float().log_softmax(-1)
    start = len(ids) - message_tokens
    return log_probs[start - 1 : -1].gather(-1, input_ids[0, start:, None])[:, 0]
