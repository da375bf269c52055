from typing import Any, cast

import pytest
import torch
from transformers import PreTrainedModel

from models.generation import generate, sampling_seed
from models.shared_prefix import full_sequence_log_probs
from tests.models.tiny import tiny_model

VOCABULARY = 40
END = 3


@pytest.fixture(params=["qwen2", "llama"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param, vocab_size=VOCABULARY, hidden_size=32, initializer_range=0.5)


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = [5 + 3 * index for index in range(count)]
    return [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def test_greedy_replies_are_those_of_transformers_generate(model: PreTrainedModel) -> None:
    for prompt, reply in zip(prompts(6), generate(model, prompts(6), 20, END), strict=True):
        written = cast(Any, model).generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=END, pad_token_id=0
        )
        expected = cast(torch.Tensor, written)[0, len(prompt) :].tolist()
        assert reply.token_ids + [END] * reply.ended == expected


def test_log_probs_are_those_of_a_plain_pass(model: PreTrainedModel) -> None:
    replies = generate(model, prompts(3), 12, END, group_size=2, temperature=1.0, seeds=[1, 2, 3])
    for index, reply in enumerate(replies):
        written = reply.token_ids + [END] * reply.ended
        expected = full_sequence_log_probs(model, prompts(3)[index // 2] + written, len(written))
        assert torch.allclose(torch.tensor(reply.log_probs), expected, atol=1e-4)


def test_a_sampled_group_does_not_depend_on_the_rest_of_the_batch(model: PreTrainedModel) -> None:
    together = generate(model, prompts(4), 12, END, group_size=3, temperature=1.0, seeds=[7, 8, 9, 10])
    alone = generate(model, [prompts(4)[2]], 12, END, group_size=3, temperature=1.0, seeds=[9])
    assert [reply.token_ids for reply in together[6:9]] == [reply.token_ids for reply in alone]
    assert len({tuple(reply.token_ids) for reply in alone}) > 1


def test_samples_follow_the_distribution_of_the_model(model: PreTrainedModel) -> None:
    prompt = prompts(1)
    replies = generate(model, prompt, 1, END, group_size=4000, temperature=1.0, seeds=[5])
    firsts = torch.tensor([(reply.token_ids + [END])[0] for reply in replies])
    drawn = torch.bincount(firsts, minlength=VOCABULARY) / len(firsts)
    with torch.no_grad():
        expected = model(torch.tensor(prompt)).logits[0, -1].softmax(-1)
    assert (drawn - expected).abs().max() < 4 * (expected * (1 - expected) / len(firsts)).sqrt().max()


def test_the_limit_counts_the_end_token_and_is_never_exceeded(model: PreTrainedModel) -> None:
    for limit in (1, 2, 5):
        replies = generate(model, prompts(5), limit, END, group_size=4, temperature=1.5, seeds=list(range(5)))
        lengths = [len(reply.token_ids) + reply.ended for reply in replies]
        assert max(lengths) <= limit and all(
            len(reply.log_probs) == n for reply, n in zip(replies, lengths, strict=True)
        )
        assert all(reply.ended or n == limit for reply, n in zip(replies, lengths, strict=True))


def test_sampling_without_seeds_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="one seed for each of 2 prompts"):
        generate(model, prompts(2), 5, END, temperature=1.0)


def test_seeds_differ_by_every_part() -> None:
    assert (
        len({sampling_seed(0, 1, "a"), sampling_seed(0, 2, "a"), sampling_seed(1, 1, "a"), sampling_seed(0, 1, "b")})
        == 4
    )
