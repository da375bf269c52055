"""How a document and a question become the token ids that a compressor reads, for any budget that a request names.

Prompts are those of `models.prompts`: no text of a request can come out as a control token. A document loses its middle
where the window has no room for all of it beside the question and the message.
"""

from collections import OrderedDict
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from data.errors import one_line
from models.compressor import BUDGET_TOLD, LONGEST_MEAN_TOKEN, QUESTION_TOKENS
from models.naming import ModelError
from models.prompts import CompressorPrompts, Prompt
from models.serve.refusal import Refusal

CACHED_PROMPTS = 32
"""Prompt templates that are kept, one for each budget that was asked for: clients use few."""


class Reader:
    """Prompts of one compressor.

    Attributes:
        window: tokens that the model reads, prompt and message together.
        end_token_id: the token that ends a message.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        window: int,
        max_context_tokens: int | None = None,
        instruction: str = "",
        asked_budgets: Sequence[int] = (),
    ) -> None:
        """Fix what does not depend on a request.

        Args:
            tokenizer: the model's own, with a chat template.
            window: tokens that the model reads, prompt and message together.
            max_context_tokens: the most tokens of a document; None takes what the window has room for.
            instruction: trusted text after the question.
            asked_budgets: with some, the prompt says what the budget is.

        Raises:
            ModelError: the tokenizer has no usable chat template, or the window is too small for anything.
        """
        self.tokenizer = tokenizer
        self.window = window
        self.max_context_tokens = max_context_tokens
        self._instruction = instruction
        self._asked_budgets = asked_budgets
        self._prompts: OrderedDict[int, CompressorPrompts] = OrderedDict()
        if self.most_budget_tokens < 1:
            raise ModelError(f"a window of {window} tokens has no room for a document and a message")
        self.end_token_id = self._prompts_of(1).format.end_token_id

    @property
    def most_budget_tokens(self) -> int:
        """The largest budget that leaves room for a question and a token of a document."""
        return self.window - self._question_room - 1

    @property
    def _question_room(self) -> int:
        return min(QUESTION_TOKENS, self.window // 4)

    def read(self, document: str, question: str, budget_tokens: int) -> Prompt:
        """The prompt, as `models.compressor.Compressor` of that budget has it where a question is not very long.

        Raises:
            Refusal: the question leaves no room for a document, or the tokenizer cannot write a text.
        """
        try:
            return self._read(document, question, budget_tokens)
        except ModelError as error:
            raise Refusal(one_line(error), code="unreadable_text") from error

    def _read(self, document: str, question: str, budget_tokens: int) -> Prompt:
        prompts = self._prompts_of(budget_tokens)
        room = self.window - budget_tokens - len(prompts.head)
        # What no window takes is told by its beginning, which is quick.
        beginning = question[: LONGEST_MEAN_TOKEN * self.window]
        suffix = prompts.suffix(beginning)
        if len(suffix) < room and len(beginning) < len(question):
            suffix = prompts.suffix(question)
        if len(suffix) >= room:
            raise Refusal(
                f"the question {one_line(repr(question), 60)} is too long: the model reads {self.window} tokens in "
                f"all, {budget_tokens} of them are kept for the message, and a document needs room too",
                param="question",
                code="context_length_exceeded",
            )
        default = self.window - budget_tokens - self._question_room
        prompts.max_first_tokens = min(self.max_context_tokens or default, room - len(suffix))
        prefix, cut = prompts.prefix(document)
        return Prompt(prefix, suffix, cut)

    def text(self, token_ids: Sequence[int]) -> str:
        """The text of tokens that a model wrote, without control tokens and outer white space."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True)).strip()

    def _prompts_of(self, budget_tokens: int) -> CompressorPrompts:
        told = f"{self._instruction} {BUDGET_TOLD.format(budget_tokens)}".strip()
        key = budget_tokens if self._asked_budgets else 0
        if key not in self._prompts:
            self._prompts[key] = CompressorPrompts(self.tokenizer, 1, told if key else self._instruction)
            if len(self._prompts) > CACHED_PROMPTS:
                self._prompts.popitem(last=False)
        return self._prompts[key]


class Pieces:
    """The text of a message as it grows, in pieces that join to the whole.

    White space at an end is held back, for a message has none, and so are characters that are not yet whole.
    """

    def __init__(self, reader: Reader) -> None:
        """Nothing is written yet."""
        self._reader = reader
        self._ids: list[int] = []
        self._said = ""
        # Some tokenizers take spaces out in front of what follows: then only whole words are sure.
        self._whole_words = bool(getattr(reader.tokenizer, "clean_up_tokenization_spaces", False))

    def add(self, token_id: int) -> str:
        """What a further token adds that is sure; often nothing."""
        self._ids.append(token_id)
        sure = self._reader.text(self._ids).rstrip("�").rstrip()
        if self._whole_words:
            sure = sure.rpartition(" ")[0].rstrip()
        return self._further(sure)

    def rest(self, text: str) -> str:
        """What is left of the whole text."""
        return self._further(text)

    def _further(self, text: str) -> str:
        piece = text[len(self._said) :]
        self._said += piece
        return piece
