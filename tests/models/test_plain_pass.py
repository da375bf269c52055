"""The reference of the engine's tests, held against a reference of its own."""

import random

import torch

from tests.models.plain_pass import full_sequence_log_probs
from tests.models.tiny import SIZE, tiny_model


def test_the_plain_computation_is_the_chain_rule() -> None:
    model = tiny_model("qwen2")
    ids = random.Random(1).choices(range(SIZE["vocab_size"]), k=12)
    with torch.no_grad():
        steps = [model(torch.tensor([ids[:end]])).logits[0, -1].log_softmax(-1)[ids[end]] for end in (9, 10, 11)]
        torch.testing.assert_close(full_sequence_log_probs(model, ids, 3), torch.stack(steps), atol=1e-5, rtol=0)
