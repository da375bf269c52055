"""The work of ``models.compress``: messages of documents, what they carry, and what a predictor answers from them."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

from data.errors import DataError, InputError
from data.sample import Document, Question, Sample
from models.adapter_settings import SETTINGS_FILE
from models.answering import load_predictor
from models.channel import BoundScorer
from models.compress_input import Item, told
from models.compressor import Compressor, Message
from models.endpoint import Endpoint
from models.loading import quiet_libraries
from models.naming import ModelError, names_adapter
from models.predictor import Predictor, Query, RemotePredictor
from models.scorer import NO_CONTEXT, Scorer
from objectives.mutual_information import nats_to_bits, rate_against_prior

BATCH = 8
"""Documents that are read together. Results are printed by batches, so that little is lost when a run is stopped."""


@dataclass(frozen=True)
class Work:
    """What is asked for.

    Attributes:
        adapter: an adapter's folder, or a model to use untrained.
        model: the base model; None for the one the adapter names.
        budget_tokens: the most tokens of a message; None as the adapter was trained.
        blind: whether the compressor is not told the question.
        predictor: the model that answers from the message; None for none.
        endpoint: the address of the server that runs it; None runs it in this process.
        answer_tokens: the most tokens of an answer.
    """

    adapter: str
    model: str | None = None
    budget_tokens: int | None = None
    blind: bool = False
    predictor: str | None = None
    endpoint: str | None = None
    answer_tokens: int = 64

    def load(self) -> tuple[Compressor, Predictor | None]:
        """The compressor and the predictor; how the compressor is not as it was trained is said.

        Raises:
            InputError: a model, an adapter or a server cannot be used.
        """
        quiet_libraries()
        compressor = Compressor.load(self.adapter, self.budget_tokens, self.model)
        trained = compressor.trained
        if trained is None and names_adapter(self.adapter):
            _say(
                f"note: adapter {self.adapter!r} has no {SETTINGS_FILE}, so that prompt and limits of its training are "
                f"not known; no instruction and a budget of {compressor.budget_tokens} tokens are used"
            )
        elif trained is not None and compressor.budget_tokens not in (trained.budget_tokens, *trained.asked_budgets):
            budgets = f"{compressor.budget_tokens} tokens instead of the {trained.budget_tokens}"
            _say(f"note: a budget of {budgets} that the adapter was trained with")
        return compressor, self.load_predictor("" if trained is None else trained.answer_instruction)

    def server(self) -> Endpoint | None:
        """The server of the predictor; None where there is none. Nothing is asked of it yet.

        Raises:
            EndpointError: its address, its key or the environment is wrong.
        """
        if self.predictor is None or self.endpoint is None:
            return None
        return Endpoint(self.endpoint, self.predictor, say=_say)

    def probe(self) -> None:
        """Find out before a model is loaded whether the predictor's server is there, where it has one.

        Raises:
            EndpointError: it is not, or refuses the key.
        """
        if (server := self.server()) is not None:
            server.probe()

    def load_predictor(self, instruction: str) -> Predictor | None:
        """The predictor, told ``instruction`` after the question; None where none is named.

        Raises:
            InputError: the model or the server cannot be used.
        """
        if self.predictor is None:
            return None
        if (server := self.server()) is not None:
            return RemotePredictor(server, self.answer_tokens, instruction)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return load_predictor(self.predictor, instruction, self.answer_tokens, device)

    def asked(self, item: Item) -> str:
        """The question as the compressor is told it."""
        return "" if self.blind else item.question


@dataclass
class Totals:
    """What is said at the end: counts of messages and tokens, and what documents lost."""

    messages: int = 0
    tokens: int = 0
    without_end: int = 0
    cut_documents: int = 0
    cut_tokens: int = 0
    document_tokens: int = 0
    limit: int = field(default=0, repr=False)

    def add(self, message: Message) -> None:
        """Count a message."""
        self.messages += 1
        self.tokens += message.tokens
        self.without_end += not message.ended
        if message.truncated_tokens:
            self.cut_documents += 1
            self.cut_tokens += message.truncated_tokens
            self.document_tokens += message.truncated_tokens + self.limit

    def say(self, budget_tokens: int) -> None:
        """Print them on standard error."""
        counted = "" if self.messages == 1 else f"{self.messages} messages, "
        _say(f"{counted}{self.tokens} tokens")
        if self.without_end:
            these = "the message has" if self.messages == 1 else f"{self.without_end} messages have"
            _say(
                f"note: {these} all {budget_tokens} tokens of the budget and no end token: "
                "whole sentences may be all there is, or more was to come"
            )
        if self.cut_documents:
            these = "the document" if self.messages == 1 else f"{self.cut_documents} documents"
            _say(
                f"warning: {self.cut_tokens} of {self.document_tokens} tokens "
                f"({_share(self.cut_tokens / self.document_tokens)}) were cut out of the middle of {these}, "
                f"of which the model reads {self.limit}: the message knows nothing of them"
            )


def print_text(work: Work, item: Item) -> None:
    """The message of one document on standard output, and below it the answer of a predictor; counts on standard error.

    Raises:
        InputError: a model, an adapter or a server cannot be used, or the window does not take the question. Where the
            server fails once it is asked, the message has been printed.
    """
    work.probe()
    compressor, predictor = work.load()
    (message,) = compressor.write([item.context], [work.asked(item)])
    print(message.text, flush=True)
    for answer in _answers(predictor, [item], [message]):
        print(f"Answer: {answer}")
    totals = Totals(limit=compressor.prompts.max_first_tokens)
    totals.add(message)
    totals.say(compressor.budget_tokens)


def print_json(work: Work, items: Sequence[Item], source: str) -> None:
    """A line of JSON for every document on standard output, in their order; progress and counts on standard error.

    Raises:
        InputError: a model, an adapter or a server cannot be used, or the window does not take some questions: then
            nothing has been printed. Where the server fails once it is asked, what was written until then has been.
    """
    work.probe()
    compressor, predictor = work.load()
    _check_lengths(work, compressor, items, source)
    totals = Totals(limit=compressor.prompts.max_first_tokens)
    with tqdm(total=len(items), desc="compressing", unit="document", disable=None if len(items) > 1 else True) as bar:
        for item, message, fields in _results(work, compressor, predictor, items):
            totals.add(message)
            print(json.dumps({**item.further, **fields}), flush=True)
            bar.update()
    totals.say(compressor.budget_tokens)


def bits(
    compressor: Compressor, contexts: Sequence[str], questions: Sequence[str], messages: Sequence[Message]
) -> list[float | None]:
    """What messages tell of their documents: log2 of s(message given document) over s(message given no document).

    The scorer s is the compressor's base without its adapter, under the compressor's own prompt. The mean over messages
    that s itself samples is an upper bound on the information (`objectives.mutual_information.rate_against_prior`); of
    one message it says how much likelier the document makes it. None where a score is missing.
    """
    limit = compressor.prompts.max_first_tokens
    scorer = BoundScorer(Scorer(compressor.model, compressor.tokenizer, limit, compressor.instruction), True)
    columns = list(dict.fromkeys([*contexts, NO_CONTEXT]))
    valid = torch.zeros(len(messages), len(columns), dtype=torch.bool)
    own = torch.tensor([columns.index(context) for context in contexts])
    valid[torch.arange(len(messages)), own] = True
    valid[:, columns.index(NO_CONTEXT)] = True
    samples = [
        Sample(Document(str(number), "compress", context, ()), Question(str(number), question, (), "judge"))
        for number, (context, question) in enumerate(zip(contexts, questions, strict=True))
    ]
    log_probs = scorer.score(samples, messages, columns, valid).log_probs
    rate = rate_against_prior(log_probs.gather(1, own[:, None])[:, 0], log_probs[:, columns.index(NO_CONTEXT)])
    terms: list[float] = nats_to_bits(rate.terms).tolist()
    return [term if math.isfinite(term) else None for term in terms]


def _results(
    work: Work, compressor: Compressor, predictor: Predictor | None, items: Sequence[Item]
) -> Iterator[tuple[Item, Message, dict[str, Any]]]:
    """Every document with its message and the fields that are printed of it.

    Raises:
        InputError: the predictor fails, once the messages it should have answered from are given out.
    """
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        contexts, questions = [item.context for item in batch], [work.asked(item) for item in batch]
        messages = compressor.write(contexts, questions)
        failure: InputError | None = None
        answers: Sequence[str | None] = ()
        try:
            answers = _answers(predictor, batch, messages)
        except InputError as error:
            failure, answers = error, [None] * len(batch)
        carried = bits(compressor, contexts, questions, messages)
        for number, (item, message) in enumerate(zip(batch, messages, strict=True)):
            fields = {
                "message": message.text,
                "tokens": message.tokens,
                "ended": message.ended,
                "truncated_tokens": message.truncated_tokens,
                "bits": carried[number],
            }
            yield item, message, fields | ({"answer": answers[number]} if answers else {})
        if failure is not None:
            raise failure


def _answers(predictor: Predictor | None, items: Sequence[Item], messages: Sequence[Message]) -> list[str]:
    """What the predictor answers, in one line each; nothing without a predictor."""
    if predictor is None:
        return []
    queries = [Query(message.text, item.question, item.options) for item, message in zip(items, messages, strict=True)]
    return predictor.answer(queries)


def _check_lengths(work: Work, compressor: Compressor, items: Sequence[Item], source: str) -> None:
    problems = []
    for item in items:
        if not compressor.fits([item.context], work.asked(item)):
            try:
                compressor.prompt(item.context, work.asked(item))
            except ModelError as error:
                problems.append(f"{item.where}: {error}")
    if problems:
        raise DataError(told(source, problems, len(items)))


def _share(share: float) -> str:
    """A share in percent, never rounded to all."""
    return f"{min(share, 0.999):.1%}"


def _say(line: str) -> None:
    tqdm.write(line, file=sys.stderr)
