"""LoRA adapters: one way to add one to a model, to load one from its folder, and to save one."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import peft
import torch
from peft import PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from models.naming import ModelError


def add_adapter(
    model: PreTrainedModel, rank: int, alpha: int, dropout: float, target_modules: str | Sequence[str], seed: int
) -> PeftModel:
    """The model with a fresh LoRA adapter called ``default``, the only part that trains."""
    torch.manual_seed(seed)
    lora = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, lora)
    assert isinstance(adapted, PeftModel)
    return adapted


def load_adapter(model: PreTrainedModel, folder: str, model_name: str) -> PeftModel:
    """The model with the adapter of a folder, in evaluation mode.

    Raises:
        ModelError: the adapter cannot be read, or belongs to another model than ``model_name``.
    """
    try:
        with warnings.catch_warnings():
            # An adapter of another model would be left out with a warning.
            warnings.filterwarnings("error", message="Found missing adapter keys")
            return PeftModel.from_pretrained(model, str(Path(folder).expanduser())).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UserWarning, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"adapter {folder!r} does not fit {model_name!r}: {reason}") from error


def save_adapter(adapted: PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, model_name: str) -> None:
    """The adapter ``default`` in PEFT's own format, which names its base as ``model_name``, and its tokenizer."""
    adapted.peft_config["default"].base_model_name_or_path = model_name
    adapted.save_pretrained(str(folder), selected_adapters=["default"], save_embedding_layers=False)
    tokenizer.save_pretrained(str(folder))
