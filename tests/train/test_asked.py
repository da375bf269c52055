"""Messages for questions nobody has told: paid for the mean over their document's, in training and warm start."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs.tree import ConfigError
from data.miniature.documents import make_document
from data.sample import Sample, samples_of, with_questions_together, without_questions
from eval.evaluation import by_compressor
from models.adapter_settings import read_settings
from models.channel import BoundScorer, Channel, Readings
from models.compress import parse
from models.compressor import Compressor
from models.loading import load_model
from models.predictor import LocalPredictor
from models.scorer import Scorer
from tests.train.test_survival import arguments
from tests.train.test_warm_start import TINY
from train.config import load_config
from train.questions.asked import own_questions, questions_of_documents
from train.reward.message_reward import MessageReward
from train.run import main
from train.warm_start.job import draw_examples
from train.warm_start.targets import TOGETHER, target_of

HIDDEN = "compressor.question=hidden"


def hidden_samples(documents: int = 2, questions: int = 3) -> list[Sample]:
    made = [
        make_document("miniature/notes", seed, "train", facts=6, questions=questions)
        for seed in range(5, 5 + documents)
    ]
    return samples_of([without_questions(document) for document in made])


def by_document(samples: list[Sample]) -> dict[tuple[str, str], list[Sample]]:
    found: dict[tuple[str, str], list[Sample]] = {}
    for sample in samples:
        found.setdefault((sample.document.task, sample.document.id), []).append(sample)
    return found


def test_a_message_is_asked_its_own_question_first_and_others_of_its_document() -> None:
    samples = hidden_samples()
    asked = questions_of_documents([samples[1], samples[1], samples[4]], by_document(samples), None, 0, 7)
    assert asked.owners.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [asked.samples[place].id for place in (0, 3, 6)] == [samples[1].id, samples[1].id, samples[4].id]
    for start, document in ((0, 0), (3, 0), (6, 1)):
        ids = {sample.id for sample in asked.samples[start : start + 3]}
        assert ids == {sample.id for sample in samples[3 * document : 3 * document + 3]}


def test_fewer_questions_are_drawn_anew_for_every_step_and_the_same_within_a_group() -> None:
    samples = hidden_samples(1, 6)
    drawn = [
        [sample.id for sample in questions_of_documents([samples[0]] * 2, by_document(samples), 3, 0, step).samples]
        for step in range(8)
    ]
    assert all(ids[:3] == ids[3:] and ids[0] == samples[0].id and len(set(ids)) == 3 for ids in drawn)
    assert len({tuple(sorted(ids)) for ids in drawn}) > 2


def test_means_leave_out_what_is_missing() -> None:
    samples = hidden_samples()
    asked = questions_of_documents([samples[0], samples[3]], by_document(samples), None, 0, 0)
    values = torch.tensor([1.0, 0.0, math.nan, math.nan, math.nan, math.nan])
    mean = asked.mean(values)
    assert mean[0] == 0.5 and mean[1].isnan()
    assert own_questions(samples[:2]).mean(torch.tensor([0.25, 1.0])).tolist() == [0.25, 1.0]


def test_a_missing_answer_counts_as_what_the_group_reached_on_that_question() -> None:
    samples = hidden_samples(1, 2)
    asked = questions_of_documents([samples[0]] * 3, by_document(samples), None, 0, 0)
    # The second message lacks its answer to a question that all others failed; the third lacks both.
    values = torch.tensor([0.0, 1.0, math.nan, 1.0, math.nan, math.nan])
    filled = asked.filled(values, group_size=3)
    assert filled[:4].tolist() == [0.0, 1.0, 0.0, 1.0] and filled[4:].isnan().all()
    assert asked.mean(filled)[:2].tolist() == [0.5, 0.5]
    # What no message of a group was asked stays missing, for all alike.
    assert asked.filled(torch.tensor([math.nan, 1.0] * 3), 3)[::2].isnan().all()
    # Another group's answers are no help.
    assert asked.filled(values, group_size=1).isnan().tolist() == values.isnan().tolist()


def test_what_is_shown_of_a_message_is_the_answer_to_its_own_question() -> None:
    samples = hidden_samples()
    asked = questions_of_documents([samples[0], samples[3]], by_document(samples), None, 0, 0)
    readings = Readings([str(number) for number in range(6)], [None] * 6, [None] * 6, frozenset({1, 3}))
    assert asked.first(readings).answers == ["0", "3"] and asked.first(readings).missing == {1}


def test_accuracy_is_the_mean_over_the_questions_of_the_document() -> None:
    config = load_config("mi_rl.yaml", ["train.group_size=2", "compressor.budget_tokens=60", HIDDEN])
    samples = hidden_samples(1, 3)
    model, tokenizer = load_model("miniature/qwen2-small")
    compressor = Compressor(model, tokenizer, 60)
    scorer = BoundScorer(Scorer(model, tokenizer, compressor.prompts.max_first_tokens), shares_vocabulary=True)
    channel = Channel(LocalPredictor(model, tokenizer, 12), [scorer])
    reward = MessageReward(config, compressor, channel, {sample.id: sample for sample in samples})
    facts = [f"The {s.question.id.partition('-')[2]} is {s.question.answers[0]}." for s in samples]
    texts, metrics = [" ".join(facts[:2]), facts[2]], {}
    ids = [[*compressor.prompts.format.text_ids(text), compressor.end_token_id] for text in texts]
    reward([samples[0].id] * 2, ids, SimpleNamespace(global_step=0), lambda name, value: metrics.update({name: value}))
    # Two of three questions, and one of three.
    assert metrics["accuracy"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_one_message_serves_all_questions_of_a_document_sampled_or_not() -> None:
    samples = hidden_samples()
    model, tokenizer = load_model("miniature/qwen2-small")
    compressor = Compressor(model, tokenizer, 24)
    for temperature in (0.0, 1.0):
        messages = by_compressor(compressor, temperature, 0)(samples)
        assert len({message.text for message in messages[:3]}) == 1 and messages[0].text != messages[3].text


def test_a_warm_start_teaches_what_several_questions_rest_on_within_the_budget() -> None:
    samples = hidden_samples(2, 4)
    model, tokenizer = load_model("miniature/qwen2-small")
    compressor = Compressor(model, tokenizer, 40)
    examples = draw_examples(samples, compressor, 8, 0).chosen
    assert len(examples) == 8
    shown = [
        Sample(sample.document, type(sample.question)(**{**vars(sample.question), "blind": False}))
        for sample in samples
    ]
    known = {target_of(sample) for sample in shown}
    counts = []
    for example in examples:
        assert len(example.reply_ids) <= 40
        told = compressor.text(example.reply_ids).split(TOGETHER)
        assert set(told) <= known and len(set(told)) == len(told)
        counts.append(len(told))
    assert max(counts) > 1


def test_several_questions_are_told_at_once_and_one_message_serves_them() -> None:
    document = make_document("miniature/notes", 5, "train", facts=6, questions=5)
    samples = samples_of([with_questions_together(document, 2)])
    texts = [question.text for question in document.questions]
    assert [sample.compressor_question for sample in samples] == [
        *["\n".join(texts[:2])] * 2,
        *["\n".join(texts[2:4])] * 2,
        texts[4],
    ]
    asked = questions_of_documents([samples[1], samples[4]], by_document(samples), None, 0, 0)
    assert [sample.id for sample in asked.samples] == [samples[1].id, samples[0].id, samples[4].id]
    model, tokenizer = load_model("miniature/qwen2-small")
    compressor = Compressor(model, tokenizer, 40)
    messages = by_compressor(compressor, 1.0, 0)(samples)
    assert messages[0] == messages[1] and messages[2] == messages[3] and messages[0] != messages[2]
    for example in draw_examples(samples, compressor, 5, 0).chosen:
        told = compressor.text(example.reply_ids).split(TOGETHER)
        known = [{target_of(sample) for sample in samples[start : start + 2]} for start in (0, 2, 4)]
        assert any(set(told) <= targets for targets in known)


@pytest.mark.command
def test_a_run_with_hidden_questions_leaves_an_adapter_that_remembers_them(tmp_path: Path) -> None:
    tasks = "tasks=[{name: miniature/notes, facts: 6, questions_per_document: 3}]"
    assert main(arguments(tmp_path, HIDDEN, "train.questions_per_message=2", "train.steps=2", tasks)) == 0
    settings = read_settings(tmp_path / "compressor")
    assert settings is not None and settings.question == "hidden"
    options: Any = parse([str(tmp_path / "compressor"), "--document", "-"])
    assert options.blind


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (("train.questions_per_message=2",), "train.questions_per_message = 2: is read with compressor.question"),
        (
            (HIDDEN, "train.questions_per_context=2"),
            "with compressor.question = hidden one message serves several questions",
        ),
    ],
)
def test_keys_that_mean_nothing_are_refused(overrides: tuple[str, ...], refusal: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("mi_rl.yaml", [*TINY, *overrides])
    assert refusal in str(error.value)
