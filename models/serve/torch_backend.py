"""The compressor in this process, as `models.compressor` writes, with what each token carries."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from data.sample import Document, Question, Sample
from models.channel import BoundScorer
from models.compressor import Compressor, Message
from models.prompts import Prompt
from models.scorer import NO_CONTEXT, Scorer
from models.serve.backend import Choice, Task, Watch, Written
from models.serve.reading import Pieces, Reader
from models.shared_prefix import Reply, generate


class TorchBackend:
    """A `Compressor`: its messages are those of `Compressor.write`, and it knows what they carry in bits."""

    def __init__(self, compressor: Compressor, hidden: bool = False) -> None:
        """Fix the compressor.

        Args:
            compressor: used by this backend alone from now on; put into evaluation mode.
            hidden: whether it is told no question.

        Raises:
            ModelError: its window is too small.
        """
        compressor.model.eval()
        self.compressor = compressor
        self.hidden = hidden
        self.reader = Reader(
            compressor.tokenizer,
            compressor.window,
            compressor.max_context_tokens,
            compressor.instruction,
            compressor.asked_budgets,
        )
        self.budget_tokens = compressor.budget_tokens
        self.most_budget_tokens = self.reader.most_budget_tokens

    def describe(self) -> dict[str, Any]:
        """Names and limits."""
        return {"backend": "torch", "window": self.compressor.window}

    def write(self, task: Task, watch: Watch) -> Written:
        """Messages of a document: see `Backend.write`.

        Raises:
            Refusal: the question leaves no room for a document.
            Abandoned, Overdue: as the watch says, looked at before every layer of the model.
            NonFiniteError: the weights have diverged.
        """
        watch.check()
        prompt = self.reader.read(task.document, task.question, task.budget_tokens)
        pieces = [Pieces(self.reader) for _ in range(task.n)]

        def heard(number: int, token: int) -> None:
            watch.check()
            if watch.listening and token != self.reader.end_token_id:
                watch.say(number, pieces[number].add(token))

        with _watched(self.compressor.model, watch):
            replies = generate(
                self.compressor.model,
                [prompt.ids],
                task.budget_tokens,
                self.reader.end_token_id,
                task.n,
                task.temperature,
                [task.seed],
                heard,
            )
            for number, reply in enumerate(replies):
                watch.say(number, pieces[number].rest(self.reader.text(reply.token_ids)))
            # Equal messages carry the same, which is told once.
            keys = [(reply.ended, *reply.token_ids) for reply in replies]
            choices = {
                key: self._choice(task, prompt, reply) for key, reply in dict(zip(keys, replies, strict=True)).items()
            }
        return Written(tuple(choices[key] for key in keys), len(prompt.ids), prompt.truncated_tokens)

    def _choice(self, task: Task, prompt: Prompt, reply: Reply) -> Choice:
        message = Message(self.reader.text(reply.token_ids), reply.token_ids, reply.ended, reply.log_probs)
        if not task.bits:
            return Choice(message.text, message.tokens, message.ended)
        read = len(prompt.prefix_ids) - len(self.compressor.prompts.head)
        parts = token_bits(self.compressor, task.document, task.question, message, read)
        total = math.fsum(bits for _, bits in parts)
        finite = tuple((text, bits if math.isfinite(bits) else None) for text, bits in parts)
        return Choice(message.text, message.tokens, message.ended, total if math.isfinite(total) else None, finite)


def token_bits(
    compressor: Compressor, document: str, question: str, message: Message, document_tokens: int
) -> list[tuple[str, float]]:
    """What each token of a message tells of its document: log2 of s(token given document) over s(token given none).

    Their sum is what `models.compress_job.bits` gives for the message.

    Args:
        compressor: s is its base without adapter, under its own prompt.
        document: what it read.
        question: what it was asked.
        message: what it wrote.
        document_tokens: how many tokens of the document it read; a longer document loses its middle.
    """
    scorer = Scorer(compressor.model, compressor.tokenizer, document_tokens, compressor.instruction)
    sample = Sample(Document("0", "serve", document, ()), Question("0", question, (), "judge"))
    contexts = list(dict.fromkeys([document, NO_CONTEXT]))
    valid = torch.ones(1, len(contexts), dtype=torch.bool)
    scores = BoundScorer(scorer, True).score([sample], [message], contexts, valid)
    log_probs = scores.token_log_probs[0]
    bits: list[float] = ((log_probs[0] - log_probs[-1]) / math.log(2)).tolist()
    return list(zip(scores.token_texts[0], bits, strict=True))


@contextmanager
def _watched(model: nn.Module, watch: Watch) -> Iterator[None]:
    """Look at the watch before every layer: reading a long document takes far longer than writing a token."""
    layers = [layer for module in model.modules() if isinstance(module, nn.ModuleList) for layer in module]
    handles = [layer.register_forward_pre_hook(lambda *_: watch.check()) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
