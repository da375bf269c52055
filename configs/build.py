"""Models and documents as a recipe names them: what training and evaluation both start from."""

import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.sections import PredictorConfig, Recipe, ScorerConfig, TaskConfig
from configs.tree import ConfigError
from data.errors import DataError
from data.registry import TASKS, load_documents
from data.sample import Document, Sample, samples_of
from models.channel import BoundScorer
from models.compressor import Compressor
from models.endpoint import Endpoint
from models.loading import context_window, load_model, load_tokenizer
from models.predictor import UNLIMITED, LocalPredictor, Predictor, RemotePredictor
from models.scorer import Scorer

Say = Callable[[str], None]


def device() -> str:
    """Where this process computes."""
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"


def instructions(recipe: Recipe) -> tuple[str, str]:
    """What compressor and predictor are told; the tasks of one run must agree on it.

    Raises:
        ConfigError: they do not.
    """
    found = {(TASKS[task.name].instruction, TASKS[task.name].answer_instruction) for task in recipe.tasks}
    if len(found) > 1:
        names = ", ".join(task.name for task in recipe.tasks)
        raise ConfigError(f"tasks = {names}: have different instructions; give them runs of their own")
    return found.pop()


def build_predictor(config: PredictorConfig, instruction: str) -> tuple[Predictor, PreTrainedModel | None]:
    """The predictor, and its model where it runs in this process; a message beyond its window is refused, not cut.

    Raises:
        ModelError: a local model cannot be loaded.
        EndpointError: the address of a remote one is none.
    """
    if config.endpoint is not None:
        tokenizer = None if config.tokenizer is None else load_tokenizer(config.tokenizer)
        endpoint = Endpoint(config.endpoint, config.model, key_variable=config.api_key_variable)
        return RemotePredictor(endpoint, config.max_answer_tokens, instruction, tokenizer), None
    model, tokenizer = load_model(config.model, config.dtype, device(), config.revision)
    model.requires_grad_(False)
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
    model, tokenizer = load_model(config.model, config.dtype, device(), config.revision)
    model.requires_grad_(False)
    shares = same_vocabulary(tokenizer, compressor.tokenizer)
    if not shares:
        say(f"{config.model} has another vocabulary than the compressor: messages are scored as re-tokenised text")
    return BoundScorer(Scorer(model, tokenizer, limit, instruction), shares), model


def same_vocabulary(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether token ids mean the same to both."""
    return one.get_vocab() == other.get_vocab()


def draw(
    recipe: Recipe, compressor: Compressor, purpose: str, wanted: dict[str, dict[str, Any]], say: Say
) -> list[Sample]:
    """The questions that a recipe asks; long contexts are cut once, and what is cut or left out is counted and said.

    Args:
        recipe: names the tasks.
        compressor: reads the contexts, and says how long they are.
        purpose: what for, in messages.
        wanted: for each task by name, the arguments of `load_documents` beside those the task itself has.
        say: takes what has to be said.

    Raises:
        DataError: documents cannot be read, or there is no question.
    """
    documents: list[Document] = []
    for task in recipe.tasks:
        documents += _documents(task, recipe.seed, compressor, wanted[task.name], say)
    fitted = [compressor.fit(document) for document in documents]
    cut = [tokens for _, tokens in fitted if tokens]
    if cut:
        say(
            f"{len(cut)} of {len(documents)} contexts to {purpose} on are longer than the room for them, "
            f"{compressor.prompts.max_first_tokens} tokens: {sum(cut)} tokens cut out of their middles"
        )
    samples = samples_of([document for document, _ in fitted])
    if not samples:
        raise DataError(f"no questions to {purpose} on in {', '.join(task.name for task in recipe.tasks)}")
    return samples


def _documents(task: TaskConfig, seed: int, compressor: Compressor, wanted: dict[str, Any], say: Say) -> list[Document]:
    try:
        loaded = load_documents(
            task.name,
            seed=seed,
            facts=task.facts,
            variant=task.variant,
            context_tokens=task.context_tokens,
            count_tokens=lambda text: len(compressor.prompts.format.text_ids(text)),
            **wanted,
        )
    except ValueError as error:
        raise DataError(str(error)) from error
    for reason, count in loaded.skipped.items():
        say(f"{task.name}: skipped {count} ({reason})")
    return loaded.documents


def held_out(recipe: Recipe, task: TaskConfig) -> dict[str, Any]:
    """What the evaluation loads of a task."""
    return {
        "split": task.eval_split,
        "source": task.eval_source or task.source,
        "documents": recipe.eval.documents,
        "questions_per_document": recipe.eval.questions_per_document,
    }
