"""The predictor: answers a question from the message alone, and says how likely it finds a given answer.

The reply is opened with ``Answer:``, so that an answer's first token follows it at once whatever the model's manners.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.generation import generate
from models.loading import check_window
from models.prompts import PredictorPrompts
from models.shared_prefix import Continuation, batched_message_log_probs

ANSWER_OPENING = "Answer:"


@dataclass(frozen=True)
class Query:
    """What the predictor is asked: an empty message is the null model."""

    message: str
    question: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerScore:
    """log p(answer given message, question) in nats, its end token included, and the number of those tokens."""

    log_prob: float
    tokens: int


class Predictor(Protocol):
    """Any model that answers from a message: training and evaluation never ask which."""

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """The most likely answer to each query."""
        ...

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """How likely each given answer is; None where the backend cannot say."""
        ...


class LocalPredictor:
    """A causal LM in this process."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_answer_tokens: int,
        max_message_tokens: int = 1024,
        instruction: str = "",
    ) -> None:
        """Fix the model, its prompts and the limit on an answer (tokens, its end token included)."""
        self.model = model
        self.tokenizer = tokenizer
        self.max_answer_tokens = max_answer_tokens
        self.prompts = PredictorPrompts(tokenizer, max_message_tokens, instruction)
        self.end_token_id = self.prompts.format.end_token_id
        self.opening = self.prompts.format.template_ids(ANSWER_OPENING)

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """Greedy answers, equal queries computed once."""
        distinct = list(dict.fromkeys(queries))
        prompts = [sum(self._prompt(query), []) for query in distinct]
        for prompt in prompts:
            check_window(self.model.config, len(prompt) + self.max_answer_tokens)
        replies = generate(self.model, prompts, self.max_answer_tokens, self.end_token_id)
        texts = [str(self.tokenizer.decode(reply.token_ids, skip_special_tokens=True)).strip() for reply in replies]
        answers = dict(zip(distinct, texts, strict=True))
        return [answers[query] for query in queries]

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """log p(answer given message, question) under the prompt that ``answer`` uses; messages are read once each."""
        rows: dict[str, list[int]] = {}
        for index, query in enumerate(queries):
            rows.setdefault(query.message, []).append(index)
        prefixes, jobs, order = [], [], []
        for indices in rows.values():
            prefixes.append(self._prompt(queries[indices[0]])[0])
            jobs.append([self._continuation(queries[index], answers[index]) for index in indices])
            order += indices
        results = batched_message_log_probs(self.model, prefixes, jobs)
        scores: list[AnswerScore | None] = [None] * len(queries)
        for index, log_probs in zip(order, (row for group in results for row in group), strict=True):
            scores[index] = AnswerScore(log_probs.sum().item(), len(log_probs))
        return scores

    def _prompt(self, query: Query) -> tuple[list[int], list[int]]:
        prompt = self.prompts(query.message, query.question, query.options)
        return prompt.prefix_ids, prompt.suffix_ids + self.opening

    def _continuation(self, query: Query, answer: str) -> Continuation:
        ids = self.prompts.format.text_ids(" " + answer)
        return Continuation(self._prompt(query)[1], [*ids, self.end_token_id])
