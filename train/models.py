"""The models of a training run, loaded and wired, and fingerprints that show which of them training changed."""

import sys
from dataclasses import dataclass
from pathlib import Path

from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from configs.build import build_predictor, build_scorer, device, instructions
from configs.command import say
from configs.servers import ANSWERS
from eval.stages import difference_from_training
from models.adapter_settings import AdapterSettings
from models.adapters import add_adapter, read_adapter, remembered, save_adapter, start_from
from models.channel import Channel
from models.compressor import Compressor
from models.fingerprint import is_base, is_trainable, parameter_hash
from models.loading import load_model
from train.config import Config


@dataclass(frozen=True)
class Models:
    """The adapted compressor, the channel its messages go through, and what a run hashes and saves of them.

    Attributes:
        compressor: writes messages with ``adapted``.
        channel: answers from messages and scores them.
        adapted: the compressor's model with the adapter that is trained.
        tokenizer: the compressor's.
        predictor_model: the frozen predictor; None where a server runs it.
        scorer_model: the frozen scorer; None where the compressor's base is the scorer.
    """

    compressor: Compressor
    channel: Channel
    adapted: PeftModel
    tokenizer: PreTrainedTokenizerBase
    predictor_model: PreTrainedModel | None
    scorer_model: PreTrainedModel | None


def load_models(config: Config) -> Models:
    """Load and wire the three models; the scorer is the compressor's base unless another is named.

    Raises:
        ConfigError: the tasks have different instructions.
        ModelError: a model or the starting adapter cannot be loaded, or it has no module to adapt.
        EndpointError: the predictor's server cannot be used.
    """
    instruction, answer_instruction = instructions(config)
    # A predictor on a server first: whether it is there is known in seconds.
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
        adapted, tokenizer, config.compressor.budget_tokens, config.compressor.max_context_tokens, instruction
    )
    scorer, scorer_model = build_scorer(config.scorer, compressor, instruction, say)
    channel = Channel(predictor, [scorer])
    return Models(compressor, channel, adapted, tokenizer, predictor_model, scorer_model)


def save_trained(config: Config, models: Models, folder: Path) -> AdapterSettings:
    """The adapter as it is now, in a folder of its own, with what it was trained with, which is returned.

    Raises:
        OSError: the folder cannot be written.
    """
    base = config.compressor
    _, answer_instruction = instructions(config)
    settings = models.compressor.settings(base.model, base.revision, answer_instruction)
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
    """Hashes of the adapter, which training changes, and of everything frozen, by name."""
    hashes = {
        "adapter": parameter_hash(models.adapted, is_trainable),
        "compressor_base": parameter_hash(models.adapted, is_base),
    }
    if models.predictor_model is not None:
        hashes["predictor"] = parameter_hash(models.predictor_model)
    if models.scorer_model is not None:
        hashes["scorer"] = parameter_hash(models.scorer_model)
    return hashes


def check_fingerprints(before: dict[str, str], after: dict[str, str]) -> None:
    """Refuse to report on a run in which a frozen parameter moved; say so where the adapter did not.

    Raises:
        RuntimeError: naming what moved.
    """
    check_frozen(before, after)
    if before == after:
        say("the adapter is unchanged: within no group did the messages differ in reward", sys.stderr)


def check_frozen(before: dict[str, str], after: dict[str, str]) -> None:
    """Refuse to go on where a frozen parameter moved.

    Raises:
        RuntimeError: naming what moved.
    """
    changed = {name for name in before if before[name] != after[name]}
    if frozen := sorted(changed - {"adapter"}):
        raise RuntimeError(f"training must change the adapter and nothing else, but it changed {frozen}")
