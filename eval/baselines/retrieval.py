"""Retrieval baselines: the sentences of a document that are most relevant to the question."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import bm25s
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.sentences import sentences
from eval.baselines.writers import NO_MODEL, UNCOUNTED, Budget
from eval.metering import Stopwatch
from models.compressor import Effort, Message
from models.loading import context_window

Relevance = Callable[[Sequence[str], Sequence[str]], Float[np.ndarray, "questions sentences"]]
"""How well each sentence of one document answers to each question; higher is better."""


class Retrieval:
    """The sentences of a context most relevant to the question, in the order of the document.

    The most relevant are taken whole until the next would exceed the budget, equals in the order of the document. Where
    even the first exceeds it, the message is the head of that sentence.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, name: str, relevance: Relevance) -> None:
        """Rank by ``relevance``, for example `bm25_relevance` or an `Embedder`'s."""
        self.budget = Budget(tokenizer)
        self.name = name
        self._relevance = relevance
        self._effort = NO_MODEL if relevance is bm25_relevance else UNCOUNTED
        self._rankings: dict[tuple[str, str], list[int]] = {}
        self._efforts: dict[tuple[str, str], Effort] = {}

    def write(self, contexts: Sequence[str], questions: Sequence[str], budget_tokens: int) -> list[Message]:
        """See `Baseline.write`; a document is indexed once for all its questions, and ranked once for all budgets."""
        pairs = list(zip(contexts, questions, strict=True))
        kept = {pair: self._efforts[pair] for pair in pairs if pair in self._rankings}
        self._rank(pairs)
        return [
            self._message(pair[0], self._rankings[pair], budget_tokens, kept.get(pair, self._effort)) for pair in pairs
        ]

    def _rank(self, pairs: Sequence[tuple[str, str]]) -> None:
        asked: dict[str, list[str]] = {}
        for context, question in dict.fromkeys(pairs):
            if (context, question) not in self._rankings:
                asked.setdefault(context, []).append(question)
        for context, questions in asked.items():
            with Stopwatch() as watch:
                relevance = self._relevance([sentence.strip() for sentence in sentences(context)], questions)
            seconds, joules = watch.share(len(questions))
            for question, scores in zip(questions, relevance, strict=True):
                self._rankings[context, question] = np.argsort(-scores, kind="stable").tolist()
                self._efforts[context, question] = replace(self._effort, earlier_seconds=seconds, earlier_joules=joules)

    def _message(self, context: str, ranking: Sequence[int], budget_tokens: int, effort: Effort) -> Message:
        found = sentences(context)

        def best(count: int) -> str:
            return "".join(found[index] for index in sorted(ranking[:count])).strip()

        text = self.budget.longest(best, len(ranking), budget_tokens) or self.budget.head(best(1), budget_tokens)
        return self.budget.message(text, effort=effort)


_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")


def words(text: str) -> list[str]:
    """Lower-case words and numbers; scripts that leave no spaces between words come by character."""
    return _WORD.findall(text.lower())


def bm25_relevance(sentences: Sequence[str], questions: Sequence[str]) -> Float[np.ndarray, "questions sentences"]:
    """BM25 of the sentences for each question, with one index for all of them, each sentence a document.

    Okapi BM25 in Lucene's form (k1 = 1.5, b = 0.75), as `bm25s` computes it. Nothing is stemmed and no word left out:
    a word that is everywhere weighs next to nothing, in any language. A question none of whose words occurs scores 0.
    """
    corpus, asked = [words(sentence) for sentence in sentences], [words(question) for question in questions]
    scores = np.zeros((len(questions), len(sentences)))
    if not any(corpus):
        return scores
    index = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    index.index(corpus, show_progress=False)
    for row, question in enumerate(asked):
        if question:
            scores[row] = index.get_scores(question)
    return scores


class Embedder:
    """Relevance as the cosine between mean-pooled last hidden states of a model, the document's mean taken off.

    States of language models point much the same way whatever the text, and cosines then say little. Subtracting the
    mean is the first step of Mu and Viswanath 2018, "All-but-the-top".
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_tokens_per_pass: int = 4096
    ) -> None:
        """Use any model of `models.loading.load_model`, in evaluation mode; padding included, a pass is bounded."""
        self.model = model
        self.tokenizer = tokenizer
        self.max_tokens_per_pass = max_tokens_per_pass
        self._window = min(context_window(model.config) or max_tokens_per_pass, max_tokens_per_pass)

    def relevance(self, sentences: Sequence[str], questions: Sequence[str]) -> Float[np.ndarray, "questions sentences"]:
        """Cosines in [-1, 1] around the mean of ``sentences``; 0 where there is one sentence only."""
        states = self.embed([*questions, *sentences]).double()
        centre = states[len(questions) :].mean(dim=0)
        vectors = torch.nn.functional.normalize(states - centre, dim=-1)
        return (vectors[: len(questions)] @ vectors[len(questions) :].T).cpu().numpy()

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Float[Tensor, "texts width"]:
        """Mean last hidden state over the tokens of each text; a text beyond the window is read in pieces."""
        pieces = list(self._pieces(texts))
        width = self.model.config.get_text_config().hidden_size
        sums = torch.zeros(len(texts), width, device=self.model.device)
        counts = torch.zeros(len(texts), 1, device=self.model.device)
        for batch in self._batches(pieces):
            longest = max(len(ids) for _, ids in batch)
            ids = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in batch], device=self.model.device)
            lengths = torch.tensor([len(ids) for _, ids in batch], device=self.model.device)
            mask = torch.arange(longest, device=self.model.device) < lengths[:, None]
            states = self.model.base_model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            owners = torch.tensor([owner for owner, _ in batch], device=self.model.device)
            sums.index_add_(0, owners, (states * mask[..., None]).sum(1).to(sums.dtype))
            counts.index_add_(0, owners, lengths[:, None].to(counts.dtype))
        return sums / counts.clamp(min=1)

    def _pieces(self, texts: Sequence[str]) -> Iterator[tuple[int, list[int]]]:
        for owner, text in enumerate(texts):
            ids = self.tokenizer.encode(text, split_special_tokens=True)
            for start in range(0, len(ids), self._window):
                yield owner, ids[start : start + self._window]

    def _batches(self, pieces: list[tuple[int, list[int]]]) -> Iterator[list[tuple[int, list[int]]]]:
        """Pieces of similar length together, within the bound on a pass."""
        batch: list[tuple[int, list[int]]] = []
        for piece in sorted(pieces, key=lambda piece: len(piece[1])):
            if batch and (len(batch) + 1) * len(piece[1]) > self.max_tokens_per_pass:
                yield batch
                batch = []
            batch.append(piece)
        if batch:
            yield batch
