"""The stages of an evaluation: what is measured before and after, and how its records are told apart."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from configs.build import device
from configs.command import say
from configs.sections import Recipe, WriterConfig
from configs.servers import PATIENCE
from data.arrangement import Arrangement
from data.errors import one_line
from data.registry import TASKS
from data.sample import Sample
from eval.config import EvaluatedConfig, EvaluationConfig
from eval.evaluation import Evaluation
from eval.record import Origin
from models.adapter_settings import SETTINGS_FILE, AdapterSettings
from models.adapters import load_adapter, read_adapter
from models.compressor import Compressor
from models.fingerprint import parameter_hash
from models.loading import load_model, torch_type
from objectives.negatives import NegativeCounts

BASE = "base model"
"""The name of the compressor's model without any adapter, where it is measured besides and not as the reference."""

REFERENCE, MEASURED = "before", "after"
"""The stages of records: what the compressor is held against, and the compressor itself."""


def evaluation_of(recipe: Recipe) -> Evaluation:
    """How a recipe evaluates."""
    negatives = NegativeCounts(**recipe.information.negatives.model_dump())
    arrangement = Arrangement(recipe.information.evidence, recipe.information.context_words)
    return Evaluation(
        negatives,
        recipe.eval.batch_size,
        recipe.seed,
        arrangement=arrangement,
        information_questions=recipe.eval.information_questions,
    )


def build_compressor(config: EvaluatedConfig, instruction: str) -> Compressor:
    """A compressor as configured, its adapter switched on; where it is not as it was trained, that is said.

    Raises:
        ModelError: the model or the adapter cannot be loaded, or the adapter was trained on another model.
    """
    stored = None if config.adapter is None else read_adapter(config.adapter)
    if stored is not None and (difference := difference_from_training(config, stored.settings, instruction)):
        say(f"adapter {config.adapter!r}: {difference}")
    model, tokenizer = load_model(config.model, config.dtype, device(), config.revision)
    if stored is not None:
        model = load_adapter(model, stored, config.model)
    if config.sentences is not None:
        instruction = f"{instruction} Write exactly {config.sentences} sentences.".strip()
    limit, asked = config.max_context_tokens, config.asked_budgets
    return Compressor(model, tokenizer, config.budget_tokens, limit, instruction, asked)


def difference_from_training(config: WriterConfig, trained: AdapterSettings | None, instruction: str) -> str | None:
    """In what a compressor is not as its adapter was trained, on one line; None where it is.

    Args:
        config: the compressor.
        trained: what the adapter remembers; None where it remembers nothing.
        instruction: what the compressor is told.
    """
    if trained is None:
        return f"has no {SETTINGS_FILE}, so that prompt and limits of its training are not known; the recipe's are used"
    now = {
        "budget_tokens": config.budget_tokens,
        "max_context_tokens": config.max_context_tokens,
        # What auto comes to on this machine.
        "dtype": str(torch_type(config.dtype, device())).removeprefix("torch."),
        "instruction": instruction,
    }
    before = trained.model_dump(include=set(now))
    differences = [
        f"{key} = {_shown(value)} instead of {_shown(before[key])}"
        for key, value in now.items()
        if value != before[key]
    ]
    return f"not as it was trained: {', '.join(differences)}" if differences else None


def _shown(value: object) -> str:
    return "null" if value is None else one_line(repr(value), 60)


def stages(config: EvaluationConfig, compressor: Compressor, instruction: str) -> Iterator[tuple[str, Compressor]]:
    """What is measured at each stage: the reference, where there is one, then the compressor."""
    if config.held_against is not None:
        yield REFERENCE, build_compressor(config.held_against, instruction)
    yield MEASURED, compressor


def passes(recipe: Recipe) -> dict[str, float]:
    """The temperatures of an evaluation, by the name of the file their records go to."""
    if recipe.eval.greedy and recipe.eval.temperature > 0:
        return {"samples": recipe.eval.temperature, "samples.greedy": 0.0}
    return {"samples": recipe.eval.temperature}


def origin_of(stage: str, temperature: float, compressor: Compressor) -> Origin:
    """How a compressor's messages are made, with a hash that tells it from others."""
    prompt = [compressor.prompts.max_first_tokens, compressor.prompt("", "").ids]
    identity = f"{parameter_hash(compressor.model)} {json.dumps(prompt)}"
    return {
        "stage": stage,
        "temperature": temperature,
        "compressor": hashlib.sha256(identity.encode()).hexdigest()[:16],
        "budget_tokens": compressor.budget_tokens,
    }


def identify(recipe: Recipe, samples: Sequence[Sample]) -> dict[str, Any]:
    """What all records of an evaluation depend on, whoever wrote the messages, beside the models."""
    return {
        "tasks": {task.name: [TASKS[task.name].version, task.model_dump(mode="json")] for task in recipe.tasks},
        "negatives": recipe.information.negatives.model_dump(),
        "predictor": recipe.predictor.model_dump(mode="json", exclude=set(PATIENCE)),
        "pool": _pool_hash(samples),
        "arrangement": [recipe.information.evidence, recipe.information.context_words],
        **lenders(recipe, samples),
        "seed": recipe.seed,
        "batch_size": recipe.eval.batch_size,
        "information_questions": recipe.eval.information_questions,
    }


def lenders(recipe: Recipe, samples: Sequence[Sample]) -> dict[str, str]:
    """A hash of the questions by which contexts are made, word for word; nothing where none are.

    Twins are lent their evidence and answers, and with the evidence last documents are arranged for them.
    """
    if not recipe.information.negatives.twins and recipe.information.evidence == "in_place":
        return {}
    documents = {(sample.document.task, sample.document.id): sample.document for sample in samples}
    parts = [
        (*key, question.id, question.text, question.answers, question.evidence)
        for key, document in sorted(documents.items())
        for question in document.questions
    ]
    return {"lenders": hashlib.sha256(json.dumps(parts).encode()).hexdigest()}


def _pool_hash(samples: Sequence[Sample]) -> str:
    """A hash of the documents that the negatives of every question come from, word for word."""
    documents = {(sample.document.task, sample.document.id): sample.document for sample in samples}
    parts = [(*key, document.group, document.text, document.parts) for key, document in sorted(documents.items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
