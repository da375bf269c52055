"""Token-level prompts in which untrusted text (contexts, questions, messages) can never forge a control token.

A chat template is rendered once with marker words in place of the texts and split at the markers. What the template
wrote is tokenised with control tokens recognised, each text with them switched off, and the ids are joined. Every join
is therefore a token boundary by construction, and a context's ids are the same in front of any question.
"""

import datetime
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from data.errors import one_line
from models.naming import ModelError

DATE = datetime.datetime(2024, 7, 26)
"""Today's date for chat templates that print one, the same every day, as prompts have to be; it is the day that Llama's
own templates fall back on."""

# Marker words: no template writes them, and none changes their letters.
_CONTEXT = "CONTEXTslot7f3a"
_QUESTION = "QUESTIONslot7f3a"
_REPLY = "REPLYslot7f3a"


@dataclass(frozen=True)
class Prompt:
    """A prompt cut after its context: ``prefix_ids`` depend on the context alone, ``suffix_ids`` on the question alone.

    Attributes:
        prefix_ids: the template's opening and the context (for a predictor: the message).
        suffix_ids: the question and the template's tail, up to where the reply begins; never empty.
        truncated_tokens: tokens cut out of the middle of the context, 0 where it fits.
    """

    prefix_ids: list[int]
    suffix_ids: list[int]
    truncated_tokens: int = 0

    @property
    def ids(self) -> list[int]:
        """The whole prompt."""
        return self.prefix_ids + self.suffix_ids


class ChatFormat:
    """How a tokenizer writes one exchange: its chat template, its control tokens and the token that ends a reply.

    Control tokens are the special tokens and whatever added tokens the chat template itself writes (some models leave
    their role markers unmarked as special); white space is never one.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Collect the control tokens.

        Raises:
            ModelError: the tokenizer has no chat template.
        """
        template = tokenizer.chat_template
        self._subject = f"tokenizer {tokenizer.name_or_path or type(tokenizer).__name__!r}"
        if template is None:
            raise ModelError(f"{self._subject} has no chat template")
        if not isinstance(template, str | dict):
            raise ModelError(f"{self._subject}: the chat template should be text, it is {one_line(repr(template), 40)}")
        self.tokenizer = tokenizer
        source = template if isinstance(template, str) else "".join(template.values())
        added = tokenizer.added_tokens_decoder.items()
        self._control = {
            index: token.content
            for index, token in added
            if token.content.strip() and (token.special or token.content in source)
        }
        self._control_starts = re.compile("(?=" + "|".join(map(re.escape, self._control.values())) + ")")

    @property
    def control_ids(self) -> frozenset[int]:
        """The control tokens: none comes out of untrusted text."""
        return frozenset(self._control)

    def text_ids(self, text: str) -> list[int]:
        """Ids of untrusted ``text``: what looks like a control token comes out as ordinary characters.

        Raises:
            ModelError: the vocabulary can write part of ``text`` with a control token only.
        """
        ids = self._plain_ids(text)
        if self._control.keys().isdisjoint(ids):
            return ids
        # Switching special tokens off leaves added tokens that are not marked special: cut each one's text in two.
        cuts = [0, *(match.start() + 1 for match in self._control_starts.finditer(text)), len(text)]
        ids = [index for start, end in itertools.pairwise(cuts) for index in self._plain_ids(text[start:end])]
        if forged := self._control.keys() & set(ids):
            names = ", ".join(sorted(self._control[index] for index in forged))
            raise ModelError(f"the tokenizer cannot write {names} as ordinary text")
        return ids

    def template_ids(self, text: str) -> list[int]:
        """Ids of trusted template text, control tokens recognised, nothing added around it."""
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)

    def turn_ids(self, text: str) -> list[int]:
        """Ids of a user's turn of untrusted ``text``, up to where the reply begins."""
        head, tail = self.parts([{"role": "user", "content": _QUESTION}], [_QUESTION], reply_next=True)
        return self.template_ids(head) + self.text_ids(text) + self.template_ids(tail)

    def parts(self, messages: list[dict[str, str]], slots: Sequence[str], reply_next: bool) -> list[str]:
        """What the template writes before, between and after ``slots``, marker words inside ``messages``.

        Raises:
            ModelError: the template raises, or does not write every slot exactly once and in order.
        """
        try:
            rendered = self.tokenizer.apply_chat_template(
                messages,
                chat_template=_dated(self.tokenizer.get_chat_template()),
                tokenize=False,
                add_generation_prompt=reply_next,
            )
        except Exception as error:  # a template is a program of the model's makers, and may raise anything
            role = messages[-1]["role"]
            raise ModelError(
                f"{self._subject}: the chat template refuses a {role} message: {one_line(error)}"
            ) from error
        texts = [str(rendered)]
        for slot in slots:
            pieces = texts[-1].split(slot)
            if len(pieces) != 2 or str(rendered).count(slot) != 1:
                raise ModelError(
                    f"{self._subject}: the chat template writes a message's text {str(rendered).count(slot)} times or "
                    "out of order; it must write it exactly once"
                )
            texts[-1:] = pieces
        return texts

    @property
    def end_token_id(self) -> int:
        """The token that ends a reply: the first control token the template writes after one, else the tokenizer's eos.

        Raises:
            ModelError: the template writes none and the tokenizer has no eos token.
        """
        messages = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": _REPLY}]
        after = self.template_ids(self.parts(messages, [_REPLY], reply_next=False)[-1])
        end = next((index for index in after if index in self._control), self.tokenizer.eos_token_id)
        if not isinstance(end, int):
            raise ModelError("the chat template ends a reply with no control token and the tokenizer has no eos token")
        return end

    def _plain_ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


class _TwoSlotPrompts:
    """A user's message of a long text, which comes first, and a question.

    The space in front of the question is tokenised with the question, not with the template: byte-level vocabularies
    begin a word with its space.

    Attributes:
        format: how the tokenizer writes an exchange.
        max_first_tokens: longer texts lose their middle.
        head: ids of what the template writes before the long text.
        texts: what the template writes before, between and after the two texts, as text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_first_tokens: int, instruction: str) -> None:
        if max_first_tokens < 1:
            raise ValueError(f"the token limit of a prompt's text must be at least 1, not {max_first_tokens}")
        self.format = ChatFormat(tokenizer)
        self.max_first_tokens = max_first_tokens
        content = f"{_CONTEXT}\n\nQuestion:{_QUESTION}" + (f"\n\n{instruction}" if instruction else "")
        parts = self.format.parts([{"role": "user", "content": content}], [_CONTEXT, _QUESTION], reply_next=True)
        self.texts = (parts[0], parts[1], parts[2])
        self.head, self._middle, self._tail = map(self.format.template_ids, parts)

    def prefix(self, text: str) -> tuple[list[int], int]:
        """Ids up to the end of the long text, and how many tokens were cut out of its middle."""
        ids = self.format.text_ids(text)
        kept = truncate_middle(ids, self.max_first_tokens)
        return self.head + kept, len(ids) - len(kept)

    def _suffix(self, question_ids: list[int]) -> list[int]:
        return self._middle + question_ids + self._tail


class CompressorPrompts(_TwoSlotPrompts):
    """What the compressor reads: the context, an empty line, ``Question: `` and the question, then the instruction.

    Only a user message is used, so a template that knows no system role is as good as any.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_context_tokens: int, instruction: str = "") -> None:
        """Fix the template.

        Args:
            tokenizer: any tokenizer with a chat template.
            max_context_tokens: longer contexts lose their middle.
            instruction: trusted text, in a paragraph of its own after the question, so that the context stays a prefix.

        Raises:
            ModelError: the chat template cannot be used, see `ChatFormat`.
            ValueError: a limit below 1.
        """
        super().__init__(tokenizer, max_context_tokens, instruction)

    def suffix(self, question: str) -> list[int]:
        """Ids from the end of the context to where the message begins."""
        return self._suffix(self.format.text_ids(" " + question))

    def __call__(self, context: str, question: str) -> Prompt:
        """The prompt for one context and question."""
        prefix_ids, truncated = self.prefix(context)
        return Prompt(prefix_ids, self.suffix(question), truncated)


class PredictorPrompts(_TwoSlotPrompts):
    """What the predictor reads: the message, an empty line, the question, a line of options, then the instruction."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_message_tokens: int, instruction: str = "") -> None:
        """Fix the template.

        Args:
            tokenizer: any tokenizer with a chat template.
            max_message_tokens: longer messages lose their middle.
            instruction: trusted text, in a paragraph of its own after the question and its options.

        Raises:
            ModelError: the chat template cannot be used, see `ChatFormat`.
            ValueError: a limit below 1.
        """
        super().__init__(tokenizer, max_message_tokens, instruction)

    def suffix(self, question: str, options: Sequence[str] = ()) -> list[int]:
        """Ids from the end of the message to where the answer begins; the line of options only where there are any."""
        ids = self.format.text_ids(" " + question)
        if options:
            ids = ids + self.format.template_ids("\nOptions:") + self.format.text_ids(" " + "; ".join(options))
        return self._suffix(ids)

    def __call__(self, message: str, question: str, options: Sequence[str] = ()) -> Prompt:
        """The prompt for one message and question."""
        prefix_ids, truncated = self.prefix(message)
        return Prompt(prefix_ids, self.suffix(question, options), truncated)


def _dated(template: str) -> str:
    """A chat template for which today is `DATE`: its ``strftime_now`` becomes a macro of its own."""
    if "strftime_now" not in template:
        return template
    codes = [f"%{letter}" for letter in "aAwdbBmyYHIpMSfjUWcxX"]
    # After a dash a number has no zero in front.
    values = {code: DATE.strftime(code) for code in codes} | {"%-d": str(DATE.day), "%-m": str(DATE.month)}
    written = "".join(f" | replace({code!r}, {value!r})" for code, value in values.items())
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{written} }}}}{{%- endmacro -%}}{template}"


def truncate_middle(ids: list[int], limit: int) -> list[int]:
    """The first and the last tokens of ``ids``, ``limit`` in all; of an odd limit the front gets one more."""
    if len(ids) <= limit:
        return ids
    return ids[: limit - limit // 2] + ids[len(ids) - limit // 2 :]


def predictor_text(message: str, question: str, options: Sequence[str], instruction: str = "") -> str:
    """What `PredictorPrompts` writes into a user's turn, as text: for servers that apply a template of their own."""
    shown = f"\nOptions: {'; '.join(options)}" if options else ""
    return f"{message}\n\nQuestion: {question}{shown}" + (f"\n\n{instruction}" if instruction else "")
