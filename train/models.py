"""The models of a training run, loaded and wired, and fingerprints that show which of them training changed."""

import sys
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.build import build_predictor, build_scorer, device, instructions
from configs.command import say
from configs.servers import ANSWERS
from eval.stages import difference_from_training
from models.adapter_settings import AdapterSettings
from models.adapter_switch import belongs_to
from models.adapters import (
    DEFAULT,
    add_adapter,
    load_adapter,
    read_adapter,
    remembered,
    save_adapter,
    start_from,
)
from models.channel import Channel
from models.compressor import Compressor
from models.fingerprint import is_base, is_trainable, parameter_hash
from models.loading import context_window, load_model
from models.naming import ModelError
from models.predictor import UNLIMITED, LocalPredictor
from train.config import Config

PREDICTOR_ADAPTER = "predictor"
"""What the compressor's model calls the adapter of a predictor that shares its base."""


@dataclass(frozen=True)
class AdaptedPredictor:
    """A predictor whose adapter is not merged into its model, because it learns or because the base is shared.

    Attributes:
        predictor: answers with it.
        model: holds it: the compressor's own where the base is shared.
        adapter: what that model calls it.
    """

    predictor: LocalPredictor
    model: PeftModel
    adapter: str

    def holds(self, name: str, parameter: nn.Parameter) -> bool:
        """Whether a parameter of its model, by name, is one of the predictor's: the base or its adapter."""
        return is_base(name, parameter) or belongs_to(name, self.adapter)


@dataclass(frozen=True)
class Models:
    """The adapted compressor, the channel its messages go through, and what a run hashes and saves of them.

    Attributes:
        compressor: writes messages with ``adapted``.
        channel: answers from messages and scores them.
        adapted: the compressor's model with the adapter that is trained.
        tokenizer: the compressor's.
        predictor_model: the frozen predictor; None where a server runs it, and where it is adapted.
        scorer_model: the frozen scorer; None where the compressor's base is the scorer.
        adapted_predictor: the predictor that learns or shares the compressor's base; None where it does neither.
    """

    compressor: Compressor
    channel: Channel
    adapted: PeftModel
    tokenizer: PreTrainedTokenizerBase
    predictor_model: PreTrainedModel | None
    scorer_model: PreTrainedModel | None
    adapted_predictor: AdaptedPredictor | None = None

    @property
    def predictor_parameters(self) -> str | None:
        """A hash of all that the predictor computes with; None where a server runs it."""
        if self.adapted_predictor is not None:
            return parameter_hash(self.adapted_predictor.model, self.adapted_predictor.holds)
        return None if self.predictor_model is None else parameter_hash(self.predictor_model)


def load_models(config: Config) -> Models:
    """Load and wire the three models; the scorer is the compressor's base unless another is named.

    Raises:
        ConfigError: the tasks have different instructions.
        ModelError: a model or the starting adapter cannot be loaded, or it has no module to adapt.
        EndpointError: the predictor's server cannot be used.
    """
    instruction, answer_instruction = instructions(config)
    # A predictor on a server first: whether it is there is known in seconds.
    predictor, predictor_model, adapted_predictor = None, None, None
    if not config.is_joint and not config.predictor.shared_base:
        predictor, predictor_model = build_predictor(config.predictor, answer_instruction, config.folder / ANSWERS)
    stored = None if config.compressor.adapter is None else read_adapter(config.compressor.adapter)
    if stored is not None and (difference := difference_from_training(config.compressor, stored.settings, instruction)):
        say(f"adapter {config.compressor.adapter!r}: {difference}")
    plain, tokenizer = load_model(
        config.compressor.model, config.compressor.dtype, device(), config.compressor.revision
    )
    lora = config.compressor.lora
    adapted = add_adapter(plain, lora.rank, lora.alpha, lora.dropout, lora.target_modules, config.seed)
    if stored is not None:
        start_from(adapted, stored, config.compressor.model)
    compressor = Compressor(
        adapted,
        tokenizer,
        config.compressor.budget_tokens,
        config.compressor.max_context_tokens,
        instruction,
        config.compressor.asked_budgets,
    )
    scorer, scorer_model = build_scorer(config.scorer, compressor, instruction, say)
    if predictor is None:
        adapted_predictor = _adapt_predictor(config, adapted, tokenizer, answer_instruction)
        predictor = adapted_predictor.predictor
    channel = Channel(predictor, [scorer])
    return Models(compressor, channel, adapted, tokenizer, predictor_model, scorer_model, adapted_predictor)


def _adapt_predictor(
    config: Config, compressor: PeftModel, tokenizer: PreTrainedTokenizerBase, instruction: str
) -> AdaptedPredictor:
    """The predictor with its adapter, on the compressor's model or on one of its own."""
    named, lora = config.predictor, config.predictor.lora
    stored = None if named.adapter is None else read_adapter(named.adapter)
    if stored is not None and stored.settings is not None and stored.settings.role != "predictor":
        raise ModelError(f"adapter {named.adapter!r} makes a compressor of its model, and a predictor's is needed")
    if named.shared_base:
        plain, model, name = compressor.get_base_model(), compressor, PREDICTOR_ADAPTER
    else:
        plain, tokenizer = load_model(named.model, named.dtype, device(), named.revision)
        model, name = plain, DEFAULT
    if stored is not None and not config.is_joint:
        model = load_adapter(model, stored, named.model, name)
    else:
        model = add_adapter(model, lora.rank, lora.alpha, lora.dropout, lora.target_modules, config.seed, name)
        if stored is not None:
            start_from(model, stored, named.model, name)
    assert isinstance(plain, PreTrainedModel)
    window = context_window(plain.config) or UNLIMITED
    answers = LocalPredictor(plain, tokenizer, named.max_answer_tokens, window, instruction, name)
    return AdaptedPredictor(answers, model, name)


def save_trained(config: Config, models: Models, folder: Path) -> AdapterSettings:
    """The adapter as it is now, in a folder of its own, with what it was trained with, which is returned.

    Raises:
        OSError: the folder cannot be written.
    """
    base = config.compressor
    _, answer_instruction = instructions(config)
    told = models.compressor.settings(base.model, base.revision, answer_instruction)
    settings = told.model_copy(update={"question": base.question, "questions_together": base.questions_together})
    save_adapter(models.adapted, models.tokenizer, folder, base.model, settings=settings)
    return settings


def predictor_settings(config: Config, predictor: PeftModel) -> AdapterSettings:
    """What an adapter of the predictor has to remember: its base, and the prompts and limits of the pair."""
    instruction, answer_instruction = instructions(config)
    return remembered(
        predictor,
        config.predictor.model,
        config.predictor.revision,
        role="predictor",
        instruction=instruction,
        answer_instruction=answer_instruction,
        budget_tokens=config.compressor.budget_tokens,
        max_context_tokens=config.compressor.max_context_tokens,
    )


def fingerprints(models: Models) -> dict[str, str]:
    """Hashes of the adapters, which training changes, and of everything frozen, by name."""
    hashes = {
        "adapter": parameter_hash(models.adapted, is_trainable),
        "compressor_base": parameter_hash(models.adapted, is_base),
    }
    if models.predictor_model is not None:
        hashes["predictor"] = parameter_hash(models.predictor_model)
    if (adapted := models.adapted_predictor) is not None:
        hashes["predictor_adapter"] = parameter_hash(adapted.model, lambda name, _: belongs_to(name, adapted.adapter))
        hashes["predictor_base"] = parameter_hash(adapted.model, is_base)
    if models.scorer_model is not None:
        hashes["scorer"] = parameter_hash(models.scorer_model)
    return hashes


def check_fingerprints(before: dict[str, str], after: dict[str, str], predictor_learns: bool = False) -> list[str]:
    """Refuse to report on a run in which a frozen parameter moved; say so where an adapter that learns did not.

    Returns:
        What moved, by the names of `fingerprints`.

    Raises:
        RuntimeError: naming what moved.
    """
    moved = check_frozen(before, after, predictor_learns)
    if not moved:
        say("the adapter is unchanged: within no group did the messages differ in reward", sys.stderr)
    elif predictor_learns and len(moved) == 1:
        say(f"of compressor and predictor one has learned: {moved[0]} alone has changed", sys.stderr)
    return moved


def check_frozen(before: dict[str, str], after: dict[str, str], predictor_learns: bool = False) -> list[str]:
    """Refuse to go on where a frozen parameter moved; otherwise what moved, by the names of `fingerprints`.

    Raises:
        RuntimeError: naming what moved.
    """
    changed = sorted(name for name in before if before[name] != after[name])
    learned = ["adapter", "predictor_adapter"] if predictor_learns else ["adapter"]
    if frozen := [name for name in changed if name not in learned]:
        raise RuntimeError(f"training must change {learned} and nothing else, but it changed {frozen}")
    return changed


def save_trained_predictor(config: Config, models: Models, folder: Path) -> None:
    """The predictor's adapter as it is now, in a folder of its own, where it has learned.

    Raises:
        OSError: the folder cannot be written.
    """
    adapted = models.adapted_predictor
    if adapted is None or not config.is_joint:
        return
    tokenizer, base = adapted.predictor.tokenizer, config.predictor.model
    settings = predictor_settings(config, adapted.model)
    save_adapter(adapted.model, tokenizer, folder, base, adapted.adapter, settings)
