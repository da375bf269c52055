"""The models of a sweep: each inspected before anything is written, and the scorers that measure every message."""

import gc
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from configs.build import build_predictor, device, evaluation_request, load_samples, same_vocabulary
from configs.command import say
from configs.servers import ANSWERS
from data.sample import Document, Sample, samples_of
from eval.analysis.flops import DecoderSize, decoder_size
from eval.stages import build_compressor
from eval.sweep.config import SweepConfig, SweptCompressor, SweptPredictor, SweptScorer
from models.channel import BoundScorer
from models.compressor import Compressor
from models.fingerprint import is_base, parameter_hash
from models.loading import load_model
from models.scorer import Scorer


@dataclass(frozen=True)
class InspectedModel:
    """A model that was loaded once.

    Attributes:
        parameters: the number of its parameters, adapters left out; None for a model on a server that nobody gave.
        fingerprint: a hash of its parameters; None for a model on a server.
        size: the sizes that its FLOPs depend on; None where they cannot be counted.
    """

    parameters: int | None
    fingerprint: str | None
    size: DecoderSize | None


@dataclass(frozen=True)
class InspectedModels:
    """Every model of a sweep, inspected before anything is written.

    Attributes:
        compressors: by the name of each in ``SweepConfig.measured``.
        predictors: by the name of each in ``SweepConfig.predictors``.
        scorers: fingerprints of the scorers, the first scorer's first.
        samples: every question, its context cut to what all compressors and scorers can read.
    """

    compressors: dict[str, InspectedModel]
    predictors: dict[str, InspectedModel]
    scorers: list[str | None]
    samples: list[Sample]


@dataclass(frozen=True)
class LoadedScorer:
    """A scorer, and the tokenizer that tells whether it reads a compressor's tokens."""

    scorer: Scorer
    tokenizer: PreTrainedTokenizerBase


def bind(scorers: Sequence[LoadedScorer], compressor: Compressor) -> list[BoundScorer]:
    """The scorers of a compressor's messages, which are scored as re-tokenised text where the vocabularies differ."""
    return [BoundScorer(loaded.scorer, same_vocabulary(loaded.tokenizer, compressor.tokenizer)) for loaded in scorers]


def inspect_models(config: SweepConfig, instruction: str, answer_instruction: str) -> InspectedModels:
    """Load every model once, so that one that is missing is noticed before any message is written.

    Raises:
        ModelError: a model or an adapter cannot be loaded.
        DataError: documents cannot be read, or there is no question.
    """
    models: list[InspectedModel] = []
    documents: list[Document] = []
    for compressor in config.compressors:
        model, documents = inspect_compressor(config, compressor, instruction, documents)
        models.append(model)
    scorers: list[str | None] = []
    for scorer in scorers_of(config):
        fingerprint, documents = inspect_scorer(config, scorer, instruction, documents)
        scorers.append(fingerprint)
    return InspectedModels(
        compressors={
            compressor.called: model
            for compressor, model in zip(config.measured, itertools.cycle(models), strict=False)
        },
        predictors={one.called: inspect_predictor(config, one, answer_instruction) for one in config.predictors},
        scorers=scorers,
        samples=samples_of(documents),
    )


def inspect_compressor(
    config: SweepConfig, recipe: SweptCompressor, instruction: str, documents: list[Document]
) -> tuple[InspectedModel, list[Document]]:
    """The model of a compressor, and the documents as it can read them; the first one draws them."""
    free_memory()
    compressor = build_compressor(recipe, instruction)
    model = inspect_model(recipe.called, compressor.model)
    return model, fit_to_window(documents, compressor, recipe.called) if documents else load_documents(
        config, compressor
    )


def inspect_scorer(
    config: SweepConfig, recipe: SweptScorer, instruction: str, documents: list[Document]
) -> tuple[str, list[Document]]:
    """The fingerprint of a scorer, and the documents as it can read them."""
    free_memory()
    reader = scorer_as_reader(config, recipe, instruction)
    return parameter_hash(reader.model), fit_to_window(documents, reader, recipe.model)


def inspect_predictor(config: SweepConfig, recipe: SweptPredictor, instruction: str) -> InspectedModel:
    """The model of a predictor; a model on a server has the parameters that the configuration gives it."""
    free_memory()
    _, model = build_predictor(recipe, instruction, config.folder / ANSWERS)
    return InspectedModel(recipe.parameters, None, None) if model is None else inspect_model(recipe.called, model)


def inspect_model(name: str, model: nn.Module) -> InspectedModel:
    """Parameters, fingerprint and size of a model in memory."""
    parameters = sum(p.numel() for key, p in model.named_parameters() if is_base(key, p))
    try:
        size = decoder_size(cast(PreTrainedConfig, model.config), parameters)
    except ValueError as error:
        say(f"{name}: its FLOPs are left out ({error})")
        size = None
    return InspectedModel(parameters, parameter_hash(model), size)


def load_documents(config: SweepConfig, compressor: Compressor) -> list[Document]:
    """The documents of all tasks, as a compressor can read them."""
    recipe = config.recipe()
    samples = load_samples(recipe, compressor, "evaluate", evaluation_request, say)
    return list({(sample.document.task, sample.document.id): sample.document for sample in samples}.values())


def fit_to_window(documents: Sequence[Document], reader: Compressor, name: str) -> list[Document]:
    """The documents as one more model can read them: what is cut for one is cut for all, or they would not compare."""
    shortened = [reader.fit(document) for document in documents]
    cuts = [tokens for _, tokens in shortened if tokens]
    if cuts:
        say(
            f"{len(cuts)} contexts are longer than {name} can read: {sum(cuts)} tokens cut out of their middles, "
            "for all"
        )
    return [document for document, _ in shortened]


def scorers_of(config: SweepConfig) -> list[SweptScorer]:
    """The scorer, and the second one where there is one."""
    return [scorer for scorer in (config.scorer, config.second_scorer) if scorer is not None]


def scorer_as_reader(config: SweepConfig, recipe: SweptScorer, instruction: str) -> Compressor:
    """A scorer's model, with the room that a compressor of the largest budget would have in it."""
    model, tokenizer = load_model(recipe.model, recipe.dtype, device(), recipe.revision)
    budget = max(compressor.budget_tokens for compressor in config.compressors)
    return Compressor(model.requires_grad_(False), tokenizer, budget, None, instruction)


def load_scorers(config: SweepConfig, instruction: str) -> list[LoadedScorer]:
    """The scorers, with one limit each whoever wrote the message."""
    scorers = []
    for recipe in scorers_of(config):
        reader = scorer_as_reader(config, recipe, instruction)
        scorer = Scorer(reader.model, reader.tokenizer, reader.prompts.max_first_tokens, instruction)
        scorers.append(LoadedScorer(scorer, reader.tokenizer))
    return scorers


def free_memory() -> None:
    """Give back the memory of models that nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
