"""Models and documents as a recipe names them: what training and evaluation both start from."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar
from weakref import WeakValueDictionary

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.command import say
from configs.sections import PredictorConfig, Recipe, ScorerConfig, TaskConfig, WriterConfig
from configs.servers import open_server
from configs.tree import ConfigError
from data.errors import DataError, one_line
from data.evidence import evidence_basis
from data.registry import TASKS, load_documents
from data.sample import Document, Sample, samples_of, with_questions_together, without_questions
from data.task import Request
from models.adapter_settings import read_settings
from models.adapters import load_adapter, merge_adapter, read_adapter
from models.channel import BoundScorer
from models.compressor import Compressor
from models.loading import context_window, load_model, load_tokenizer
from models.naming import ModelError
from models.predictor import UNLIMITED, LocalPredictor, Predictor, RemotePredictor
from models.prompts import ChatFormat
from models.scorer import Scorer

Say = Callable[[str], None]
"""Takes a line for whoever runs the command, such as what was skipped or cut."""

MANY_DOCUMENTS = 10_000
"""From how many documents on their generation is announced: ten seconds without a word look like a fault."""

_frozen_models: "WeakValueDictionary[tuple[str, str, str, str | None, str | None], PreTrainedModel]" = (
    WeakValueDictionary()
)
"""The models in use that are not trained, by name, type, device, revision and adapter."""

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def device() -> str:
    """The device this process computes on, by torch's name."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def instructions(recipe: Recipe) -> tuple[str, str]:
    """What the compressor is told, and what the predictor is told; the tasks of one run must agree on both.

    Raises:
        ConfigError: they do not.
    """
    pairs = {
        (
            TASKS[task.name].instruction if task.instruction is None else task.instruction,
            TASKS[task.name].answer_instruction if task.answer_instruction is None else task.answer_instruction,
        )
        for task in recipe.tasks
    }
    if len(pairs) > 1:
        names = ", ".join(task.name for task in recipe.tasks)
        raise ConfigError(f"tasks = {names}: have different instructions; give them runs of their own")
    return pairs.pop()


def build_predictor(
    config: PredictorConfig, instruction: str, cache: Path | None = None, say: Say = say
) -> tuple[Predictor, PreTrainedModel | None]:
    """The predictor, and its model where it runs in this process; a message beyond its window is refused, not cut.

    Args:
        config: names it.
        instruction: what it is told.
        cache: the file that keeps a server's answers; None keeps none.
        say: takes what has to be said of a server.

    Raises:
        ModelError: a local model or its adapter cannot be loaded.
        EndpointError: the server of a remote one is not there or refuses its key, or the key is missing.
    """
    if config.endpoint is not None:
        endpoint = open_server(config, config.model, cache, say)
        endpoint.probe()
        tokenizer = None if config.tokenizer is None else load_tokenizer(config.tokenizer)
        return RemotePredictor(endpoint, config.max_answer_tokens, instruction, tokenizer, config.request), None
    model, tokenizer = frozen_model(config.model, config.dtype, config.revision, config.adapter)
    if config.adapter is not None and (told := _told_otherwise(config.adapter, instruction)):
        say(told)
    window = context_window(model.config) or UNLIMITED
    return LocalPredictor(model, tokenizer, config.max_answer_tokens, window, instruction), model


def build_scorer(
    config: ScorerConfig, compressor: Compressor, instruction: str, say: Say
) -> tuple[BoundScorer, PreTrainedModel | None]:
    """The scorer of a compressor's messages, and its model where it has one of its own.

    Raises:
        ModelError: the model cannot be loaded.
    """
    limit = compressor.prompts.max_first_tokens
    if config.model is None:
        return BoundScorer(Scorer(compressor.model, compressor.tokenizer, limit, instruction), True), None
    model, tokenizer = frozen_model(config.model, config.dtype, config.revision)
    shares = same_vocabulary(tokenizer, compressor.tokenizer)
    if not shares:
        say(f"{config.model} has another vocabulary than the compressor: messages are scored as re-tokenised text")
    return BoundScorer(Scorer(model, tokenizer, limit, instruction), shares), model


def _told_otherwise(adapter: str, instruction: str) -> str | None:
    """That a predictor's adapter was trained with another instruction than it is to answer under; None where not."""
    settings = read_settings(adapter)
    if settings is None or settings.answer_instruction == instruction:
        return None
    return (
        f"predictor.adapter {adapter!r}: told {one_line(repr(instruction), 60)}, and trained with "
        f"{one_line(repr(settings.answer_instruction), 60)}"
    )


def frozen_model(
    name: str, dtype: str, revision: str | None, adapter: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model that is not trained, with its tokenizer: where predictor and scorer are one model, it is loaded once.

    An adapter is merged into it, so that it costs nothing.

    Raises:
        ModelError: it or its adapter cannot be loaded, or the adapter is a compressor's.
    """
    key = (name, dtype, str(device()), revision or "", adapter or "")
    model = _frozen_models.get(key)
    if model is not None:
        return model, load_tokenizer(name, revision)
    stored = None if adapter is None else read_adapter(adapter)
    if stored is not None and stored.settings is not None and stored.settings.role != "predictor":
        raise ModelError(f"adapter {adapter!r} makes a compressor of its model, and a predictor's is needed")
    model, tokenizer = load_model(name, dtype, device(), revision)
    if stored is not None:
        model = merge_adapter(load_adapter(model, stored, name))
    model.requires_grad_(False)
    _frozen_models[key] = model
    return model, tokenizer


def same_vocabulary(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Whether token ids mean the same to both tokenizers."""
    return first.get_vocab() == second.get_vocab()


def load_samples(
    recipe: AnyRecipe,
    compressor: Compressor,
    purpose: Literal["train", "evaluate"],
    request: Callable[[AnyRecipe, TaskConfig], Request],
    say: Say,
    told: Callable[[Document], Document] | None = None,
) -> list[Sample]:
    """The questions that a recipe asks; long contexts are cut once, and what is cut or left out is counted and said.

    Args:
        recipe: names the tasks.
        compressor: reads the contexts, and says how long they are.
        purpose: what the questions are for, in messages.
        request: which documents of a task to load; contexts are counted in the compressor's tokens, whatever it says.
        say: takes what has to be said.
        told: gives a document what the compressor is told of its questions: see `telling`; None tells it one by one.

    Raises:
        DataError: documents cannot be read, or there is no question.
    """
    documents = read_documents(recipe, compressor.prompts.format, purpose, request, say, told)
    samples = fit(documents, compressor, purpose, say)
    tell_evidence(recipe, samples, purpose, say)
    return samples


def telling(compressor: WriterConfig) -> Callable[[Document], Document] | None:
    """What documents need for a compressor that is told none of their questions, or several at once."""
    if compressor.question == "several":
        return partial(with_questions_together, count=compressor.questions_together)
    return without_questions if compressor.question == "hidden" else None


def tell_evidence(recipe: Recipe, samples: Sequence[Sample], purpose: str, say: Say) -> None:
    """Say, where twins are asked for, how many questions have evidence for them to change, and how it is known.

    Args:
        recipe: says whether twins are asked for.
        samples: the questions, of documents as the compressor reads them.
        purpose: see `load_samples`.
        say: takes the line.
    """
    if not recipe.information.negatives.twins:
        return
    counts = Counter(evidence_basis(sample.document, sample.question) for sample in samples)
    words = {"answer": "with a gold answer", "evidence": "marked by the task", "likely": "nearest to the question"}
    known = ", ".join(f"{counts[basis]} {told}" for basis, told in words.items())
    say(f"sentences that twins change, by question to {purpose} on: {known}, {counts[None]} without any, thus no twins")


def read_documents(
    recipe: AnyRecipe,
    chat: ChatFormat,
    purpose: str,
    request: Callable[[AnyRecipe, TaskConfig], Request],
    say: Say,
    told: Callable[[Document], Document] | None = None,
) -> list[Document]:
    """The documents that a recipe names, whole; it takes the compressor's tokenizer alone, not its weights.

    Args:
        recipe: names the tasks.
        chat: gives the compressor's tokens, which lengths are counted in.
        purpose: see `load_samples`.
        request: see `load_samples`.
        say: takes what has to be said.
        told: see `load_samples`.

    Raises:
        DataError: documents cannot be read, or there is no question.
    """
    documents = [document for task in recipe.tasks for document in _load_task(task, request(recipe, task), chat, say)]
    if not any(document.questions for document in documents):
        raise DataError(f"no questions to {purpose} on in {', '.join(task.name for task in recipe.tasks)}")
    return documents if told is None else [told(document) for document in documents]


def fit(documents: Sequence[Document], compressor: Compressor, purpose: str, say: Say) -> list[Sample]:
    """The questions of documents as the compressor can read them: see `load_samples`.

    Raises:
        DataError: it can read none.
    """
    readable = [compressor.fit(document) for document in documents]
    cuts = [tokens for _, tokens in readable if tokens]
    if cuts:
        say(
            f"{len(cuts)} of {len(documents)} contexts to {purpose} on are longer than the room for them, "
            f"{compressor.prompts.max_first_tokens} tokens: {sum(cuts)} tokens cut out of their middles"
        )
    every = samples_of([document for document, _ in readable])
    samples = [sample for sample in every if compressor.fits(_texts(sample), sample.compressor_question)]
    if len(samples) < len(every):
        say(
            f"{len(every) - len(samples)} of {len(every)} questions to {purpose} on are skipped: the model's window of "
            f"{compressor.window} tokens does not take them beside their context and a message"
        )
    if not samples:
        room = f"{compressor.prompts.max_first_tokens} of a document and {compressor.budget_tokens} of a message"
        raise DataError(
            f"no questions to {purpose} on: the model takes {compressor.window} tokens, too few for any of the "
            f"{len(every)} with {room}; lower max_context_tokens or budget_tokens"
        )
    return samples


def _texts(sample: Sample) -> tuple[str, ...]:
    return sample.document.parts or (sample.document.text,)


def _load_task(task: TaskConfig, request: Request, chat: ChatFormat, say: Say) -> list[Document]:
    request = replace(request, count_tokens=lambda text: len(chat.text_ids(text)))
    if task.embedded and (request.documents or 0) >= MANY_DOCUMENTS:
        say(f"{task.name}: generating {request.documents:,} documents")
    loaded = load_documents(task.name, request)
    for reason, count in loaded.skipped.items():
        say(f"{task.name}: skipped {count} ({reason})")
    return loaded.documents


def evaluation_request(recipe: Recipe, task: TaskConfig) -> Request:
    """Which documents of a task the evaluation loads: held-out ones, as many as the recipe says."""
    return Request(
        split=task.eval_split,
        source=task.eval_source or task.source,
        documents=recipe.eval.documents,
        questions_per_document=recipe.eval.questions_per_document,
        facts=task.facts,
        seed=recipe.seed,
        variant=task.variant,
        context_tokens=task.context_tokens,
        columns=task.columns,
        metric=task.metric,
    )
