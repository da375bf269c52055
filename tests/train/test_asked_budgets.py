"""A budget that is asked for: told in the prompt, met to the token, drawn in training, taught in the warm start."""

import json
from pathlib import Path

import pytest
import torch

from configs.tree import ConfigError
from data.miniature.documents import make_document
from data.sample import samples_of
from eval.config import load_config as load_evaluation
from eval.run import main as evaluate
from models.adapter_settings import read_settings
from models.compressor import BUDGET_TOLD, Compressor
from models.loading import load_model
from objectives.length import length_reward
from tests.eval.small_evaluation import small
from tests.train.test_survival import arguments
from tests.train.test_warm_start import TINY, AtTheStart, prepared
from train.config import load_config
from train.questions.asked import asked_budget
from train.run import main
from train.sampling.rollout import Rollout
from train.warm_start.job import draw_examples
from train.warm_start.targets import budget_for

BUDGETS = (4, 8, 16)
ASKED = "compressor.asked_budgets=[4, 8, 16]"


@pytest.fixture(scope="module")
def compressor() -> Compressor:
    model, tokenizer = load_model("miniature/qwen2-small")
    return Compressor(model, tokenizer, 16, None, "Be exact.", BUDGETS)


def text_of(compressor: Compressor, ids: list[int]) -> str:
    return str(compressor.tokenizer.decode(ids))


def test_the_prompt_says_the_budget_after_the_instruction(compressor: Compressor) -> None:
    for budget in BUDGETS:
        asked = compressor.under(budget)
        assert f"Be exact. {BUDGET_TOLD.format(budget)}" in text_of(asked, asked.prompt("A text.", "What?").ids)
        assert asked is compressor.under(budget) and asked.budget_tokens == budget
    plain = Compressor(compressor.model, compressor.tokenizer, 16, None, "Be exact.")
    assert "tokens" not in text_of(plain, plain.under(8).prompt("A text.", "What?").ids)


def test_no_message_is_longer_than_what_was_asked_for(compressor: Compressor) -> None:
    samples = samples_of([make_document("miniature/notes", seed, "train", facts=6, questions=2) for seed in range(4)])
    texts, questions = zip(*[(s.document.text, s.question.text) for s in samples], strict=True)
    for budget in BUDGETS:
        messages = compressor.under(budget).write(texts, questions)
        assert max(message.tokens for message in messages) <= budget


def test_budgets_are_drawn_by_step_and_question_and_all_of_them_come(compressor: Compressor) -> None:
    drawn = [asked_budget(BUDGETS, 16, 0, step, "question") for step in range(60)]
    assert set(drawn) == set(BUDGETS) and drawn == [
        asked_budget(BUDGETS, 16, 0, step, "question") for step in range(60)
    ]
    assert asked_budget((), 64, 0, 1, "question") == 64


def test_a_rollout_asks_a_group_for_one_budget_and_cuts_what_is_longer(tmp_path: Path) -> None:
    config, models, samples = prepared(tmp_path, ASKED, "compressor.budget_tokens=16")
    by_id = {sample.id: sample for sample in samples}
    rollout = Rollout(models.compressor, by_id, 1.0, config.seed)
    ids = [sample.id for sample in samples for _ in range(4)]
    found = rollout(ids, AtTheStart)
    budgets = [asked_budget(BUDGETS, 16, config.seed, AtTheStart.state.global_step, name) for name in ids]
    end, cut = models.compressor.end_token_id, 0
    for budget, prompt, message, log_probs in zip(
        budgets, found["prompt_ids"], found["completion_ids"], found["logprobs"], strict=True
    ):
        assert BUDGET_TOLD.format(budget) in text_of(models.compressor, prompt)
        assert len(message) <= budget and len(log_probs) == len(message)
        cut += message[-1] != end
    assert cut > 0 and len(set(budgets)) > 1


def test_length_is_paid_by_the_budget_of_each_message() -> None:
    tokens, success = torch.tensor([4, 4, 8]), torch.ones(3)
    assert length_reward(tokens, success, torch.tensor([4, 8, 16])).tolist() == [0.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="one budget a length"):
        length_reward(tokens, success, torch.tensor([4, 8]))
    with pytest.raises(ValueError, match="at least 1 token, got 0"):
        length_reward(tokens, success, torch.tensor([4, 0, 8]))


def test_a_warm_start_learns_a_target_under_the_least_budget_that_holds_it(tmp_path: Path) -> None:
    _, models, samples = prepared(tmp_path, ASKED, "compressor.budget_tokens=48")
    examples = draw_examples(samples, models.compressor, 8, 0, "clause", 3).chosen
    for example in examples:
        budget = budget_for(models.compressor, len(example.reply_ids))
        assert budget in (*BUDGETS, 48)
        assert BUDGET_TOLD.format(budget) in text_of(models.compressor, example.prompt_ids)
        for later in example.later_replies:
            assert budget_for(models.compressor, len(later)) == budget
    assert budget_for(models.compressor, 49) is None and budget_for(models.compressor, 5) == 8


@pytest.mark.command
def test_an_adapter_remembers_its_budgets_and_its_evaluation_has_their_curve(tmp_path: Path) -> None:
    assert main(arguments(tmp_path / "run", ASKED, "train.steps=2")) == 0
    adapter = tmp_path / "run" / "compressor"
    settings = read_settings(adapter)
    assert settings is not None and settings.asked_budgets == BUDGETS
    assert Compressor.load(adapter, 8).under(4).asked_budgets == BUDGETS
    given = [
        argument
        for argument in small(
            tmp_path / "evaluation", f"compressor.adapter={adapter}", "baselines=[{name: compressor-asked}]"
        )
        if not argument.startswith("compressor.budget_tokens")
    ]
    assert evaluate(given) == 0
    points = json.loads((tmp_path / "evaluation" / "results.json").read_text())["baselines"]
    assert [point["budget_tokens"] for point in points] == list(BUDGETS)
    for point in points:
        assert point["message_tokens"]["value"] <= point["budget_tokens"]


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        ((ASKED, "compressor.budget_tokens=12"), "compressor.asked_budgets: 16 is more than compressor.budget_tokens"),
        ((ASKED, "train.sampler=vllm"), "compressor.asked_budgets: vLLM gives all messages of a step one limit"),
    ],
)
def test_budgets_that_cannot_be_asked_for_are_refused(overrides: tuple[str, ...], refusal: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config("mi_rl.yaml", [*TINY, *overrides])
    assert refusal in str(error.value)


def test_a_curve_of_budgets_nobody_has_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="was not trained to keep to a budget"):
        load_evaluation("evaluation.yaml", small(tmp_path, "baselines=[{name: compressor-asked}]")[2:])
