"""Replies are those of transformers' own generation, and what their prompts share is read once."""

from typing import Any, cast

import pytest
import torch
from transformers import PreTrainedModel

from models.shared_prefix import generate, sampling_seed
from tests.models.plain_pass import full_sequence_log_probs
from tests.models.tiny import ARCHITECTURES, tiny_model

VOCABULARY = 40
END = 3


@pytest.fixture(params=ARCHITECTURES)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return tiny_model(request.param, vocab_size=VOCABULARY, hidden_size=32, initializer_range=0.5)


def prompts(count: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(1)
    lengths = [5 + 3 * index for index in range(count)]
    return [torch.randint(4, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def families(count: int) -> list[list[int]]:
    """Prompts that begin with the same 50 tokens, longer than any window, and others that do not."""
    shared = torch.randint(4, VOCABULARY, (50,), generator=torch.Generator().manual_seed(2)).tolist()
    return [prompt if index % 3 == 2 else shared + prompt for index, prompt in enumerate(prompts(count))]


def test_greedy_replies_are_those_of_transformers_generate(model: PreTrainedModel) -> None:
    batch = [*prompts(6), *families(6)]
    for prompt, reply in zip(batch, generate(model, batch, 20, END), strict=True):
        written = cast(Any, model).generate(
            torch.tensor([prompt]), max_new_tokens=20, do_sample=False, eos_token_id=END, pad_token_id=0
        )
        expected = cast(torch.Tensor, written)[0, len(prompt) :].tolist()
        assert reply.token_ids + [END] * reply.ended == expected


def test_log_probs_are_those_of_a_plain_pass(model: PreTrainedModel) -> None:
    batch = [*families(5), families(1)[0]]
    replies = generate(model, batch, 12, END, group_size=2, temperature=1.0, seeds=list(range(6)))
    for index, reply in enumerate(replies):
        written = reply.token_ids + [END] * reply.ended
        with torch.no_grad():
            expected = full_sequence_log_probs(model, batch[index // 2] + written, len(written))
        assert torch.allclose(torch.tensor(reply.log_probs), expected, atol=1e-4)


def test_a_sampled_group_does_not_depend_on_the_rest_of_the_batch(model: PreTrainedModel) -> None:
    together = generate(model, prompts(4), 12, END, group_size=3, temperature=3.0, seeds=[7, 8, 9, 10])
    alone = generate(model, [prompts(4)[2]], 12, END, group_size=3, temperature=3.0, seeds=[9])
    assert [reply.token_ids for reply in together[6:9]] == [reply.token_ids for reply in alone]
    assert len({tuple(reply.token_ids) for reply in alone}) > 1


def test_samples_follow_the_distribution_of_the_model(model: PreTrainedModel) -> None:
    prompt = prompts(1)
    replies = generate(model, prompt, 1, END, group_size=4000, temperature=1.0, seeds=[5])
    firsts = torch.tensor([[*reply.token_ids, END][0] for reply in replies])
    shares = torch.bincount(firsts, minlength=VOCABULARY) / len(firsts)
    with torch.no_grad():
        expected = model(torch.tensor(prompt)).logits[0, -1].softmax(-1)
    assert (shares - expected).abs().max() < 4 * (expected * (1 - expected) / len(firsts)).sqrt().max()


def test_the_limit_counts_the_end_token_and_is_never_exceeded(model: PreTrainedModel) -> None:
    for limit in (1, 2, 5):
        replies = generate(model, prompts(5), limit, END, group_size=4, temperature=1.5, seeds=list(range(5)))
        lengths = [len(reply.token_ids) + reply.ended for reply in replies]
        assert max(lengths) <= limit and all(
            len(reply.log_probs) == n for reply, n in zip(replies, lengths, strict=True)
        )
        assert all(reply.ended or n == limit for reply, n in zip(replies, lengths, strict=True))


def test_what_prompts_begin_with_in_common_is_read_once(model: PreTrainedModel) -> None:
    # The first call to a model checks its projection.
    generate(model, prompts(1), 1, END)
    read: list[int] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    prompt = families(1)[0]
    generate(model, [prompt, [*prompt[:-1], 5], [*prompt[:-1], 6]], 1, END, 4, 1.0, [0, 1, 2])
    handle.remove()
    assert sum(read) == len(prompt) - 1 + 3


def test_every_token_is_heard_as_it_is_written_until_the_listener_ends_it(model: PreTrainedModel) -> None:
    asked = [*families(4), *prompts(3)]
    heard: dict[int, list[int]] = {}

    def hear(number: int, token: int) -> None:
        heard.setdefault(number, []).append(token)

    replies = generate(model, asked, 6, END, 2, temperature=1.0, seeds=range(len(asked)), heard=hear)
    assert [heard[number] for number in range(len(replies))] == [
        reply.token_ids + [END] * reply.ended for reply in replies
    ]

    def stop(number: int, token: int) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        generate(model, asked, 6, END, heard=stop)
    assert generate(model, asked, 6, END, 2, temperature=1.0, seeds=range(len(asked))) == replies


def test_a_prompt_that_cannot_be_split_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="prompts must have two tokens"):
        generate(model, [[5]], 5, END)


def test_sampling_without_seeds_is_refused(model: PreTrainedModel) -> None:
    with pytest.raises(ValueError, match="one seed for each of 2 prompts"):
        generate(model, prompts(2), 5, END, temperature=1.0)


def test_seeds_differ_by_every_part() -> None:
    assert (
        len({sampling_seed(0, 1, "a"), sampling_seed(0, 2, "a"), sampling_seed(1, 1, "a"), sampling_seed(0, 1, "b")})
        == 4
    )
