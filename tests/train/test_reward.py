"""The reward of a training step: what each component pays for, and that processes agree on it."""

import math
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from transformers import PreTrainedModel

from data.miniature.documents import make_document
from data.sample import Sample, samples_of
from models.channel import BoundScorer, Channel
from models.compressor import Compressor
from models.loading import load_model
from models.predictor import LocalPredictor
from models.scorer import Scorer
from tests.models.plain_pass import full_sequence_log_probs
from train.config import Config, load_config
from train.reward import MessageReward

GROUP = 4


def build(*overrides: str) -> tuple[MessageReward, list[Sample], Config]:
    config = load_config("mi_rl.yaml", [f"train.group_size={GROUP}", "compressor.budget_tokens=40", *overrides])
    samples = samples_of(
        [make_document(task, 5, "train", facts=6, questions=1) for task in ("miniature/notes", "miniature/chats")]
    )
    model, tokenizer = load_model("miniature/qwen2-small")
    compressor = Compressor(model, tokenizer, 40)
    scorer = BoundScorer(Scorer(model, tokenizer, compressor.prompts.max_first_tokens), shares_vocabulary=True)
    channel = Channel(LocalPredictor(model, tokenizer, 12), [scorer])
    return MessageReward(config, compressor, channel, {sample.id: sample for sample in samples}), samples, config


def call(reward: MessageReward, samples: list[Sample], texts: list[str]) -> tuple[list[float], dict[str, float]]:
    """Rewards of one group of texts a sample, each ended."""
    metrics: dict[str, float] = {}
    ids = [[*reward.compressor.prompts.format.text_ids(text), reward.compressor.end_token_id] for text in texts]
    prompts = [sample.id for sample in samples for _ in range(GROUP)]
    state = SimpleNamespace(global_step=3)
    rewards = reward(prompts, ids, state, lambda name, value: metrics.update({name: value}))
    return [value for value in rewards if value is not None], metrics


def messages_for(sample: Sample) -> list[str]:
    """The needed fact in short and at length, another fact, and nothing."""
    answer, key = sample.question.answers[0], sample.question.id.partition("-")[2]
    return [
        f"The {key} is {answer}.",
        f"We read this: The {key} is {answer}. The rest is fine.",
        "The view is good.",
        "",
    ]


def test_the_reward_is_the_weighted_sum_of_what_is_logged() -> None:
    reward, samples, config = build()
    rewards, metrics = call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    weights = config.reward
    mean = sum(
        getattr(weights, name) * metrics[f"rewards/{name}/mean"] for name in ("accuracy", "information", "length")
    )
    assert math.isclose(sum(rewards) / len(rewards), mean, rel_tol=1e-6)
    assert all(math.isfinite(value) for value in rewards)
    assert {"saturated_share", "information_upper_bits", "task_information_bits", "bits_per_token"} <= metrics.keys()


def test_the_short_message_with_the_fact_is_worth_most_and_silence_least() -> None:
    reward, samples, _ = build()
    rewards, _ = call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    for start in (0, GROUP):
        short, long, unrelated, silent = rewards[start : start + GROUP]
        assert short > long > max(unrelated, silent)


def test_information_is_the_contrastive_bound_over_the_contexts_of_a_plain_pass() -> None:
    reward, samples, config = build("reward.accuracy=0", "reward.length=0", "reward.information=1")
    sample = samples[0]
    texts = messages_for(sample)
    rewards, _ = call(reward, samples, texts + messages_for(samples[1]))
    contexts = [
        sample.document.text,
        *sample.question.negatives[: config.information.negatives.counterfactual],
        samples[1].document.text,
    ]
    prompts, scorer = reward.compressor.prompts, reward.channel.scorers[0].scorer
    model = cast(PreTrainedModel, scorer.model)
    ids = [*prompts.format.text_ids(texts[0]), scorer.end_token_id]
    with torch.no_grad():
        row = torch.stack(
            [
                full_sequence_log_probs(model, prompts(context, sample.question.text).ids + ids, len(ids)).sum()
                for context in contexts
            ]
        )
    expected = (row[0] - row.logsumexp(0)).item() / math.log(len(contexts)) + 1
    assert rewards[0] == pytest.approx(expected, abs=1e-3)


def test_a_process_with_half_of_the_batch_gives_the_same_rewards() -> None:
    reward, samples, _ = build()
    texts = [text for sample in samples for text in messages_for(sample)]
    together, _ = call(reward, samples, texts)
    every = [sample.document.text for sample in samples]
    reward.gather = lambda own: every
    apart = [value for sample in samples for value in call(reward, [sample], messages_for(sample))[0]]
    assert apart == pytest.approx(together, abs=1e-4)


def test_the_credit_of_tokens_falls_on_those_that_tell_the_contexts_apart() -> None:
    reward, samples, _ = build("reward.token_information=0.5")
    texts = [text for sample in samples for text in messages_for(sample)]
    call(reward, samples, texts)
    credit = reward.token_credit
    assert credit is not None and credit.isfinite().all()
    ids = reward.compressor.prompts.format.text_ids(texts[0])
    value = reward.compressor.prompts.format.text_ids(" " + samples[0].question.answers[0])
    start = next(at for at in range(len(ids)) if ids[at : at + len(value)] == value)
    assert credit[0].argmax() in range(start, start + len(value))
    assert (credit[3, 1:] == 0).all()


def test_the_rate_against_the_prior_is_what_the_context_adds_to_a_message() -> None:
    reward, samples, _ = build("reward.accuracy=0", "reward.information=0", "reward.length=0", "reward.prior_rate=1")
    sample = samples[0]
    rewards, metrics = call(reward, samples, [text for sample in samples for text in messages_for(sample)])
    scorer = reward.channel.scorers[0].scorer
    ids = [*reward.compressor.prompts.format.text_ids(messages_for(sample)[0]), scorer.end_token_id]
    with torch.no_grad():
        log_prob, prior = (
            full_sequence_log_probs(
                cast(PreTrainedModel, scorer.model),
                reward.compressor.prompts(context, sample.question.text).ids + ids,
                len(ids),
            ).sum()
            for context in (sample.document.text, "")
        )
    assert rewards[0] == pytest.approx((log_prob - prior).item() / math.log(2) / 10, abs=1e-3)
    assert metrics["prior_rate_bits"] == pytest.approx(10 * sum(rewards) / len(rewards), abs=1e-4)


def test_a_scorer_with_another_vocabulary_is_counted() -> None:
    reward, samples, _ = build()
    texts = [text for sample in samples for text in messages_for(sample)]
    shared, metrics = call(reward, samples, texts)
    assert metrics["retokenised_share"] == 0
    bound = BoundScorer(reward.channel.scorers[0].scorer, shares_vocabulary=False)
    reward.channel = Channel(reward.channel.predictor, [bound])
    retokenised, metrics = call(reward, samples, texts)
    assert metrics["retokenised_share"] == 1
    assert shared == pytest.approx(retokenised, abs=1e-4)


def test_a_message_without_a_single_token_has_a_reward() -> None:
    reward, samples, _ = build()
    ids = [reward.compressor.prompts.format.text_ids("The zinc was 41.")] * 7 + [[]]
    prompts = [sample.id for sample in samples for _ in range(GROUP)]
    rewards = reward(prompts, ids, SimpleNamespace(global_step=0), lambda name, value: None)
    assert all(value is not None and math.isfinite(value) for value in rewards)
