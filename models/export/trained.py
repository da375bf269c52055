"""An adapter on its base as it is exported: the base as it was published, in float32, and the prompt it learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.adapter_settings import SETTINGS_FILE, AdapterSettings
from models.adapters import load_adapter, merge_adapter, read_adapter
from models.compressor import QUESTION_TOKENS, UNBOUNDED_WINDOW, Compressor
from models.export.prompt import DevicePrompt
from models.loading import context_window, load_model
from models.naming import ModelError, gguf_file
from models.predictor import ANSWER_OPENING, UNLIMITED
from models.prompts import PredictorPrompts

PREDICTOR_WINDOW = 4096
"""The tokens that a runtime makes room for to answer from a message: a message, a question and an answer have less."""


@dataclass(frozen=True)
class Trained:
    """What is exported.

    Attributes:
        folder: the adapter's.
        base: the base model's name, as `models.loading.load_model` takes it.
        revision: the base's branch, tag or commit on the hub; None where it has none.
        adapted: the base in float32 on the CPU, with the adapter.
        tokenizer: the base's.
        settings: what the adapter was trained with.
        device_prompt: its prompt in the pieces that a device puts together.
    """

    folder: Path
    base: str
    revision: str | None
    adapted: PeftModel
    tokenizer: PreTrainedTokenizerBase
    settings: AdapterSettings
    device_prompt: DevicePrompt

    @classmethod
    def load(cls, adapter: str, model: str | None = None) -> "Trained":
        """Read an adapter's folder and its base.

        Args:
            adapter: the folder, which has a ``shorthand.json``.
            model: the base; None for the one that the adapter names.

        Raises:
            ModelError: no adapter there, no settings beside it, a base that is not here or another than its own, a
                scale that makes it infinite, or a prompt that its base's window does not take.
        """
        stored = read_adapter(adapter)
        if stored.settings is None:
            raise ModelError(
                f"adapter {adapter!r}: has no shorthand.json, so that the prompt to send with it is not known; "
                "merge it with PEFT itself"
            )
        base = model or stored.base
        if not base:
            raise ModelError(f"adapter {adapter!r} does not name its base model: give --model")
        # A base that is given in the place of the adapter's own is at no revision of that one.
        revision = stored.settings.base.revision if model is None else None
        plain, tokenizer = load_model(base, "float32", "cpu", revision)
        adapted = load_adapter(plain, stored, base)
        _check_room(adapted, tokenizer, stored.settings, f"adapter {adapter!r}")
        prompt = device_prompt(adapted, tokenizer, stored.settings)
        return cls(Path(adapter), base, revision, adapted, tokenizer, stored.settings, prompt)

    @property
    def base_gguf(self) -> Path | None:
        """The GGUF file that the base came from; None where it came from elsewhere."""
        return gguf_file(self.base)

    def plain(self) -> PreTrainedModel:
        """The base in float32, read anew.

        Raises:
            ModelError: it can no longer be loaded.
        """
        return load_model(self.base, "float32", "cpu", self.revision)[0]

    def merged(self) -> PreTrainedModel:
        """A plain model with the adapter added to its weights, in float32, the base read anew.

        Raises:
            ModelError: the base can no longer be loaded.
        """
        return merge_adapter(load_adapter(self.plain(), read_adapter(self.folder), self.base))

    def prompt_ids(self, text: str, question: str) -> list[int]:
        """The prompt of a document (for a predictor: of a message) and a question, as in training."""
        if self.settings.role == "predictor":
            prompts = predictor_prompts(self.adapted, self.tokenizer, self.settings)
            return [*prompts(text, question).ids, *prompts.format.template_ids(ANSWER_OPENING)]
        return compressor_of(self.adapted, self.tokenizer, self.settings).prompt(text, question).ids


def compressor_of(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, settings: AdapterSettings
) -> Compressor:
    """The compressor that an adapter's settings describe, on a model that has it in one form or another."""
    return Compressor(
        model,
        tokenizer,
        settings.budget_tokens,
        settings.max_context_tokens,
        settings.instruction,
        settings.asked_budgets,
    )


def predictor_prompts(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, settings: AdapterSettings
) -> PredictorPrompts:
    """The prompts of the predictor that an adapter's settings describe."""
    return PredictorPrompts(tokenizer, context_window(model.config) or UNLIMITED, settings.answer_instruction)


def _check_room(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, settings: AdapterSettings, subject: str
) -> None:
    """Refuse a prompt that the window does not take even with a word for document and question.

    Raises:
        ModelError: saying by how much.
    """
    window = context_window(model.config) or UNBOUNDED_WINDOW
    if settings.role == "predictor":
        prompts = predictor_prompts(model, tokenizer, settings)
        asked, reply = len(prompts("a", "a").ids) + len(prompts.format.template_ids(ANSWER_OPENING)), 1
    else:
        compressor = compressor_of(model, tokenizer, settings)
        reply = max(settings.budget_tokens, *settings.asked_budgets, 0)
        asked = len(compressor.prompts("a", "a").ids)
    if asked + reply > window:
        raise ModelError(
            f"{subject}: its prompt alone has {asked} tokens, and with {reply} of a reply that is more than the "
            f"{window} that the model reads; shorten the instruction in {SETTINGS_FILE}"
        )


def device_prompt(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, settings: AdapterSettings
) -> DevicePrompt:
    """The pieces of the prompt of an adapter's training.

    Raises:
        ModelError: the tokenizer's chat template cannot be used, or the model's window has no room.
    """
    if settings.role == "predictor":
        prompts = predictor_prompts(model, tokenizer, settings)
        head, middle, tail = prompts.texts
        tail, limit, tails = tail + ANSWER_OPENING, None, {}
        end = prompts.format.end_token_id
    else:
        compressor = compressor_of(model, tokenizer, settings)
        head, middle, tail = compressor.prompts.texts
        limit, end = compressor.prompts.max_first_tokens, compressor.end_token_id
        tails = {str(budget): compressor.under(budget).prompts.texts[2] for budget in settings.asked_budgets}
    return DevicePrompt(
        role=settings.role,
        head=head,
        middle=middle,
        tail=tail,
        tails=tails,
        question=settings.question,
        end=cast(str, tokenizer.convert_ids_to_tokens(end)),
        end_token_id=end,
        budget_tokens=settings.budget_tokens if settings.role == "compressor" else None,
        max_document_tokens=limit,
        window=_window(model, head, tail, limit, settings),
    )


def _window(
    model: PreTrainedModel | PeftModel, head: str, tail: str, limit: int | None, settings: AdapterSettings
) -> int:
    """The tokens that a runtime has to make room for: a whole window may cost gigabytes that no prompt ever fills."""
    most = context_window(model.config) or UNBOUNDED_WINDOW
    if limit is None:
        return min(most, PREDICTOR_WINDOW)
    # A character is at most a token of a byte-level vocabulary for each of its bytes.
    around = len((head + tail).encode()) + QUESTION_TOKENS
    return min(most, limit + around + settings.budget_tokens)


@torch.no_grad()
def next_log_probs(model: PeftModel, prompts: Sequence[Sequence[int]], with_adapter: bool = True) -> list[torch.Tensor]:
    """log p of every token after each prompt, nats, float32: with the adapter, or the base alone."""
    found = []
    for ids in prompts:
        tokens = torch.tensor([list(ids)])
        if with_adapter:
            logits = model(input_ids=tokens).logits
        else:
            with model.disable_adapter():
                logits = model(input_ids=tokens).logits
        found.append(logits[0, -1].float().log_softmax(-1))
    return found
