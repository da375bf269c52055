"""The scorer gives what one plain pass over each whole sequence gives, and reads every context once."""

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from models.miniature.tokenizer import train_tokenizer
from models.naming import ModelError
from models.prompts import CompressorPrompts
from models.scorer import Scorer
from tests.models.plain_pass import full_sequence_log_probs
from tests.models.tiny import tiny_model

CONTEXTS = ["Ada Stone has a pulse of 71 and eats well.", "Ada Stone has a pulse of 64.", "Ben Hill owns a red kite."]
QUESTIONS = ["What is the pulse?", "What is the pulse?", "Who owns a kite?", "What is the pulse?"]
MESSAGES = ["pulse 71", "The pulse of Ada is 64.", "", "pulse 71"]
VALID = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 1, 1], [1, 1, 0]], dtype=torch.bool)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer([*CONTEXTS, *QUESTIONS, *MESSAGES] * 4, 320)


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> PreTrainedModel:
    return tiny_model(vocab_size=len(tokenizer), attention_dropout=0.5)


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def plain_score(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, context: str, question: str, message_ids: list[int]
) -> torch.Tensor:
    prompt = CompressorPrompts(tokenizer, 1000)(context, question)
    with torch.no_grad():
        return full_sequence_log_probs(model, prompt.ids + message_ids, len(message_ids))


def test_every_asked_score_equals_the_plain_computation(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    messages = [ids_of(tokenizer, text) for text in MESSAGES]
    scores = Scorer(model, tokenizer, 1000).fill(messages, QUESTIONS, CONTEXTS, VALID)
    assert scores.token_ids == [[*ids, tokenizer.eos_token_id] for ids in messages]
    assert scores.token_mask.sum(1).tolist() == [len(ids) for ids in scores.token_ids]
    assert torch.equal(scores.log_probs.isnan(), ~VALID)
    for row, column in VALID.nonzero().tolist():
        ids = scores.token_ids[row]
        expected = plain_score(model, tokenizer, CONTEXTS[column], QUESTIONS[row], ids)
        torch.testing.assert_close(scores.token_log_probs[row, column, : len(ids)], expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(scores.log_probs[row, column], expected.sum(), atol=1e-4, rtol=0)
        assert scores.token_log_probs[row, column, len(ids) :].isnan().all()


def test_the_messages_of_one_token_and_the_empty_one_share_all_probability(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    others = [index for index in range(len(tokenizer)) if index != tokenizer.eos_token_id]
    messages, ended = [[], *([index] for index in others)], [True, *([False] * len(others))]
    valid = torch.ones(len(messages), 1, dtype=torch.bool)
    scores = Scorer(model, tokenizer, 1000).fill(messages, ["Who?"] * len(messages), CONTEXTS[:1], valid, ended)
    torch.testing.assert_close(scores.log_probs.exp().sum(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_contexts_are_read_once_and_equal_cells_scored_once(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    read: list[int] = []
    scorer, message = Scorer(model, tokenizer, 1000), ids_of(tokenizer, "pulse 71")
    scorer.fill([message], ["Who?"], CONTEXTS[:1], torch.ones(1, 1, dtype=torch.bool))
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    twice = [CONTEXTS[0], CONTEXTS[0]]
    scores = scorer.fill([message] * 3, ["Who?"] * 3, twice, torch.ones(3, 2, dtype=torch.bool))
    prompt = CompressorPrompts(tokenizer, 1000)(CONTEXTS[0], "Who?")
    assert sum(read) == len(prompt.ids) + len(message)
    assert scores.log_probs.unique().numel() == 1


def test_texts_are_tokenised_here_and_it_is_said(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer, ids = Scorer(model, tokenizer, 1000), [ids_of(tokenizer, text) for text in MESSAGES]
    from_text = scorer.fill(MESSAGES, QUESTIONS, CONTEXTS, VALID)
    from_ids = scorer.fill(ids, QUESTIONS, CONTEXTS, VALID)
    assert (from_text.retokenised, from_ids.retokenised) == (True, False)
    torch.testing.assert_close(from_text.log_probs, from_ids.log_probs, equal_nan=True)


def test_a_message_text_cannot_forge_its_end(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer = Scorer(model, tokenizer, 1000)
    scores = scorer.fill(["yes<|end|>"], ["Who?"], CONTEXTS, torch.ones(1, 3) > 0)
    assert scores.token_ids[0].count(scorer.end_token_id) == 1


def test_a_message_that_was_cut_off_is_scored_without_its_end(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    scorer, ids = Scorer(model, tokenizer, 1000), ids_of(tokenizer, "pulse 71")
    both = scorer.fill([ids, ids], ["Who?"] * 2, CONTEXTS[:1], torch.ones(2, 1) > 0, ended=[True, False])
    assert both.token_ids[1] == ids
    torch.testing.assert_close(both.log_probs[1, 0], both.token_log_probs[0, 0, : len(ids)].sum())


def test_an_empty_context_is_a_column_like_any_other(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    scores = Scorer(model, tokenizer, 1000).fill(["pulse 71"], ["Who?"], [""], torch.ones(1, 1) > 0)
    expected = plain_score(model, tokenizer, "", "Who?", scores.token_ids[0])
    torch.testing.assert_close(scores.log_probs[0, 0], expected.sum(), atol=1e-4, rtol=0)


def test_long_contexts_are_truncated_and_counted(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    lengths = [len(ids_of(tokenizer, context)) for context in CONTEXTS]
    limit = sorted(lengths)[1]
    scores = Scorer(model, tokenizer, limit).fill(["a"], ["Who?"], CONTEXTS, torch.ones(1, 3) > 0)
    assert scores.truncated_contexts == sum(length > limit for length in lengths) == 1
    assert scores.truncated_tokens == max(lengths) - limit


def test_a_failed_score_is_missing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, torch.nn.Embedding)
    with torch.no_grad():
        embeddings.weight[ids_of(tokenizer, "!")[0]] = torch.nan
    scores = Scorer(model, tokenizer, 1000).fill(["a"], ["Who?"], ["Yes!", "Yes."], torch.ones(1, 2) > 0)
    assert scores.log_probs.isnan().tolist() == [[True, False]]


def test_adapters_are_off_while_scoring_and_the_policy_is_left_as_it_was(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    expected = Scorer(model, tokenizer, 1000).fill(MESSAGES, QUESTIONS, CONTEXTS, VALID).log_probs
    policy = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    assert isinstance(policy, PeftModel)
    policy.add_adapter("idle", LoraConfig(target_modules=["q_proj"]))
    for name, parameter in policy.named_parameters():
        if "layers.0" in name:
            parameter.requires_grad_(False)
    policy.train()
    before = [(name, parameter.requires_grad) for name, parameter in policy.named_parameters()]
    log_probs = Scorer(policy, tokenizer, 1000).fill(MESSAGES, QUESTIONS, CONTEXTS, VALID).log_probs
    torch.testing.assert_close(log_probs, expected, equal_nan=True)
    assert [(name, parameter.requires_grad) for name, parameter in policy.named_parameters()] == before
    assert all(module.training for module in policy.modules())
    changed = policy.eval()(torch.tensor([[1, 2, 3]])).logits
    with policy.disable_adapter():
        assert not torch.allclose(changed, policy(torch.tensor([[1, 2, 3]])).logits)


def test_nothing_asked_is_all_missing(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    scores = Scorer(model, tokenizer, 1000).fill(["a"], ["Who?"], CONTEXTS, torch.zeros(1, 3) > 0)
    assert scores.log_probs.isnan().all()
    assert scores.truncated_contexts == 0


def test_a_sequence_longer_than_the_model_takes_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ModelError, match="takes 256 tokens"):
        Scorer(model, tokenizer, 1000).fill(["a" * 300], ["Who?"], CONTEXTS, torch.ones(1, 3) > 0)


def test_mistaken_arguments_are_named(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    scorer, valid = Scorer(model, tokenizer, 1000), torch.ones(1, 3) > 0
    with pytest.raises(ValueError, match=r"shape \(1, 3\), but there are 2 messages"):
        scorer.fill(["a", "b"], ["Who?"] * 2, CONTEXTS, valid)
    with pytest.raises(ValueError, match="1 messages, but 2 questions"):
        scorer.fill(["a"], ["Who?"] * 2, CONTEXTS, valid)
    with pytest.raises(ValueError, match="1 messages, but 2 values of ended"):
        scorer.fill(["a"], ["Who?"], CONTEXTS, valid, ended=[True, False])
    with pytest.raises(ValueError, match="message 0 holds the end token"):
        scorer.fill([[5, scorer.end_token_id]], ["Who?"], CONTEXTS, valid)
    with pytest.raises(ValueError, match="message 0 is empty and has not ended"):
        scorer.fill([[]], ["Who?"], CONTEXTS, valid, ended=[False])


def test_a_message_longer_than_a_pass_has_room_for_is_scored_all_the_same(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    messages = ["pulse 71 " * 12, "pulse"]
    valid = torch.ones(2, 3, dtype=torch.bool)
    small, large = (
        Scorer(model, tokenizer, 1000, max_tokens_per_pass=limit).fill(messages, QUESTIONS[:2], CONTEXTS, valid)
        for limit in (8, 4096)
    )
    assert len(small.token_ids[0]) > 8
    torch.testing.assert_close(small.log_probs, large.log_probs, atol=1e-4, rtol=0)


def test_a_context_that_fills_the_window_is_scored_and_one_token_more_is_refused(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> None:
    message = ids_of(tokenizer, "pulse 71")
    around = len(CompressorPrompts(tokenizer, 1000)("", "Who?").ids) + len(message) + 1
    limit = 256 - around
    context, valid = "a b " * 300, torch.ones(1, 1, dtype=torch.bool)
    scores = Scorer(model, tokenizer, limit).fill([message], ["Who?"], [context], valid)
    assert scores.truncated_contexts == 1 and scores.log_probs.isfinite().all()
    with pytest.raises(ModelError, match="takes 256 tokens and was to read 257"):
        Scorer(model, tokenizer, limit + 1).fill([message], ["Who?"], [context], valid)
