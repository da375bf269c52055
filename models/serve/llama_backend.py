"""A compressor as a GGUF file, run by llama.cpp in this process.

What it is sent are the token ids of `models.prompts`, so that a document cannot forge a control token; the tokenizer
and the prompt come from the adapter's folder. What messages carry cannot be told: the file has the adapter in it, and
llama.cpp gives no log-probabilities of given tokens.
"""

import importlib
import secrets
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from data.errors import one_line
from models.adapter_settings import AdapterSettings
from models.compressor import DEFAULT_BUDGET
from models.gguf_header import read_header
from models.naming import ModelError
from models.serve.backend import Choice, Task, Watch, Written
from models.serve.reading import Reader

DEFAULT_WINDOW = 16_384
"""Tokens that are read where neither the file nor the user says less: llama.cpp takes memory for all at once."""

PASS_TOKENS = 128
"""Tokens that llama.cpp reads at a time, three seconds for a model of 135 million parameters on one slow core; between
two passes it can be told to stop."""

ERRORS_ALONE = 1
"""llama.cpp's verbosity at which it says nothing of ordinary work."""


class LlamaBackend:
    """llama.cpp with one model."""

    def __init__(
        self,
        file: Path,
        tokenizer: PreTrainedTokenizerBase,
        settings: AdapterSettings | None,
        window: int | None = None,
        budget_tokens: int | None = None,
        threads: int = 1,
    ) -> None:
        """Load the model.

        Args:
            file: a GGUF file of the compressor, its adapter merged.
            tokenizer: the compressor's own, with its chat template.
            settings: what the adapter was trained with; None where nothing says so.
            window: tokens that are read, prompt and message together; None takes the file's, up to `DEFAULT_WINDOW`.
            budget_tokens: the budget where a request names none; None takes the adapter's.
            threads: of llama.cpp.

        Raises:
            ModelError: llama.cpp is not installed, or cannot load the file.
        """
        subject = f"model {file.name!r}"
        built_for = read_header(file, subject).window or DEFAULT_WINDOW
        self.window = min(window or DEFAULT_WINDOW, built_for)
        self.reader = Reader(
            tokenizer,
            self.window,
            None if settings is None else settings.max_context_tokens,
            "" if settings is None else settings.instruction,
            () if settings is None else settings.asked_budgets,
        )
        self.hidden = settings is not None and settings.question == "hidden"
        self.budget_tokens = budget_tokens or (DEFAULT_BUDGET if settings is None else settings.budget_tokens)
        self.most_budget_tokens = self.reader.most_budget_tokens
        self._server = _start(file, self.window, threads, subject)

    def describe(self) -> dict[str, Any]:
        """Names and limits."""
        return {"backend": "llama.cpp", "window": self.window}

    def write(self, task: Task, watch: Watch) -> Written:
        """Messages of a document, one after the other: see `Backend.write`.

        Raises:
            Refusal: the question leaves no room for a document.
            Abandoned, Overdue: as the watch says, looked at between two passes and before every token.
            ModelError: llama.cpp fails.
        """
        watch.check()
        prompt = self.reader.read(task.document, task.question, task.budget_tokens)
        choices = tuple(self._choice(task, number, prompt.ids, watch) for number in range(task.n))
        return Written(choices, len(prompt.ids), prompt.truncated_tokens)

    def _choice(self, task: Task, number: int, prompt_ids: list[int], watch: Watch) -> Choice:
        heard = _Heard(watch, number)
        body = {
            "prompt": prompt_ids,
            "max_tokens": task.budget_tokens,
            "temperature": task.temperature,
            # All of the distribution is sampled from, as in training.
            "top_k": 0,
            "top_p": 1.0,
            "min_p": 0.0,
            # The largest seed stands for a random one.
            "seed": (task.seed + number) % (2**32 - 1),
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,
        }
        failed = self._server.handle_completions(body, heard.take)
        if heard.stopped is not None:
            raise heard.stopped
        error = heard.error or (failed.get("error") if isinstance(failed, dict) else None)
        if error is not None or heard.tokens is None:
            said = error.get("message", error) if isinstance(error, dict) else error or "its reply has no end"
            raise ModelError(f"llama.cpp: {one_line(said)}")
        heard.finish()
        return Choice(heard.text, heard.tokens, heard.ended)


class _Heard:
    """What llama.cpp says of one message: pieces of text, how far it has read, and at the end the counts.

    llama.cpp writes no control tokens out and holds back characters that are not whole; white space around a message
    is taken off here.
    """

    def __init__(self, watch: Watch, number: int) -> None:
        self.ended = False
        self.tokens: int | None = None
        self.error: Any = None
        self.stopped: Exception | None = None
        self._watch, self._number = watch, number
        self._all, self._said = "", 0

    @property
    def text(self) -> str:
        """The message so far."""
        return self._all.strip()

    def take(self, piece: Any) -> bool:
        """Hear a piece; True tells llama.cpp to stop."""
        try:
            self._watch.check()
            self._take(piece)
        except Exception as error:  # raised after the call, for it would not pass through llama.cpp
            self.stopped = error
        return self.stopped is not None

    def finish(self) -> None:
        """The message is whole."""
        self._say(self.text)

    def _take(self, piece: Any) -> None:
        if not isinstance(piece, dict) or piece.get("error") is not None:
            self.error = piece.get("error") if isinstance(piece, dict) else piece
            return
        if piece.get("usage") is not None:
            self.tokens = piece["usage"]["completion_tokens"]
        for choice in piece.get("choices", ()):
            self._all += choice.get("text") or ""
            self.ended |= choice.get("finish_reason") == "stop"
        self._say(self.text)

    def _say(self, text: str) -> None:
        self._watch.say(self._number, text[self._said :])
        self._said = len(text)


def _start(file: Path, window: int, threads: int, subject: str) -> Any:
    try:
        xllamacpp: Any = importlib.import_module("xllamacpp")
    except ImportError as error:
        raise ModelError(f"{subject}: llama.cpp is not installed; pip install xllamacpp") from error
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.warmup = window, 1, False
    settings.n_batch = settings.n_ubatch = PASS_TOKENS
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.verbosity = ERRORS_ALONE
    # Prompts of earlier requests are not kept.
    settings.cache_ram_mib = 0
    # It listens on loopback as well, where nobody else is to be served.
    settings.port, settings.api_keys = 0, [secrets.token_hex(24)]
    try:
        return xllamacpp.Server(settings)
    except Exception as error:  # a binding, which raises what it likes
        raise ModelError(f"{subject}: llama.cpp cannot load it: {one_line(error)}") from error
