"""The compressor: a small causal LM, with or without an adapter, that writes a message for a question about a context.

``Compressor.load`` and ``compress`` are the whole of what a user of a trained adapter needs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.errors import one_line
from data.sample import Document
from models.adapter_settings import AdapterSettings
from models.adapters import load_adapter, read_adapter, remembered
from models.loading import context_window, load_model
from models.naming import ModelError, model_folder, names_adapter
from models.prompts import CompressorPrompts, Prompt, truncate_middle
from models.shared_prefix import Reply, generate

QUESTION_TOKENS = 256
"""Tokens kept free for a question, the instruction and the template: several times what any task here needs. A small
window keeps a quarter of itself free instead."""

DEFAULT_BUDGET = 64
"""Maximum tokens of a message where neither the caller nor the adapter says."""

BUDGET_TOLD = "Write at most {} tokens."
"""How a compressor that keeps to a budget it is asked for is told it, after the instruction."""

LONGEST_MEAN_TOKEN = 16
"""Characters that a token has at most, on average over a text of any length: four times that of English."""

UNBOUNDED_WINDOW = 1 << 20
"""Tokens that a model reads whose configuration sets no limit: more than any context here has."""


@dataclass(frozen=True)
class Effort:
    """What it took to make a message, beside the time of the call that gave it.

    Attributes:
        read_tokens: tokens that a model read for it, the template included; 0 where no model does, None where nobody
            counted.
        written_tokens: tokens that a model wrote for it, the end token included; 0 and None likewise.
        earlier_seconds: wall time of earlier calls in which it, or what it is made of, was made and kept; seconds, None
            where nobody measured what making this message takes.
        earlier_joules: their energy, likewise.
    """

    read_tokens: int | None = None
    written_tokens: int | None = None
    earlier_seconds: float | None = 0.0
    earlier_joules: float | None = 0.0


@dataclass(frozen=True)
class Message:
    """What the compressor wrote.

    Attributes:
        text: the message as the predictor reads it.
        token_ids: its tokens, without the end token.
        ended: whether it ended by itself; otherwise the budget cut it off.
        log_probs: log p of every token written, the end token included; nats, under the distribution sampled from.
        truncated_tokens: tokens cut out of the middle of the context before it was read.
        effort: what it took to make it; messages that differ in that alone are equal.
    """

    text: str
    token_ids: list[int]
    ended: bool
    log_probs: list[float]
    truncated_tokens: int = 0
    effort: Effort = field(default=Effort(), compare=False)

    @property
    def tokens(self) -> int:
        """The message's length, its end token included: what it costs to write."""
        return len(self.token_ids) + self.ended


class Compressor:
    """Writes messages of at most ``budget_tokens``, the end token included; a context is read once for all of them.

    Attributes:
        trained: what its adapter was trained with; None without an adapter, and where the adapter does not say.
    """

    trained: AdapterSettings | None = None

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        budget_tokens: int,
        max_context_tokens: int | None = None,
        instruction: str = "",
        asked_budgets: Sequence[int] = (),
    ) -> None:
        """Fix the model, the prompts and the budget.

        Args:
            model: a causal LM, with or without an adapter.
            tokenizer: the model's own, with a chat template.
            budget_tokens: the most tokens a message may have, its end token included.
            max_context_tokens: longer contexts lose their middle; None leaves as much room as the model's window has.
            instruction: trusted text after the question.
            asked_budgets: the budgets that it is trained to keep to when asked; with some, its prompt says what
                ``budget_tokens`` is.

        Raises:
            ModelError: the budget and a question leave no room for a context in the model's window, or the tokenizer
                has no usable chat template.
        """
        if budget_tokens < 1:
            raise ModelError(f"budget_tokens must be at least 1, not {budget_tokens}")
        self.model = model
        self.tokenizer = tokenizer
        self.budget_tokens = budget_tokens
        self.max_context_tokens = max_context_tokens
        self.instruction = instruction
        self.asked_budgets = tuple(sorted(asked_budgets))
        self.window = context_window(model.config) or UNBOUNDED_WINDOW
        limit = max_context_tokens or default_context_tokens(model, budget_tokens)
        told = f"{instruction} {BUDGET_TOLD.format(budget_tokens)}".strip() if self.asked_budgets else instruction
        self.prompts = CompressorPrompts(tokenizer, limit, told)
        self.end_token_id = self.prompts.format.end_token_id
        self._under: dict[int, Compressor] = {}

    def under(self, budget_tokens: int) -> "Compressor":
        """The same compressor, asked for another budget: its prompt says so where it was trained to keep to one."""
        if budget_tokens == self.budget_tokens:
            return self
        if budget_tokens not in self._under:
            limit = self.prompts.max_first_tokens
            self._under[budget_tokens] = Compressor(
                self.model, self.tokenizer, budget_tokens, limit, self.instruction, self.asked_budgets
            )
        return self._under[budget_tokens]

    @classmethod
    def load(
        cls,
        adapter: str | Path,
        budget_tokens: int | None = None,
        model: str | None = None,
        max_context_tokens: int | None = None,
        instruction: str | None = None,
    ) -> "Compressor":
        """A trained compressor. What is not given is as the adapter was trained, on a GPU where there is one.

        Args:
            adapter: a folder with a PEFT adapter, or a model as `load_model` takes it, which is then used untrained.
            budget_tokens: the most tokens a message may have, its end token included; `DEFAULT_BUDGET` where the
                adapter does not say.
            model: the base model; without it the one the adapter names.
            max_context_tokens: longer contexts lose their middle; as much as the model's window has room for where the
                adapter does not say.
            instruction: trusted text after the question; none where the adapter does not say.

        Raises:
            ModelError: no adapter or model there, or one that cannot be loaded, or an adapter of another base.
        """
        device = "cuda" if torch.cuda.is_available() else "cpu"
        trained = None
        if not names_adapter(str(adapter)):
            plain, tokenizer = load_model(str(adapter), device=device)
        else:
            stored = read_adapter(adapter)
            base, trained = model or stored.base, stored.settings
            if trained is not None and trained.role != "compressor":
                raise ModelError(f"adapter {str(adapter)!r}: makes a {trained.role} of its model, not a compressor")
            if not base:
                raise ModelError(f"adapter {str(adapter)!r} does not name its base model: pass one")
            if model is None:
                _require_base(adapter, base)
            known = trained.base if trained is not None and model in (None, trained.base.model) else None
            dtype = "float32" if trained is None else trained.dtype
            plain, tokenizer = load_model(base, dtype, device, None if known is None else known.revision)
            plain = load_adapter(plain, stored, base)
        if budget_tokens is None:
            budget_tokens = DEFAULT_BUDGET if trained is None else trained.budget_tokens
        if max_context_tokens is None and trained is not None:
            max_context_tokens = trained.max_context_tokens
        if instruction is None:
            instruction = "" if trained is None else trained.instruction
        asked = () if trained is None else trained.asked_budgets
        compressor = cls(plain, tokenizer, budget_tokens, max_context_tokens, instruction, asked)
        compressor.trained = trained
        return compressor

    def settings(self, base: str, revision: str | None, answer_instruction: str) -> AdapterSettings:
        """What an adapter that is trained in this compressor has to remember.

        Args:
            base: the base model's name, as `load_model` takes it.
            revision: its branch, tag or commit on the hub, as given; the commit is remembered where it is known.
            answer_instruction: what the predictor of its messages is told.
        """
        return remembered(
            self.model,
            base,
            revision,
            role="compressor",
            instruction=self.instruction,
            answer_instruction=answer_instruction,
            budget_tokens=self.budget_tokens,
            max_context_tokens=self.max_context_tokens,
            asked_budgets=self.asked_budgets,
        )

    def fit(self, document: Document) -> tuple[Document, int]:
        """The document as it can be read, and how many tokens were cut out of its middle to make it fit."""
        if document.parts:
            parts = [self._fit(part) for part in document.parts]
            return replace(document, parts=tuple(part for part, _ in parts)), sum(cut for _, cut in parts)
        text, cut = self._fit(document.text)
        if not cut:
            return document, 0
        questions = tuple(
            replace(question, negatives=tuple(self._fit(negative)[0] for negative in question.negatives))
            for question in document.questions
        )
        return replace(document, text=text, questions=questions), cut

    def _fit(self, text: str) -> tuple[str, int]:
        limit = self.prompts.max_first_tokens
        ids = self.prompts.format.text_ids(text)
        kept, target = ids, limit
        # Cut text can take a token more when it is read again, where the two ends meet: cut further until it does not.
        while len(kept) > limit:
            text = str(self.tokenizer.decode(truncate_middle(ids, target)))
            kept, target = self.prompts.format.text_ids(text), target - 1
        return text, len(ids) - len(kept)

    def prompt(self, context: str, question: str) -> Prompt:
        """The token ids that are read.

        Raises:
            ModelError: the window does not take the question, the context as far as it is read, and a message.
        """
        suffix = self._suffix(question)
        prefix, cut = self.prompts.prefix(context)
        excess = len(prefix) + len(suffix) + self.budget_tokens - self.window
        if excess > 0:
            document = len(prefix) - len(self.prompts.head)
            raise ModelError(
                f"{_named(question)}: its prompt of {len(prefix) - document + len(suffix)} tokens, {document} of the "
                f"document and {self.budget_tokens} of the message are {excess} more than the {self.window} that the "
                f"model reads; shorten it, or read less of a document (max_context_tokens, now "
                f"{self.prompts.max_first_tokens})"
            )
        return Prompt(prefix, suffix, cut)

    def fits(self, contexts: Sequence[str], question: str) -> bool:
        """Whether the window takes a question beside each of some contexts, as far as they are read, and a message."""
        try:
            longest = self.prompts.max_first_tokens + len(self.prompts.head) + len(self._suffix(question))
            if longest + self.budget_tokens > self.window:
                for context in contexts:
                    self.prompt(context, question)
        except ModelError:
            return False
        return True

    def _suffix(self, question: str) -> list[int]:
        """The ids from the end of a context on; what no window takes is refused by its beginning, which is quick."""
        room = self.window - self.budget_tokens - len(self.prompts.head)
        beginning = question[: LONGEST_MEAN_TOKEN * self.window]
        suffix = self.prompts.suffix(beginning)
        if len(suffix) <= room and len(beginning) < len(question):
            suffix = self.prompts.suffix(question)
        if len(suffix) > room:
            more = "more than " if len(beginning) < len(question) else ""
            raise ModelError(
                f"{_named(question)}: with it the prompt has {more}{len(suffix) + len(self.prompts.head)} tokens, and "
                f"beside a message of {self.budget_tokens} the model reads {self.window}; shorten it"
            )
        return suffix

    def write(
        self,
        contexts: Sequence[str],
        questions: Sequence[str],
        group_size: int = 1,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[Message]:
        """``group_size`` messages for each pair of context and question, those of one pair next to each other.

        Args:
            contexts: the contexts.
            questions: one for each context.
            group_size: messages for each pair.
            temperature: 0 takes the most likely tokens.
            seeds: one for each pair; needed above temperature 0.

        Raises:
            ModelError: a context is blank, or the window does not take it beside its question: see `prompt`.
        """
        for number, context in enumerate(contexts, start=1):
            if not context.strip():
                raise ModelError(f"document {number} of {len(contexts)} has no text: a message of it would be made up")
        prompts = [self.prompt(context, question) for context, question in zip(contexts, questions, strict=True)]
        replies = self.reply(prompts, group_size, temperature, seeds)
        return [self._message(reply, prompts[index // group_size]) for index, reply in enumerate(replies)]

    def reply(
        self, prompts: Sequence[Prompt], group_size: int, temperature: float, seeds: Sequence[int] | None
    ) -> list[Reply]:
        """Raw replies to prompts, generated in evaluation mode; a model in training is put back into training."""
        training = self.model.training
        self.model.eval()
        try:
            return generate(
                self.model,
                [prompt.ids for prompt in prompts],
                self.budget_tokens,
                self.end_token_id,
                group_size,
                temperature,
                seeds,
            )
        finally:
            self.model.train(training)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of a message's tokens, without control tokens that the model wrote: none may reach a prompt."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()

    def _message(self, reply: Reply, prompt: Prompt) -> Message:
        ids = reply.token_ids
        effort = Effort(len(prompt.ids), len(ids) + reply.ended)
        return Message(self.text(ids), ids, reply.ended, reply.log_probs, prompt.truncated_tokens, effort)


def _require_base(adapter: str | Path, base: str) -> None:
    """Refuse a base that an adapter names and that is not here, as the folder of another machine is not."""
    try:
        model_folder(base)
    except ModelError as error:
        raise ModelError(
            f"adapter {str(adapter)!r}: its base is not here; pass where it is (--model): {error}"
        ) from error


def _named(question: str) -> str:
    return f"question {one_line(repr(question), 60)}"


def default_context_tokens(model: PreTrainedModel | PeftModel, budget_tokens: int) -> int:
    """What the model's window leaves for a context beside a message, a question and the template, in tokens.

    Raises:
        ModelError: nothing is left.
    """
    window = context_window(model.config) or UNBOUNDED_WINDOW
    room = window - budget_tokens - min(QUESTION_TOKENS, window // 4)
    if room < 1:
        raise ModelError(f"a budget of {budget_tokens} tokens leaves no room for a context in a window of {window}")
    return room


def compress(
    context: str, question: str, adapter: str | Path, budget_tokens: int | None = None, model: str | None = None
) -> Message:
    """One message for one question about one document: see `Compressor.load` and `Compressor.write`.

    An adapter that was trained without being told questions (``compressor.question: hidden``) is told none.
    """
    compressor = Compressor.load(adapter, budget_tokens, model)
    blind = compressor.trained is not None and compressor.trained.question == "hidden"
    return compressor.write([context], ["" if blind else question])[0]
