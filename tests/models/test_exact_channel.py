"""The information a tiny random LM passes, by enumeration of all its messages, through the scorer that runs score with.

A vocabulary of at most six tokens and messages of at most five tokens leave few enough messages to list them all. Their
probabilities by plain passes of the model, one token after another, are the truth; the scorer (end token, padding,
batching, prompt boundary) and the estimators have to find it.
"""

import copy
import math
from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from jaxtyping import Float
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from eval.analysis.significance import clustered_mean, interval
from models.prompts import CompressorPrompts
from models.scorer import Scorer, Scores
from objectives.mutual_information import contrastive, contrastive_token_terms, leave_one_out, rate_against_prior
from tests.models.tiny import tiny_model

CONTEXTS = ["a b a b", "b b b a a", "a", "b a a b b a b"]
QUESTIONS = ["a", "b b a"]
WORDS = ["a", "b", "c", "d"]
TEMPLATE = "{% for m in messages %}{{ m['content'] }} <|end|>{% endfor %}{% if add_generation_prompt %} a{% endif %}"
END = 0


def tiny_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """The end token, one for every unknown word, and words."""
    vocab = {word: index for index, word in enumerate(["<|end|>", "?", *WORDS[: vocabulary - 2]])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=TEMPLATE)


def random_model(vocabulary: int) -> PreTrainedModel:
    """Sharp enough that messages tell the contexts apart."""
    size = {"hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.35}
    return tiny_model(seed=1, vocab_size=vocabulary, eos_token_id=END, **size)


class Enumeration(NamedTuple):
    """All messages of at most so many tokens for every question, and their true probabilities.

    A message that is not ended was cut off at the length limit, as generation cuts it.
    """

    messages: list[list[int]]
    ended: list[bool]
    truth: Float[Tensor, "questions messages contexts"]

    @property
    def information(self) -> float:
        """Exact I(X;Z given Q), contexts and questions uniform, nats."""
        mixture = self.truth.mean(dim=2, keepdim=True)
        return (self.truth * (self.truth / mixture).log()).sum().item() / self.truth.shape[2] / len(self.truth)


def strings(vocabulary: int, length: int) -> list[list[int]]:
    """Token strings without end token, up to the length."""
    listed = layer = [[]]
    for _ in range(length):
        layer = [[*string, token] for string in layer for token in range(vocabulary) if token != END]
        listed = listed + layer
    return listed


def true_log_probs(model: PreTrainedModel, prompt: list[int], length: int) -> dict[tuple[int, ...], Tensor]:
    """Log-prob of every next token after every string shorter than the length, from passes over equal lengths."""
    log_probs = {}
    for size in range(length):
        layer = [string for string in strings(model.config.vocab_size, size) if len(string) == size]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + string for string in layer]), use_cache=False).logits[:, -1]
        log_probs |= {tuple(s): row for s, row in zip(layer, logits.double().log_softmax(1), strict=True)}
    return log_probs


def message_log_prob(steps: dict[tuple[int, ...], Tensor], message: Sequence[int], ended: bool) -> float:
    ids = [*message, END] if ended else list(message)
    return sum(steps[tuple(ids[:position])][token].item() for position, token in enumerate(ids))


def enumerate_messages(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, length: int) -> Enumeration:
    prompts = CompressorPrompts(tokenizer, 100)
    messages = strings(len(tokenizer), length)
    ended = [len(message) < length for message in messages]
    truth = torch.empty(len(QUESTIONS), len(messages), len(CONTEXTS), dtype=torch.float64)
    for number, question in enumerate(QUESTIONS):
        for column, context in enumerate(CONTEXTS):
            steps = true_log_probs(model, prompts(context, question).ids, length)
            listed = [message_log_prob(steps, *pair) for pair in zip(messages, ended, strict=True)]
            truth[number, :, column] = torch.tensor(listed, dtype=torch.float64).exp()
    return Enumeration(messages, ended, truth)


class Scored(NamedTuple):
    """The enumeration, and what the scorer makes of all its messages: questions in turn, one under another."""

    exact: Enumeration
    scores: Scores

    @property
    def every_own(self) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix with every message written from every context, own columns, and the probability of each row."""
        n = len(CONTEXTS)
        own = torch.arange(n).repeat_interleave(len(self.scores.log_probs))
        weights = self.exact.truth.flatten(0, 1).T.flatten() / n / len(QUESTIONS)
        return self.scores.log_probs.repeat(n, 1), own, weights


def score(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, exact: Enumeration, max_tokens: int) -> Scores:
    scorer, count = Scorer(model, tokenizer, 100, max_tokens_per_pass=max_tokens), len(exact.messages)
    return scorer.fill(
        exact.messages * len(QUESTIONS),
        [question for question in QUESTIONS for _ in range(count)],
        CONTEXTS,
        torch.ones(count * len(QUESTIONS), len(CONTEXTS), dtype=torch.bool),
        exact.ended * len(QUESTIONS),
    )


@pytest.fixture(scope="module", params=[(4, 5), (6, 4)], ids=["V=4, T=5", "V=6, T=4"])
def scored(request: pytest.FixtureRequest) -> Scored:
    vocabulary, length = request.param
    tokenizer, model = tiny_tokenizer(vocabulary), random_model(vocabulary)
    exact = enumerate_messages(copy.deepcopy(model), tokenizer, length)
    return Scored(exact, score(model, tokenizer, exact, max_tokens=512))


def test_the_enumeration_is_of_all_messages_and_contexts_differ(scored: Scored) -> None:
    totals = scored.exact.truth.sum(dim=1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-6)
    assert 0.1 < scored.exact.information < math.log(len(CONTEXTS)) - 0.1


def test_the_scorer_gives_every_message_its_true_probability(scored: Scored) -> None:
    log_probs = scored.scores.log_probs.double()
    torch.testing.assert_close(log_probs, scored.exact.truth.log().flatten(0, 1), rtol=0, atol=2e-5)
    totals = log_probs.exp().view(len(QUESTIONS), -1, len(CONTEXTS)).sum(dim=1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-5)


def test_without_the_end_token_the_probabilities_are_of_no_channel(scored: Scored) -> None:
    ended = torch.tensor(scored.exact.ended * len(QUESTIONS))
    last = scored.scores.token_mask & ~scored.scores.token_mask.roll(-1, dims=1)
    last[:, -1] = scored.scores.token_mask[:, -1]
    counted = scored.scores.token_mask & ~(last & ended[:, None])
    without = scored.scores.token_log_probs.where(counted[:, None], 0.0).sum(dim=2).exp()
    assert (without.view(len(QUESTIONS), -1, len(CONTEXTS)).sum(dim=1) > 2).all()


def test_the_contrastive_bound_over_all_contexts_is_the_exact_information(scored: Scored) -> None:
    matrix, own, weights = scored.every_own
    terms = contrastive(matrix, own).terms
    assert (weights * terms).sum().item() == pytest.approx(scored.exact.information, abs=1e-5)


def test_the_rate_is_the_exact_information_against_the_mixture_and_more_against_another_prior(scored: Scored) -> None:
    matrix, own, weights = scored.every_own
    own_scores = matrix.gather(1, own[:, None])[:, 0]
    mixture = (matrix.double().logsumexp(dim=1) - math.log(len(CONTEXTS))).float()
    rate = (weights * rate_against_prior(own_scores, mixture).terms).sum().item()
    assert rate == pytest.approx(scored.exact.information, abs=1e-5)
    against_another = rate_against_prior(own_scores, matrix[:, 0]).terms
    assert (weights * against_another).sum().item() > scored.exact.information + 0.01


def test_token_terms_sum_to_the_exact_information(scored: Scored) -> None:
    matrix, own, weights = scored.every_own
    repeats = len(CONTEXTS)
    terms = contrastive_token_terms(
        scored.scores.token_log_probs.repeat(repeats, 1, 1), scored.scores.token_mask.repeat(repeats, 1), own
    )
    torch.testing.assert_close(terms.sum(dim=1), contrastive(matrix, own).terms, rtol=0, atol=1e-5)
    by_position = (weights[:, None] * terms).sum(dim=0)
    assert by_position.sum().item() == pytest.approx(scored.exact.information, abs=1e-5)
    # In expectation no token takes information back: I(X; Z_t given Z_<t) is never negative.
    assert (by_position > -1e-7).all()


def test_scoring_a_message_with_another_question_sees_less_than_the_information(scored: Scored) -> None:
    matrix, own, weights = scored.every_own
    count = len(scored.exact.messages)
    exchanged = matrix.view(len(CONTEXTS), len(QUESTIONS), count, -1).flip(1).reshape(matrix.shape)
    assert (weights * contrastive(exchanged, own).terms).sum().item() < scored.exact.information - 0.01


def test_sampled_messages_estimate_the_exact_information_within_their_interval(scored: Scored) -> None:
    generator = torch.Generator().manual_seed(0)
    own = torch.arange(len(CONTEXTS)).repeat(400)
    questions = torch.randint(len(QUESTIONS), own.shape, generator=generator)
    sampled = torch.multinomial(scored.exact.truth[questions, :, own], 1, generator=generator)[:, 0]
    matrix = scored.scores.log_probs[questions * len(scored.exact.messages) + sampled]
    truth, each = scored.exact.information, range(len(own))
    lower, upper = (
        interval(clustered_mean(estimate.terms.tolist(), each), level=0.999)
        for estimate in (contrastive(matrix, own), leave_one_out(matrix, own))
    )
    assert lower.low is not None and lower.high is not None and upper.low is not None
    assert lower.low < truth < lower.high < lower.low + 0.25
    assert upper.low > truth


def test_passes_of_any_size_give_the_same_matrix() -> None:
    tokenizer, model = tiny_tokenizer(4), random_model(4)
    messages, ended = [[], [2], [3, 1, 2, 2, 3], [1, 1], [2, 3, 3]], [True, True, False, True, True]
    some = Enumeration(messages, ended, torch.empty(0))
    small, middle, large = (score(model, tokenizer, some, limit).log_probs for limit in (1, 60, 8192))
    torch.testing.assert_close(small, large, rtol=0, atol=1e-5)
    torch.testing.assert_close(middle, large, rtol=0, atol=1e-5)
