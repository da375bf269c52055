"""The gap between sampler and policy, and the check that the adapter reached the sampler, on numbers and on models."""

import math

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor

from data.miniature.documents import make_document
from models.compressor import Compressor
from models.loading import load_model
from tests.models.plain_pass import full_sequence_log_probs
from train.sampling.agreement import NOISE_NATS, adapter_reached, adapter_share, gap_metrics, gap_sums, sampler_gap


def noise(scale: float, tokens: int = 400, seed: int = 0) -> Tensor:
    return scale * torch.randn(tokens, generator=torch.Generator().manual_seed(seed))


PLAIN = -2.0 + noise(0.5)


def test_the_gap_is_over_real_tokens_alone() -> None:
    sampler = torch.tensor([[-1.0, -2.0, 9.0], [-3.0, 9.0, 9.0]])
    policy = torch.tensor([[-1.5, -2.0, 0.0], [-2.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert sampler_gap(sampler, policy, mask).tolist() == [0.5, 0.0, 1.0]


def test_gaps_of_processes_are_pooled_by_token_and_missing_ones_counted() -> None:
    gaps = [torch.tensor([0.1, 0.2, torch.nan]).double(), torch.tensor([0.6]).double()]
    metrics = gap_metrics(torch.stack([gap_sums(process) for process in gaps]))
    assert metrics["sampler_gap/mean_nats"] == pytest.approx(0.3)
    assert metrics["sampler_gap/max_nats"] == pytest.approx(0.6)
    assert metrics["sampler_gap/missing_tokens"] == 1


def test_a_gap_without_any_token_is_missing_and_not_zero() -> None:
    metrics = gap_metrics(gap_sums(torch.tensor([torch.nan]).double())[None])
    assert math.isnan(metrics["sampler_gap/mean_nats"]) and math.isnan(metrics["sampler_gap/max_nats"])
    assert metrics["sampler_gap/missing_tokens"] == 1


def test_a_sampler_near_the_adapted_policy_has_the_adapter() -> None:
    adapted = PLAIN + noise(0.3, seed=1)
    assert adapter_reached(adapted + noise(0.1, seed=2), adapted, PLAIN)


def test_a_sampler_near_the_plain_model_is_refused_in_one_line() -> None:
    adapted = PLAIN + noise(0.3, seed=1)
    with pytest.raises(RuntimeError, match="the adapter did not reach the sampler") as caught:
        adapter_reached(PLAIN + noise(0.1, seed=2), adapted, PLAIN)
    assert "\n" not in str(caught.value)


def test_an_adapter_smaller_than_the_engines_noise_is_still_told_from_none() -> None:
    adapted = PLAIN + noise(0.06, 4000, seed=1).abs()[: len(PLAIN)]
    assert adapter_reached(adapted + noise(0.1, seed=2), adapted, PLAIN)
    with pytest.raises(RuntimeError, match="did not reach"):
        adapter_reached(PLAIN + noise(0.1, seed=2), adapted, PLAIN)


@pytest.mark.parametrize("scale", [0.0, NOISE_NATS / 2])
def test_an_adapter_that_changes_no_more_than_noise_is_undecided(scale: float) -> None:
    assert not adapter_reached(PLAIN, PLAIN + noise(scale, seed=1), PLAIN)


def test_a_sampler_between_the_two_is_undecided() -> None:
    adapted = PLAIN + noise(0.3, seed=1)
    assert not adapter_reached((adapted + PLAIN) / 2 + noise(0.2, seed=2), adapted, PLAIN)


def test_the_share_is_the_slope_and_its_error_is_zero_without_noise() -> None:
    adapted = PLAIN + noise(0.3, seed=1)
    for share in (0.0, 0.25, 1.0):
        estimate, error = adapter_share(PLAIN + share * (adapted - PLAIN), adapted, PLAIN)
        assert estimate == pytest.approx(share, abs=1e-5) and error < 1e-5


def test_the_standard_error_is_the_spread_of_shares_over_repetitions() -> None:
    adapted = PLAIN + noise(0.3, seed=1)
    shares, errors = zip(
        *(adapter_share(adapted + noise(0.4, seed=s), adapted, PLAIN) for s in range(2, 302)), strict=True
    )
    assert torch.tensor(errors).mean() == pytest.approx(torch.tensor(shares).std().item(), rel=0.15)


def test_one_token_that_carries_all_of_the_change_decides_nothing() -> None:
    adapted = PLAIN.clone()
    adapted[7] += 100.0
    assert not adapter_reached(adapted + noise(0.1, seed=2), adapted, PLAIN)


@pytest.mark.parametrize("tokens", [0, 1])
def test_too_few_tokens_are_undecided(tokens: int) -> None:
    sampler = torch.full((3,), torch.nan)
    sampler[:tokens] = -1.0
    assert not adapter_reached(sampler, torch.full((3,), -1.0), torch.full((3,), -5.0))


def test_missing_log_probs_are_left_out() -> None:
    adapted = PLAIN + noise(0.3, seed=1)
    sampler = adapted.clone()
    sampler[::3] = torch.nan
    assert adapter_reached(sampler, adapted, PLAIN)


def test_random_noise_alone_never_decides() -> None:
    for seed in range(200):
        shared = [PLAIN + noise(0.05, seed=3 * seed + part) for part in range(3)]
        assert not adapter_reached(shared[0], shared[1], shared[2])


def written(policy: PeftModel, compressor: Compressor) -> tuple[list[list[int]], list[list[int]], Tensor]:
    """Prompts, messages with their end tokens, and the sampler's log-probabilities of all tokens in a row."""
    document = make_document("miniature/notes", 3, "test", facts=6, questions=2, twins=0)
    prompts = [compressor.prompt(document.text, question.text) for question in document.questions]
    replies = compressor.reply(prompts, 4, 1.0, [1, 2])
    ids = [reply.token_ids + [compressor.end_token_id] * reply.ended for reply in replies]
    log_probs = torch.tensor([value for reply in replies for value in reply.log_probs])
    return [prompts[index // 4].ids for index in range(len(ids))], ids, log_probs


@torch.no_grad()
def policy_log_probs(policy: PeftModel, prompts: list[list[int]], messages: list[list[int]]) -> Tensor:
    plain = policy.get_base_model()
    rows = [
        full_sequence_log_probs(plain, prompt + message, len(message))  # pyright: ignore[reportArgumentType]
        for prompt, message in zip(prompts, messages, strict=True)
    ]
    return torch.cat(rows)


@pytest.mark.parametrize("reached", [True, False])
def test_real_messages_written_with_the_adapter_pass_and_those_written_without_it_raise(reached: bool) -> None:
    base, tokenizer = load_model("miniature/qwen2-small")
    policy = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    assert isinstance(policy, PeftModel)
    torch.manual_seed(0)
    for name, parameter in policy.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter.data, std=0.05)
    compressor = Compressor(policy.eval(), tokenizer, 24)
    if reached:
        prompts, messages, sampler = written(policy, compressor)
    else:
        with policy.disable_adapter():
            prompts, messages, sampler = written(policy, compressor)
    adapted = policy_log_probs(policy, prompts, messages)
    with policy.disable_adapter():
        plain = policy_log_probs(policy, prompts, messages)
    assert (adapted - plain).abs().mean() > NOISE_NATS
    if reached:
        assert adapter_reached(sampler, adapted, plain)
    else:
        with pytest.raises(RuntimeError, match="did not reach the sampler"):
            adapter_reached(sampler, adapted, plain)


def test_an_untrained_adapter_is_undecided_on_real_messages() -> None:
    base, tokenizer = load_model("miniature/qwen2-small")
    policy = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    assert isinstance(policy, PeftModel)
    prompts, messages, sampler = written(policy, Compressor(policy.eval(), tokenizer, 8))
    same = policy_log_probs(policy, prompts, messages)
    assert not adapter_reached(sampler, same, same)
