"""The order of questions: TRL's own where contexts do not matter, else several questions of a context in a step."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel
from trl.trainer.utils import RepeatSampler

from configs.build import read_documents
from configs.tree import ConfigError
from data.sample import Document, Question, Sample
from models.loading import load_tokenizer
from models.prompts import ChatFormat
from tests.train.small_trainer import inputs, make_trainer, policy
from train.config import load_config
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer, grouped
from train.questions.order import QuestionSampler, pass_order
from train.questions.source import context_numbers, tell_of_contexts, training_request

UNEVEN = [number for number, questions in enumerate([7, 1, 4, 2, 6, 3, 1, 5, 4]) for _ in range(questions)]
"""The contexts of 33 questions."""


def steps_of(contexts: list[int], per_step: int, per_context: int, passes: int, seed: int = 0) -> list[list[int]]:
    """The questions of every step."""
    order = [
        question for number in range(passes) for question in pass_order(contexts, per_step, per_context, seed, number)
    ]
    return [order[start : start + per_step] for start in range(0, len(order), per_step)]


@pytest.mark.parametrize(("per_step", "per_context"), [(8, 4), (8, 3), (6, 2), (5, 5), (33, 4), (32, 8), (7, 2)])
def test_no_question_comes_again_before_every_other_has_come_as_often(per_step: int, per_context: int) -> None:
    steps = steps_of(UNEVEN, per_step, per_context, passes=7)
    assert len(steps) == 7 * (33 // per_step)
    counts = Counter(dict.fromkeys(range(33), 0))
    for step in steps:
        assert len(set(step)) == per_step
        counts.update(step)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_a_step_asks_a_context_several_questions() -> None:
    contexts = [number for number in range(24) for _ in range(4)]
    for step in steps_of(contexts, 8, 4, passes=2):
        assert sorted(Counter(contexts[question] for question in step).values()) in ([4, 4], [8])
    for step in steps_of(contexts, 8, 2, passes=2):
        assert len({contexts[question] for question in step}) <= 4
    alone = [len({contexts[question] for question in step}) for step in steps_of(contexts, 8, 1, passes=2)]
    assert sum(alone) / len(alone) > 6


def test_contexts_with_fewer_questions_fill_steps_whole() -> None:
    steps = steps_of(UNEVEN, 8, 4, passes=20)
    read = sum(len({UNEVEN[question] for question in step}) for step in steps) / len(steps)
    # Bundles of at most 4 from 7, 1, 4, 2, 6, 3, 1, 5 and 4 questions are 12 in 33: a step of 8 reads 3 at the least.
    assert 2.7 < read < 3.6


def test_questions_of_a_context_lie_next_to_each_other_in_a_step() -> None:
    for step in steps_of(UNEVEN, 8, 4, passes=5):
        names = [UNEVEN[question] for question in step]
        assert 1 + sum(one != other for one, other in pairwise(names)) == len(set(names))
        sizes = [names.count(name) for name in names]
        assert sizes == sorted(sizes, reverse=True)


def test_the_seed_decides_and_passes_differ() -> None:
    assert steps_of(UNEVEN, 8, 4, 3) == steps_of(UNEVEN, 8, 4, 3)
    assert steps_of(UNEVEN, 8, 4, 3) != steps_of(UNEVEN, 8, 4, 3, seed=1)
    steps = steps_of(UNEVEN, 8, 4, 2)
    assert steps[:4] != steps[4:]


def test_one_question_a_context_is_trls_own_order() -> None:
    sampler = RepeatSampler(UNEVEN, mini_repeat_count=3, batch_size=8, repeat_count=2, shuffle=True, seed=7)
    theirs = [list(sampler) for _ in range(3)]
    done = 0
    ours = QuestionSampler(sampler, lambda number: pass_order(UNEVEN, 8, 1, 7, number), lambda: done)
    for expected in theirs:
        assert list(ours) == expected and len(ours) == len(sampler)
        done += 4


def test_a_resumed_run_is_in_the_pass_that_it_left() -> None:
    sampler = RepeatSampler(UNEVEN, mini_repeat_count=1, batch_size=8, shuffle=True, seed=0)
    for per_context in (1, 4):
        resumed = QuestionSampler(sampler, lambda number, k=per_context: pass_order(UNEVEN, 8, k, 0, number), lambda: 9)
        # Nine steps are two passes of four, and one step of the third, which Trainer skips.
        assert list(resumed) == pass_order(UNEVEN, 8, per_context, 0, 2)


def test_parts_of_a_document_are_contexts_of_their_own() -> None:
    questions = (Question("a", "?", ("!",), "exact"), Question("b", "?", ("!",), "exact"))
    documents = [Document(name, "notes", "text", questions) for name in ("d/part 1", "d/part 2")]
    samples = [Sample(document, question) for document in documents for question in questions]
    assert context_numbers(samples) == [0, 0, 1, 1]


def test_contexts_with_too_few_questions_are_told() -> None:
    config = load_config("mi_rl.yaml", ["train.questions_per_context=2"])
    question = Question("a", "?", ("!",), "exact")
    samples = [Sample(Document(name, "notes", "text", (question,)), question) for name in ("x", "x", "y")]
    said: list[str] = []
    tell_of_contexts(config, samples, said.append)
    assert said == [
        "1 of 2 contexts have fewer than train.questions_per_context = 2 questions: a step asks 1.5 about each, "
        "on average"
    ]


def test_generated_documents_have_as_many_questions_as_a_step_asks() -> None:
    config = load_config("mi_rl.yaml", ["train.steps=10", "train.questions_per_context=4"])
    chat = ChatFormat(load_tokenizer(config.compressor.model, None))
    documents = read_documents(config, chat, "train", training_request, print)
    assert len(documents) == 20 and all(len(document.questions) == 4 for document in documents)
    alone = load_config("mi_rl.yaml", ["train.steps=10", "tasks=[{name: miniature/notes, questions_per_document: 2}]"])
    assert training_request(alone, alone.tasks[0]).documents == 80


def test_more_questions_of_a_context_than_a_step_has_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^train\.questions_per_context = 9: should be at most the train\.contexts_"):
        load_config("mi_rl.yaml", ["train.questions_per_context=9"])


def test_micro_batches_hold_the_messages_of_a_context_together() -> None:
    prompts, contexts = torch.tensor([[1], [2], [3], [4], [1], [2]]), torch.tensor([5, 6, 5, 6, 5, 6])
    batches = [
        {"prompt_ids": prompts[:3], "context": contexts[:3]},
        {"prompt_ids": prompts[3:], "context": contexts[3:]},
    ]
    first, second = grouped(batches)
    assert first["prompt_ids"].tolist() == [[1], [1], [3]] and second["prompt_ids"].tolist() == [[2], [2], [4]]


def count_tokens(trainer: SharedPrefixGRPOTrainer) -> list[int]:
    """Takes the tokens of every forward pass of the compressor and of the scorer, which are one model here."""
    read: list[int] = []
    plain = cast(Any, trainer.accelerator.unwrap_model(trainer.model)).base_model.model.base_model

    def count(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        ids = options["input_ids"] if "input_ids" in options else options["inputs_embeds"][..., 0]
        read.append(ids.numel())

    cast(PreTrainedModel, plain).register_forward_pre_hook(count, with_kwargs=True)
    return read


@pytest.mark.command
def test_a_step_reads_a_context_once_for_all_of_its_questions(tmp_path: Path) -> None:
    tokens = {}
    for together in (1, 4):
        keys = [f"train.questions_per_context={together}", "train.contexts_per_step=4", "train.group_size=2"]
        more = [
            "tasks=[{name: miniature/notes, documents: 60, questions_per_document: 4}]",
            "information.negatives={counterfactual: 0, batch: 1}",
        ]
        trainer = make_trainer(tmp_path / str(together), SharedPrefixGRPOTrainer, "train.steps=1", *keys, *more)
        assert isinstance(trainer, SharedPrefixGRPOTrainer)
        read = count_tokens(trainer)
        batch = inputs(trainer)
        written = int(batch["prompt_mask"].sum(dim=1).float().mean())
        before = sum(read)
        trainer.current_gradient_accumulation_steps = 1
        trainer._compute_loss(policy(trainer), batch)
        tokens[together] = (before, sum(read) - before, written)
    (rollout, update, _), (shared_rollout, shared_update, prompt) = tokens[1], tokens[4]
    # Three prompts of four are spared but for the question, in the rollout, the scoring and the update.
    assert update - shared_update > 2 * prompt
    assert rollout - shared_rollout > 4 * prompt


@pytest.mark.command
def test_questions_of_a_context_train_in_micro_batches(tmp_path: Path) -> None:
    keys = ["train.questions_per_context=2", "train.contexts_per_step=4", "train.micro_batch_messages=8"]
    trainer = make_trainer(tmp_path, SharedPrefixGRPOTrainer, "train.steps=2", *keys)
    inputs(trainer)
    batches = trainer._buffered_inputs
    assert batches is not None and len(batches) == 2
    for batch in batches:
        assert len(torch.unique(batch["context"])) == 1 and len(torch.unique(batch["prompt_ids"], dim=0)) == 2
    trainer._buffered_inputs = None
    trainer.train()
    assert trainer.state.global_step == 2


@pytest.mark.command
@pytest.mark.parametrize("together", [1, 2])
def test_a_resumed_run_goes_on_with_the_questions_of_the_step(tmp_path: Path, together: int) -> None:
    # Ten questions make two steps a pass, so that the fourth step, which is resumed at, is in the second.
    keys = ["tasks=[{name: miniature/notes, documents: 5, questions_per_document: 2}]", "train.steps=6"]
    keys += [f"train.questions_per_context={together}", "train.contexts_per_step=4", "train.group_size=2"]
    keys += ["train.save_every=3", "compressor.budget_tokens=16", "train.keep_checkpoints=9"]
    whole = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *keys)
    whole.train()
    resumed = make_trainer(tmp_path, SharedPrefixGRPOTrainer, *keys)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoints" / "checkpoint-3"))
    curves = [
        [(line["loss"], line["reward"], line["num_tokens"]) for line in trainer.state.log_history if "loss" in line]
        for trainer in (whole, resumed)
    ]
    assert len(curves[0]) == 6 and curves[0] == curves[1]
