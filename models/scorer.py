"""The scorer: a frozen LM that fills the log-prob matrix L[z, l] = log s(z given x_l, q), in nats.

Every message is scored under its own context and its negatives with its own question held fixed; a context is read
once, however many messages are scored against it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.loading import check_window
from models.prompts import CompressorPrompts
from models.shared_prefix import MAX_TOKENS_PER_PASS, Continuation, batched_message_log_probs

NO_CONTEXT = ""
"""The scorer shown no context: a column whose log-probabilities are those of a prior r(z given q)."""

_Cells = dict[str, dict[tuple[str, tuple[int, ...]], list[tuple[int, int]]]]
"""By context: what is scored there, a question with the tokens of a message, and the cells of the matrix it fills."""


@dataclass(frozen=True)
class Scores:
    """Log-probabilities of messages under contexts, on the CPU. NaN marks a score that was not asked for or failed.

    Attributes:
        log_probs: log s(message given context, question), nats, the end token included.
        token_log_probs: log s of each token given those before it, nats; NaN beyond a message's end.
        token_mask: which tokens a message has, the end token included.
        token_ids: the scored tokens of each message, the end token included, in the scorer's vocabulary.
        token_texts: the text of each scored token by itself.
        retokenised: the share of messages that came as text and were tokenised here.
        truncated_contexts: how many of the distinct contexts lost their middle.
        truncated_tokens: how many tokens were cut out of them together.
    """

    log_probs: Float[Tensor, "messages contexts"]
    token_log_probs: Float[Tensor, "messages contexts tokens"]
    token_mask: Bool[Tensor, "messages tokens"]
    token_ids: list[list[int]]
    token_texts: list[list[str]]
    retokenised: float
    truncated_contexts: int
    truncated_tokens: int


class Scorer:
    """Scores messages with a frozen model: evaluation mode, no gradient, no adapter."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        max_context_tokens: int,
        instruction: str = "",
        max_tokens_per_pass: int = MAX_TOKENS_PER_PASS,
    ) -> None:
        """Fix the model and the prompts.

        Args:
            model: a causal LM; of a `PeftModel` the base is used, with every adapter switched off.
            tokenizer: the model's own, with a chat template.
            max_context_tokens: longer contexts lose their middle (counted in `Scores`).
            instruction: trusted text after the question, as the compressor reads it.
            max_tokens_per_pass: bound on the tokens of one forward pass (see `token_scores`).

        Raises:
            ModelError: the tokenizer has no usable chat template.
        """
        self.model = model
        self.prompts = CompressorPrompts(tokenizer, max_context_tokens, instruction)
        self.end_token_id = self.prompts.format.end_token_id
        self.max_tokens_per_pass = max_tokens_per_pass
        self._texts: dict[int, str] = {}

    def fill(
        self,
        messages: Sequence[str | Sequence[int]],
        questions: Sequence[str],
        contexts: Sequence[str],
        valid: Bool[Tensor, "messages contexts"],
        ended: Sequence[bool] | None = None,
    ) -> Scores:
        """The log-prob matrix, as far as ``valid`` asks for it.

        Equal contexts are read once, equal (context, question, message) triples scored once.

        Args:
            messages: token ids of the scorer's own vocabulary without the end token, or texts, tokenised here. Empty
                is allowed.
            questions: each message's own question, held fixed over its row.
            contexts: the columns; `NO_CONTEXT` among them shows the scorer none.
            valid: which scores to compute.
            ended: False for a message that was cut off before its end token, which is then not scored; all True
                without it. A text of no token here, such as white space, is scored as an ended one.

        Raises:
            ValueError: lengths that do not match, or a message that already holds its end token or has no token.
            ModelError: a prompt with its message is longer than the model takes.
        """
        self._check_arguments(messages, questions, contexts, valid, ended)
        token_ids = self._token_ids(messages, ended)
        cells = _cells_by_context(token_ids, questions, contexts, valid)
        prefixes = [self.prompts.prefix(context) for context in cells]
        filled = self._score([ids for ids, _ in prefixes], cells)
        token_mask = _mask(token_ids)
        token_log_probs = torch.full((*valid.shape, token_mask.shape[1]), torch.nan)
        for (message, context), log_probs in filled:
            token_log_probs[message, context, : len(log_probs)] = log_probs
        totals = token_log_probs.where(token_mask[:, None], 0.0).sum(-1)
        return Scores(
            log_probs=totals.where(totals.isfinite(), torch.nan),
            token_log_probs=token_log_probs,
            token_mask=token_mask,
            token_ids=token_ids,
            token_texts=[[self._text(token) for token in ids] for ids in token_ids],
            retokenised=sum(isinstance(message, str) for message in messages) / max(1, len(messages)),
            truncated_contexts=sum(cut > 0 for _, cut in prefixes),
            truncated_tokens=sum(cut for _, cut in prefixes),
        )

    def spells(self, token_ids: Sequence[int], text: str) -> bool:
        """Whether tokens of the scorer's own vocabulary read as a text, but for a space before its first word.

        They do not where they hold control tokens, or white space around them, that the text lacks.
        """
        spelled = str(self.prompts.format.tokenizer.decode(list(token_ids)))
        return spelled == text or (text != "" and spelled == f" {text}")

    def _text(self, token: int) -> str:
        if token not in self._texts:
            self._texts[token] = str(self.prompts.format.tokenizer.decode([token]))
        return self._texts[token]

    def _check_arguments(
        self,
        messages: Sequence[str | Sequence[int]],
        questions: Sequence[str],
        contexts: Sequence[str],
        valid: Tensor,
        ended: Sequence[bool] | None,
    ) -> None:
        if valid.shape != (len(messages), len(contexts)):
            shape = tuple(valid.shape)
            raise ValueError(
                f"valid has shape {shape}, but there are {len(messages)} messages, {len(contexts)} contexts"
            )
        if len(questions) != len(messages):
            raise ValueError(f"{len(messages)} messages, but {len(questions)} questions")
        if ended is not None and len(ended) != len(messages):
            raise ValueError(f"{len(messages)} messages, but {len(ended)} values of ended")

    def _token_ids(self, messages: Sequence[str | Sequence[int]], ended: Sequence[bool] | None) -> list[list[int]]:
        """The tokens that are scored: those of each message and, where it ended, the end token."""
        token_ids = []
        for index, message in enumerate(messages):
            ids = self.prompts.format.text_ids(message) if isinstance(message, str) else list(message)
            if self.end_token_id in ids:
                raise ValueError(f"message {index} holds the end token: pass its ids up to there, and `ended`")
            blank = isinstance(message, str) and not ids
            ids += [self.end_token_id] if ended is None or ended[index] or blank else []
            if not ids:
                raise ValueError(f"message {index} is empty and has not ended: it has no token to score")
            token_ids.append(ids)
        return token_ids

    def _score(self, prefixes: list[list[int]], cells: _Cells) -> list[tuple[tuple[int, int], Tensor]]:
        """The log-probabilities of the tokens in every cell; cells with equal ones are computed once."""
        questions = {question for group in cells.values() for question, _ in group}
        suffixes = {question: self.prompts.suffix(question) for question in questions}
        jobs = [[Continuation(suffixes[question], ids) for question, ids in group] for group in cells.values()]
        for prefix, group in zip(prefixes, jobs, strict=True):
            longest = max(len(suffix) + len(message) for suffix, message in group)
            check_window(self.model.config, len(prefix) + longest)
        with _frozen(self.model) as model:
            results = batched_message_log_probs(model, prefixes, jobs, self.max_tokens_per_pass)
        cells_of_row = [equal_cells for group in cells.values() for equal_cells in group.values()]
        rows = [row.cpu() for group in results for row in group]
        return [(cell, row) for row, equal_cells in zip(rows, cells_of_row, strict=True) for cell in equal_cells]


def _cells_by_context(
    token_ids: list[list[int]], questions: Sequence[str], contexts: Sequence[str], valid: Tensor
) -> _Cells:
    cells: _Cells = {}
    indices: list[tuple[int, int]] = valid.nonzero().tolist()
    for message, context in indices:
        group = cells.setdefault(contexts[context], {})
        group.setdefault((questions[message], tuple(token_ids[message])), []).append((message, context))
    return cells


def _mask(token_ids: list[list[int]]) -> Bool[Tensor, "messages tokens"]:
    lengths = torch.tensor([len(ids) for ids in token_ids], dtype=torch.long)
    return torch.arange(max(map(len, token_ids), default=0)) < lengths[:, None]


@contextmanager
def _frozen(model: PreTrainedModel | PeftModel) -> Iterator[PreTrainedModel]:
    """The model without adapters, in evaluation mode; a policy in training is put back as it was."""
    training = [module for module in model.modules() if module.training]
    # PEFT makes the active adapter trainable when it switches adapters back on, whether it was or not.
    gradients = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    model.eval()
    try:
        if isinstance(model, PeftModel):
            with model.disable_adapter():
                yield cast(PreTrainedModel, model.get_base_model())
        else:
            yield model
    finally:
        for module in training:
            module.training = True
        for parameter, required in gradients:
            parameter.requires_grad_(required)
