"""The reward of a training step: what each component pays for, and that processes agree on it."""

import dataclasses
import json
import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import PreTrainedModel

from data.errors import DataError
from data.miniature.documents import make_document
from data.sample import Document, Question, Sample, samples_of
from models.channel import BoundScorer, Channel
from models.compressor import Compressor
from models.endpoint import Endpoint
from models.loading import load_model
from models.predictor import LocalPredictor, RemotePredictor
from models.scorer import Scorer, Scores
from objectives.negatives import NegativeCounts
from tests.local_server import Answer, Asked, chat, serving
from tests.models.plain_pass import full_sequence_log_probs
from train.config import Config, load_config
from train.reward.columns import StepColumns
from train.reward.message_reward import MessageReward

GROUP = 4


def build(*overrides: str) -> tuple[MessageReward, list[Sample], Config]:
    config = load_config("mi_rl.yaml", [f"train.group_size={GROUP}", "compressor.budget_tokens=40", *overrides])
    documents = [make_document("miniature/notes", seed, "train", facts=6, questions=1) for seed in (5, 6)]
    samples = samples_of(documents)
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
    every = [sample.id for sample in samples]
    reward.columns.gather = lambda own: every
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


def test_tokens_have_no_credit_where_the_scorer_read_others() -> None:
    reward, samples, _ = build("reward.token_information=0.5")
    texts = [text for sample in samples for text in messages_for(sample)]
    # Outer white space is not shown to the predictor, and so not scored: every later token lies one place further on.
    call(reward, samples, [f"\n{texts[0]}", *texts[1:]])
    moved = reward.token_credit
    assert moved is not None and (moved[0] == 0).all() and (moved[1] != 0).any()


def test_what_is_answered_without_a_message_may_be_missing_altogether() -> None:
    fails = [False]

    def script(asked: Asked, _: int) -> Answer:
        told = any(text in json.dumps(asked.body) for text in ("The ", "We read"))
        return Answer("overloaded", 503) if fails[0] and not told else Answer(chat("Answer: 1"))

    with serving(script) as server:
        given = f"predictor={{endpoint: '{server.url}', model: m, retries: 0, max_missing: 0.5}}"
        reward, samples, _ = build("train.update=best_of_n", "train.task_information_every=0", given)
        predictor = RemotePredictor(Endpoint(server.url, "m", retries=0), 8)
        reward.channel = Channel(predictor, reward.channel.scorers)
        texts = ["The view is good.", "The view is fine.", "We read this.", "The rest."] * len(samples)
        fails[0] = True
        call(reward, samples, texts)
        assert not reward.unaided and reward.kept is not None and (reward.kept == 0).all()
        fails[0] = False
        call(reward, samples, texts)
        assert len(reward.unaided) == len(samples)


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


def test_readability_is_the_mean_log_likelihood_of_a_token_without_the_context() -> None:
    given = ("reward.accuracy=0", "reward.information=0", "reward.length=0", "reward.readability=1")
    reward, samples, _ = build(*given)
    texts = [text for sample in samples for text in messages_for(sample)]
    rewards, metrics = call(reward, samples, texts)
    prompts, end = reward.channel.scorers[0].scorer.prompts, reward.compressor.end_token_id
    for place, text in enumerate(texts):
        ids = [*prompts.format.text_ids(text), end]
        prompt = prompts("", samples[place // GROUP].compressor_question).ids
        model = cast(PreTrainedModel, reward.compressor.model)
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        plain = logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).mean().item()
        assert rewards[place] == pytest.approx(plain / math.log(2) / 10, abs=1e-3)
    assert metrics["readability_bits_per_token"] == pytest.approx(10 * sum(rewards) / len(rewards), abs=1e-4)
    # A sentence is more likely than the same words in disorder.
    ordered, disorder = call(reward, samples[:1], ["The view is good."] * 2 + ["good The is. view"] * 2)[0][1:3]
    assert ordered > disorder


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


def test_batch_negatives_are_other_documents_of_the_task_and_those_of_the_step_come_first() -> None:
    notes = [make_document("miniature/notes", seed, "train", facts=6, questions=1) for seed in range(8)]
    chats = [make_document("miniature/chats", seed, "train", facts=6, questions=1) for seed in range(8)]
    samples = {sample.id: sample for sample in samples_of(notes + chats)}
    draw = StepColumns(samples, NegativeCounts(batch=3), 0, lambda own: own)
    step = [samples_of([document])[0] for document in (notes[0], notes[1], chats[0])]
    columns = draw.draw(step, step=2)
    texts = {task: {document.text for document in documents} for task, documents in (("n", notes), ("c", chats))}
    for row, own in zip(columns.valid, step, strict=True):
        negatives = {columns.contexts[column] for column in row.nonzero()[:, 0]} - {own.document.text}
        assert len(negatives) == 3 and negatives <= texts["n" if own.document in notes else "c"]
    assert columns.valid[0, columns.own[1]] and columns.valid[1, columns.own[0]]
    # Questions of one task share what fills up: two contexts for the notes, three for the chat.
    assert len(columns.contexts) == 3 + 2 + 3


def question_about(name: str, year: int) -> Document:
    text = f"The mill of {name} is old. It was built there in {year}. The owners sold flour and oats to the towns."
    asked = Question("built", "When was the mill built?", (str(year),), "exact")
    return Document(name, "records", text, (asked,))


def test_twins_are_drawn_anew_at_every_step_and_alike_in_every_process() -> None:
    samples = samples_of(
        [question_about(name, year) for name, year in (("Alpha", 1810), ("Beta", 1820), ("Gamma", 1830))]
    )
    by_id, counts = {sample.id: sample for sample in samples}, NegativeCounts(twins=6)
    together = StepColumns(by_id, counts, 0, lambda own: own).draw(samples, step=1)
    backwards = StepColumns(dict(reversed(by_id.items())), counts, 0, lambda own: own)
    for number, sample in enumerate(samples):
        alone = backwards.draw([sample, sample], step=1)
        row = {together.contexts[column] for column in together.valid[number].nonzero()[:, 0]}
        assert row == set(alone.contexts) and len(row) == 7 and sample.document.text in row
        assert sum("The mill of" in context for context in row) == 7
        assert set(backwards.draw([sample], step=2).contexts) != row


def test_a_document_alone_can_be_trained_on_with_twins_unless_there_are_none() -> None:
    samples = samples_of([question_about("Alpha", 1810)])
    StepColumns({sample.id: sample for sample in samples}, NegativeCounts(twins=1), 0, lambda own: own)
    unknown = samples_of([Document("d", "records", "Oats.", (Question("q", "Who?", ("nobody",), "exact"),))])
    with pytest.raises(DataError, match=r"or for twins or same_document negatives"):
        StepColumns({sample.id: sample for sample in unknown}, NegativeCounts(twins=4), 0, lambda own: own)


def test_questions_of_one_document_alone_are_refused_before_training() -> None:
    samples = samples_of([make_document("miniature/notes", 0, "train", facts=6, questions=2)])
    with pytest.raises(DataError, match=r"finds no other context to compare its messages with"):
        StepColumns({sample.id: sample for sample in samples}, NegativeCounts(batch=2), 0, lambda own: own)


def test_information_that_misleads_costs_no_more_than_the_floor() -> None:
    only = ("reward.accuracy=0", "reward.length=0", "reward.information=1")
    reward, samples, config = build(*only, "reward.information_floor=-1")
    wrong = messages_for(samples[1])[0] * 5
    rewards, metrics = call(reward, samples, [wrong] * 4 + messages_for(samples[1]))
    assert metrics["information_bits"] < -3
    assert rewards[0] == config.reward.information_floor == -1


def test_a_score_that_is_not_finite_makes_no_reward() -> None:
    reward, samples, _ = build()
    texts, channel = [text for sample in samples for text in messages_for(sample)], reward.channel

    def score(*arguments: Any) -> Scores:
        scores = channel.score(*arguments)
        scores.log_probs[0, 0] = math.nan
        return scores

    reward.channel = cast(Channel, SimpleNamespace(predictor=channel.predictor, answer=channel.answer, score=score))
    rewards, metrics = call(reward, samples, texts)
    assert [math.isnan(value) for value in rewards] == [True] + [False] * 7
    assert all(map(math.isfinite, metrics.values()))


def test_gold_answers_are_scored_at_the_steps_that_ask_for_the_metric_alone() -> None:
    # The messages are those of the fourth step.
    rewards, logged = {}, {}
    for key in ("every=1", "every=2", "every=3", "every=0"):
        reward, samples, _ = build(f"train.task_information_{key}")
        rewards[key], logged[key] = call(reward, samples[:1], messages_for(samples[0]))
    assert rewards["every=1"] == rewards["every=2"] == rewards["every=3"] == rewards["every=0"]
    for key in ("every=1", "every=2"):
        assert "task_information_bits" in logged[key] and logged[key]["missing/task_information"] == 0
    for key in ("every=3", "every=0"):
        assert not any("task_information" in name for name in logged[key]) and "accuracy" in logged[key]


def test_gold_answers_are_scored_at_every_step_where_they_are_paid_for() -> None:
    reward, samples, _ = build("train.task_information_every=0", "reward.task_information=1")
    assert "task_information_bits" in call(reward, samples[:1], messages_for(samples[0]))[1]


def test_what_the_predictor_answers_anyhow_is_no_success() -> None:
    reward, samples, _ = build("train.update=best_of_n")
    texts = [text for sample in samples for text in messages_for(sample)]
    call(reward, samples, texts)
    assert reward.kept is not None and (reward.kept.reshape(-1, GROUP) > 0).any(dim=1).all()
    assert reward.unaided == {sample.id: 0.0 for sample in samples}
    reward.unaided[samples[0].id] = 1.0
    call(reward, samples, texts)
    assert (reward.kept.reshape(-1, GROUP) > 0).any(dim=1).tolist() == [False, True]


def test_an_answer_without_a_message_that_is_missing_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    reward, samples, _ = build("train.update=best_of_n")
    answer, silent = reward._answers, [0]

    def fails_once(asked: Any, messages: Any, score_gold: bool, **named: Any) -> Any:
        readings = answer(asked, messages, score_gold, **named)
        if asked and not any(message.text for message in messages):
            silent[0] += 1
            if silent[0] == 1:
                return dataclasses.replace(readings, missing=frozenset({0}))
        return readings

    monkeypatch.setattr(reward, "_answers", fails_once)
    for known in (1, 2, 2):
        call(reward, samples, [text for sample in samples for text in messages_for(sample)])
        assert len(reward.unaided) == known
    assert silent[0] == 2
