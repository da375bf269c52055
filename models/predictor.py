"""The predictor: answers a question from the message alone, and says how likely it finds a given answer.

A local predictor's reply is opened with ``Answer:``, so that the answer follows at once, also from a model that would
begin with a preamble.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.adapter_switch import adapter_at_work
from models.endpoint import TOKENS_READ, TOKENS_WRITTEN, Completion, Endpoint, Sampling
from models.loading import check_window
from models.prompts import PredictorPrompts, predictor_text
from models.shared_prefix import Continuation, Reply, batched_message_log_probs, generate

ANSWER_OPENING = "Answer:"
"""How every reply begins: given to a local model, taken off the reply of a server that writes it of its own accord."""

KEPT, UNCOUNTED = "answers kept", "answers of unknown length"
"""Among the counts of a predictor, beside `TOKENS_READ` and `TOKENS_WRITTEN`: answers that a cache had, which took no
time, and answers whose tokens the server does not tell."""

UNLIMITED = 1 << 30
"""A limit in tokens that no message reaches: it is never cut."""


@dataclass(frozen=True)
class Query:
    """What the predictor is asked.

    Attributes:
        message: what it may answer from; empty for the null model, which has the question alone.
        question: the question.
        options: the answers to choose from, of a question with several choices.
    """

    message: str
    question: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnswerScore:
    """How likely an answer is.

    Attributes:
        log_prob: log p(answer given message, question), nats, the end token included.
        tokens: how many tokens the answer has, its end token included.
    """

    log_prob: float
    tokens: int


class Predictor(Protocol):
    """Any model that answers from a message: training and evaluation never ask which."""

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """The most likely answer to each query."""
        ...

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """How likely each given answer is; None where the predictor cannot say."""
        ...

    def write(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """The most likely reply to each prompt, of at most that many tokens; prompts are untrusted text."""
        ...


class LocalPredictor:
    """A causal LM in this process.

    Attributes:
        counts: tokens read and written to answer so far, of every query as if it were asked by itself.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        max_answer_tokens: int,
        max_message_tokens: int = 1024,
        instruction: str = "",
        adapter: str | None = None,
    ) -> None:
        """Fix the model and its prompts.

        Args:
            model: a causal LM; answering does not change it.
            tokenizer: the model's own, with a chat template.
            max_answer_tokens: the most tokens an answer may have, its end token included.
            max_message_tokens: longer messages lose their middle.
            instruction: trusted text after the question.
            adapter: which of the model's adapters answers, in evaluation mode, whichever else is at work; None leaves
                the model as it is found.

        Raises:
            ModelError: the tokenizer has no usable chat template.
        """
        self.model = model
        self.counts: Counter[str] = Counter()
        self.adapter = adapter
        self.tokenizer = tokenizer
        self.max_answer_tokens = max_answer_tokens
        self.prompts = PredictorPrompts(tokenizer, max_message_tokens, instruction)
        self.end_token_id = self.prompts.format.end_token_id
        self.opening = self.prompts.format.template_ids(ANSWER_OPENING)

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """Greedy answers, equal queries computed once.

        Raises:
            ModelError: a prompt with its answer is longer than the model takes.
        """
        distinct = list(dict.fromkeys(queries))
        prompts = [[*prefix, *suffix] for prefix, suffix in map(self._prompt, distinct)]
        pairs = zip(prompts, self._reply(prompts, self.max_answer_tokens), strict=True)
        exchanges = dict(zip(distinct, pairs, strict=True))
        for prompt, reply in map(exchanges.__getitem__, queries):
            self.counts[TOKENS_READ] += len(prompt)
            self.counts[TOKENS_WRITTEN] += len(reply.token_ids) + reply.ended
        answers = {query: self._text(reply) for query, (_, reply) in exchanges.items()}
        return [answers[query] for query in queries]

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """log p(answer given message, question) under the prompt that ``answer`` uses; messages are read once each."""
        by_message: dict[str, list[int]] = {}
        for index, query in enumerate(queries):
            by_message.setdefault(query.message, []).append(index)
        prefixes, continuations, order = [], [], []
        for indices in by_message.values():
            prefixes.append(self._prompt(queries[indices[0]])[0])
            continuations.append([self._continuation(queries[index], answers[index]) for index in indices])
            order += indices
        with self._at_work():
            results = batched_message_log_probs(self.model, prefixes, continuations)
        scores: list[AnswerScore | None] = [None] * len(queries)
        for index, log_probs in zip(order, (row for group in results for row in group), strict=True):
            scores[index] = AnswerScore(log_probs.sum().item(), len(log_probs))
        return scores

    def write(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy replies, equal prompts computed once.

        Raises:
            ModelError: a prompt with its reply is longer than the model takes.
        """
        distinct = list(dict.fromkeys(prompts))
        turns = [self.prompts.format.turn_ids(prompt) for prompt in distinct]
        replies = dict(zip(distinct, map(self._text, self._reply(turns, max_tokens)), strict=True))
        return [replies[prompt] for prompt in prompts]

    def lesson(self, query: Query, answer: str) -> tuple[list[int], list[int]]:
        """The token ids of a prompt, and those of the reply by which an answer to it is learned, end token included."""
        prefix, suffix = self._prompt(query)
        return [*prefix, *suffix], [*self._continuation(query, answer).message_ids]

    def _reply(self, prompts: Sequence[list[int]], max_tokens: int) -> list[Reply]:
        for prompt in prompts:
            check_window(self.model.config, len(prompt) + max_tokens)
        with self._at_work():
            return generate(self.model, prompts, max_tokens, self.end_token_id)

    def _text(self, reply: Reply) -> str:
        return str(self.tokenizer.decode(reply.token_ids, skip_special_tokens=True)).strip()

    def _at_work(self) -> AbstractContextManager[None]:
        return nullcontext() if self.adapter is None else adapter_at_work(self.model, self.adapter)

    def _prompt(self, query: Query) -> tuple[list[int], list[int]]:
        prompt = self.prompts(query.message, query.question, query.options)
        return prompt.prefix_ids, prompt.suffix_ids + self.opening

    def _continuation(self, query: Query, answer: str) -> Continuation:
        ids = self.prompts.format.text_ids(" " + answer)
        return Continuation(self._prompt(query)[1], [*ids, self.end_token_id])


class RemotePredictor:
    """A model on an OpenAI-compatible server.

    Log-probabilities of given answers are asked for with the model's own tokenizer, as token ids, and only a server
    that echoes prompts can tell them; elsewhere they are None.

    Attributes:
        counts: tokens read and written to answer so far, as the server counts them, of every query as if it were asked
            by itself; `KEPT` and `UNCOUNTED` answers among them.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        max_answer_tokens: int,
        instruction: str = "",
        tokenizer: PreTrainedTokenizerBase | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        """Fix the server and what is asked of it.

        Args:
            endpoint: the server.
            max_answer_tokens: the most tokens an answer may have.
            instruction: trusted text after the question.
            tokenizer: that of the model it serves; without it log-probabilities are None.
            request: further fields of each request for a reply: see `Sampling.extra`.

        Raises:
            ModelError: the tokenizer has no usable chat template.
        """
        self.endpoint = endpoint
        self.counts: Counter[str] = Counter()
        self.instruction = instruction
        self.sampling = Sampling(max_answer_tokens, extra=request or {})
        # The server reads the message as it is, so nothing may be cut here either.
        self.prompts = None if tokenizer is None else PredictorPrompts(tokenizer, UNLIMITED, instruction)
        self.opening = [] if self.prompts is None else self.prompts.format.template_ids(ANSWER_OPENING)

    def answer(self, queries: Sequence[Query]) -> list[str]:
        """The server's answers at temperature 0, without the opening `ANSWER_OPENING` where it writes one.

        Raises:
            EndpointError: the server cannot be reached or does not answer.
        """
        batch = [[{"role": "user", "content": self._text(query)}] for query in queries]
        replies = self.endpoint.complete_all(batch, self.sampling)
        for reply in replies:
            self.counts[KEPT] += reply.kept
            self.counts[UNCOUNTED] += reply.tokens_read is None or reply.tokens is None
            self.counts[TOKENS_READ] += reply.tokens_read or 0
            self.counts[TOKENS_WRITTEN] += reply.tokens or 0
        return [_answer(reply) for reply in replies]

    def answer_some(self, queries: Sequence[Query]) -> list[str | None]:
        """The same, None where the server failed to give an answer.

        Raises:
            EndpointError: it gave none at all, or refuses one.
        """
        batch = [[{"role": "user", "content": self._text(query)}] for query in queries]
        replies = self.endpoint.complete_some(batch, self.sampling)
        return [None if reply is None else _answer(reply) for reply in replies]

    def answer_log_probs(self, queries: Sequence[Query], answers: Sequence[str]) -> list[AnswerScore | None]:
        """How likely each given answer is, as far as the server can tell; equal pairs are asked about once.

        The first pair is asked about before all others, for its reply tells whether the server can say.

        Raises:
            EndpointError: the server cannot be reached or does not answer.
        """
        pairs = list(zip(queries, answers, strict=True))
        distinct = list(dict.fromkeys(pairs))
        scores = [self._answer_log_prob(*pair) for pair in distinct[:1]]
        pool = ThreadPoolExecutor(self.endpoint.concurrency)
        try:
            scores += pool.map(lambda pair: self._answer_log_prob(*pair), distinct[1:])
        finally:
            pool.shutdown(cancel_futures=True)
        score_of = dict(zip(distinct, scores, strict=True))
        return [score_of[pair] for pair in pairs]

    def write(self, prompts: Sequence[str], max_tokens: int) -> list[str]:
        """The server's replies at temperature 0.

        Raises:
            EndpointError: the server cannot be reached or does not answer.
        """
        batch = [[{"role": "user", "content": prompt}] for prompt in prompts]
        sampling = replace(self.sampling, max_tokens=max_tokens)
        return [reply.text.strip() for reply in self.endpoint.complete_all(batch, sampling)]

    def _text(self, query: Query) -> str:
        return predictor_text(query.message, query.question, query.options, self.instruction)

    def _answer_log_prob(self, query: Query, answer: str) -> AnswerScore | None:
        if self.prompts is None or self.endpoint.echoes is False:
            return None
        prompt = self.prompts(query.message, query.question, query.options)
        ids = [*self.prompts.format.text_ids(" " + answer), self.prompts.format.end_token_id]
        log_probs = self.endpoint.given_log_probs([*prompt.ids, *self.opening], ids)
        return None if log_probs is None else AnswerScore(sum(log_probs), len(log_probs))


def _answer(reply: Completion) -> str:
    return reply.text.strip().removeprefix(ANSWER_OPENING).strip()
