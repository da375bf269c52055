"""Messages made without a trained compressor, to be read, answered from and scored like a compressor's.

Budgets count tokens of the compressor's own tokenizer, the end token included, so that all share one axis.
"""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from transformers import PreTrainedTokenizerBase

from models.compressor import Effort, Message
from models.naming import ModelError
from models.prompts import ChatFormat

GAP = " ... "
"""Stands where the middle of a text was cut out."""

LLMLINGUA_2 = "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank"


NO_MODEL = Effort(0, 0)
"""What a message takes that no model makes."""

UNCOUNTED = Effort()
"""What a message takes that a model makes whose tokens nobody counts."""


class Baseline(Protocol):
    """A way to make a message without training."""

    @property
    def name(self) -> str:
        """What reports call it."""
        ...

    def write(self, contexts: Sequence[str], questions: Sequence[str], budget_tokens: int) -> list[Message]:
        """One message for each pair of context and question, none longer than the budget, the end token included."""
        ...


class Budget:
    """Texts within a number of tokens: all baselines measure by it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Measure in the tokens of ``tokenizer``, the compressor's.

        Raises:
            ValueError: it has no chat template.
        """
        self.format = ChatFormat(tokenizer)

    def message(self, text: str, truncated_tokens: int = 0, effort: Effort = NO_MODEL) -> Message:
        """The text as a message that has ended; nobody sampled it, so it has no log-probabilities."""
        return Message(text, self.format.text_ids(text), True, [], truncated_tokens, effort)

    def holds(self, text: str, budget_tokens: int) -> bool:
        """Whether the text with its end token is within the budget."""
        return len(self.format.text_ids(text)) < budget_tokens

    def longest(self, candidate: Callable[[int], str], length: int, budget_tokens: int) -> str:
        """The last of ``candidate(0)``, an empty text, to ``candidate(length)`` that the budget holds.

        Found by bisection: the candidate after it exceeds the budget. Candidates grow, and so do their tokens, but for
        one or two where a cut falls into a word.

        Raises:
            ValueError: a budget below one token, which no message fits.
        """
        if budget_tokens < 1:
            raise ValueError(f"budget_tokens must be at least 1, not {budget_tokens}: the end token is one")
        if self.holds(candidate(length), budget_tokens):
            return candidate(length)
        fits, exceeds = 0, length
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if self.holds(candidate(middle), budget_tokens):
                fits = middle
            else:
                exceeds = middle
        return candidate(fits)

    def head(self, text: str, budget_tokens: int) -> str:
        """The longest beginning of ``text``, to the character."""
        return self.longest(lambda characters: text[:characters].strip(), len(text), budget_tokens)

    def ends(self, text: str, budget_tokens: int) -> str:
        """Beginning and end of ``text``, as many characters of each, with `GAP` between them."""

        def candidate(characters: int) -> str:
            if characters in (0, len(text)):
                return text[:characters].strip()
            tail = text[len(text) - characters // 2 :]
            return (text[: characters - characters // 2].rstrip() + GAP + tail.lstrip()).strip()

        return self.longest(candidate, len(text), budget_tokens)


class NoContext:
    """The empty message: what the predictor knows by itself."""

    name = "no-context"

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.budget = Budget(tokenizer)

    def write(self, contexts: Sequence[str], questions: Sequence[str], budget_tokens: int) -> list[Message]:
        """Empty messages; see `Baseline.write`."""
        empty = self.budget.head("", budget_tokens)
        return [self.budget.message(empty) for _ in zip(contexts, questions, strict=True)]


class FullContext:
    """The context itself: what there was to say. Its budget is what the predictor can read."""

    name = "full-context"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, reader: PreTrainedTokenizerBase | None = None) -> None:
        """Measure messages in the tokens of ``tokenizer``, and the budget in those of ``reader``, the predictor's."""
        self.budget = Budget(tokenizer)
        self.read = Budget(reader or tokenizer)

    def write(self, contexts: Sequence[str], questions: Sequence[str], budget_tokens: int) -> list[Message]:
        """Contexts; one that exceeds the budget loses its middle, which ``truncated_tokens`` counts."""
        made = {context: self._message(context, budget_tokens) for context in dict.fromkeys(contexts)}
        return [made[context] for context, _ in zip(contexts, questions, strict=True)]

    def _message(self, context: str, budget_tokens: int) -> Message:
        whole = self.budget.message(context.strip())
        kept = self.budget.message(self.read.ends(context.strip(), budget_tokens))
        return self.budget.message(kept.text, whole.tokens - kept.tokens)


class Truncation:
    """What fits of a context's beginning (``head``), or of its beginning and its end (``middle`` is cut out)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, cut: Literal["head", "middle"]) -> None:
        """``head`` keeps the head alone."""
        self.budget = Budget(tokenizer)
        self.name = {"head": "head", "middle": "head-and-tail"}[cut]
        self._cut = {"head": self.budget.head, "middle": self.budget.ends}[cut]

    def write(self, contexts: Sequence[str], questions: Sequence[str], budget_tokens: int) -> list[Message]:
        """See `Baseline.write`; the question plays no part."""
        made = {text: self.budget.message(self._cut(text, budget_tokens)) for text in dict.fromkeys(contexts)}
        return [made[context] for context, _ in zip(contexts, questions, strict=True)]


class LLMLingua2:
    """LLMLingua-2 (Pan et al. 2024, arXiv 2403.12968): a classifier keeps the words it finds essential.

    It sees no question. Its rate is lowered until a message fits; after ``TRIES`` the head of the last is taken.
    """

    name = "llmlingua-2"
    TRIES = 6

    def __init__(self, tokenizer: PreTrainedTokenizerBase, model: str = LLMLINGUA_2, device: str = "cpu") -> None:
        """Load the classifier, a hub id or folder named like one of the published two.

        As it loads, the package seeds Python, numpy and torch for the whole process and fetches tiktoken's vocabulary.

        Raises:
            ModelError: the package ``llmlingua`` is not installed.
        """
        self.budget = Budget(tokenizer)
        try:
            package: Any = importlib.import_module("llmlingua")
        except ImportError as error:
            raise ModelError("the baseline LLMLingua-2 needs a package: pip install llmlingua") from error
        # The package trusts code that comes with a model unless it is told not to.
        self._compressor = package.PromptCompressor(
            model_name=model, device_map=device, model_config={"trust_remote_code": False}, use_llmlingua2=True
        )

    def write(self, contexts: Sequence[str], questions: Sequence[str], budget_tokens: int) -> list[Message]:
        """See `Baseline.write`; the question plays no part."""
        made = {
            text: self.budget.message(self._text(text, budget_tokens), effort=UNCOUNTED)
            for text in dict.fromkeys(contexts)
        }
        return [made[context] for context, _ in zip(contexts, questions, strict=True)]

    def _text(self, context: str, budget_tokens: int) -> str:
        text, rate = context.strip(), 1.0
        for _ in range(self.TRIES):
            if self.budget.holds(text, budget_tokens) or budget_tokens < 2:
                break
            rate *= (budget_tokens - 1) / len(self.budget.format.text_ids(text))
            reply = self._compressor.compress_prompt(
                context, rate=rate, force_tokens=["\n", "?"], drop_consecutive=True
            )
            text = str(reply["compressed_prompt"]).strip()
        return self.budget.head(text, budget_tokens)
