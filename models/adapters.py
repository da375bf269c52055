"""LoRA adapters: one way to add one to a model, to read one from its folder and load it, and to save it.

A model can hold several by name. The first is the one at work; those added or loaded after it stay off and frozen until
PEFT's ``set_adapter`` names them.
"""

import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import peft
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.errors import one_line
from data.writing import other_writers
from models.adapter_scale import check_scale
from models.adapter_settings import (
    FORMAT,
    AdapterSettings,
    Base,
    DtypeName,
    portable_name,
    read_lora_fields,
    read_settings,
    write_settings,
)
from models.fingerprint import base_hash
from models.lora_linear import compute_in_products
from models.naming import ADAPTER_CONFIG, WEIGHTS_FILE, ModelError, adapter_folder

DEFAULT = "default"
"""PEFT's own name for an adapter, which code that knows of one adapter alone, TRL's above all, takes for granted."""

SHAPING = (
    "r",
    "rank_pattern",
    "lora_alpha",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "bias",
    "fan_in_fan_out",
    "modules_to_save",
    "trainable_token_indices",
)
"""Fields of PEFT's configuration without which the same tensors make another adapter."""

CARD_FILE = "README.md"
"""The hub's name of a model card."""


@dataclass(frozen=True, eq=False)
class StoredAdapter:
    """An adapter as its folder holds it, checked as far as its files alone allow.

    Attributes:
        folder: where it lies.
        base: the model it was trained on, as its files name it; None where they do not.
        weights: its tensors by PEFT's names, on the CPU.
        settings: what it was trained with; None where nothing says so.
    """

    folder: Path
    base: str | None
    weights: dict[str, Tensor]
    settings: AdapterSettings | None = None


def add_adapter(
    model: PreTrainedModel | PeftModel,
    rank: int,
    alpha: int,
    dropout: float,
    target_modules: str | Sequence[str],
    seed: int,
    name: str = DEFAULT,
) -> PeftModel:
    """The model with a fresh LoRA adapter, which leaves the model's outputs as they are until it is trained.

    Args:
        model: changed in place. The adapter added to a plain model is its only part that trains, and its dropout the
            only dropout: see `switch_off_dropout`.
        rank: the inner width of the two matrices that are added to each layer.
        alpha: the adapter's part of a layer's output is scaled by ``alpha / rank``.
        dropout: probability that an input of the adapter is dropped in training.
        target_modules: names of layers, a regular expression that matches them, or ``all-linear``.
        seed: seeds the matrices that begin at random.
        name: what the model calls the adapter.

    Raises:
        ModelError: the model has no layers of these names.
        ValueError: the model has an adapter of this name.
    """
    _check_name(model, name)
    torch.manual_seed(seed)
    lora = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=target_modules if isinstance(target_modules, str) else list(target_modules),
        task_type="CAUSAL_LM",
    )
    try:
        if isinstance(model, PeftModel):
            model.add_adapter(name, lora)
            compute_in_products(model)
            return model
        switch_off_dropout(model)
        adapted = get_peft_model(model, lora, name)
    except (ValueError, re.error) as error:
        raise ModelError(f"target_modules {target_modules!r} name no layers of the model: {one_line(error)}") from error
    assert isinstance(adapted, PeftModel)
    compute_in_products(adapted)
    # Every save would write PEFT's empty model card, which names the path of the base on this machine.
    adapted.create_or_update_model_card = _no_card
    return adapted


def switch_off_dropout(model: PreTrainedModel) -> None:
    """Set every dropout of a base model to 0, in modules and in the probabilities that attention layers hold.

    A policy that drops inputs of its base in the update has other log-probabilities than the one that wrote the
    messages, and two passes over one message differ.
    """
    for module in model.modules():
        if isinstance(module, _DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if "dropout" in name and isinstance(value, float):
                setattr(module, name, 0.0)


def read_adapter(folder: str | Path) -> StoredAdapter:
    """An adapter's files, read and checked before a base model is loaded.

    Raises:
        ModelError: no adapter there, or one that cannot be read, is damaged or has values that are not finite.
    """
    subject, path = f"adapter {str(folder)!r}", adapter_folder(str(folder))
    fields, settings = read_lora_fields(folder), read_settings(folder)
    weights = _read_weights(subject, path / WEIGHTS_FILE)
    # Compared before PEFT makes matrices of the configured rank, which may be larger than the memory.
    configured, stored = {fields.r, *fields.rank_pattern.values()}, _ranks(weights)
    if not stored:
        raise ModelError(f"{subject}: {WEIGHTS_FILE} holds no matrices of a LoRA adapter")
    if not stored <= configured:
        given, held = (", ".join(map(str, sorted(ranks))) for ranks in (configured, stored))
        raise ModelError(f"{subject}: {ADAPTER_CONFIG} gives rank {given}, and {WEIGHTS_FILE} has rank {held}")
    return StoredAdapter(path, fields.base_model_name_or_path, weights, settings)


def load_adapter(
    model: PreTrainedModel | PeftModel, stored: StoredAdapter, base: str, name: str = DEFAULT
) -> PeftModel:
    """The model with an adapter that was read, frozen and in evaluation mode.

    Args:
        model: changed in place; a model that an adapter did not fit is of no more use.
        stored: the adapter, see `read_adapter`.
        base: what the model is called, for messages.
        name: what the model calls the adapter.

    Raises:
        ModelError: the adapter belongs to another model, or its scale makes it infinite.
        ValueError: the model has an adapter of this name.
    """
    _check_name(model, name)
    path = str(stored.folder)
    misfit = f"adapter {path!r} does not fit model {base!r}"
    _check_base(model, stored, misfit)
    try:
        with warnings.catch_warnings():
            # PEFT warns of tensors that are missing and goes on; below they are an error.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            if isinstance(model, PeftModel):
                model.load_adapter(path, name)
                adapted = model
            else:
                adapted = PeftModel.from_pretrained(model, path, name)
    except Exception as error:  # the files are a stranger's, and PEFT raises anything at what it does not expect
        raise ModelError(f"{misfit}: {one_line(error)}") from error
    _check_tensors(adapted, stored, name, misfit)
    check_scale(adapted, name, f"adapter {path!r}")
    compute_in_products(adapted)
    return adapted.eval()


def merge_adapter(adapted: PeftModel) -> PreTrainedModel:
    """The plain model with an adapter's update added to its weights: it computes the same, without the adapter's cost.

    The model is changed in place. In a type of fewer digits than float32 the sums are rounded to it. Sums that are not
    finite are a ModelError.
    """
    try:
        merged = adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ModelError(f"the adapter cannot be merged into its base: {one_line(error)}") from error
    assert isinstance(merged, PreTrainedModel)
    return merged


def start_from(adapted: PeftModel, stored: StoredAdapter, base: str, name: str = DEFAULT) -> None:
    """Give an adapter the weights of one that was read, so that its training goes on from there.

    Args:
        adapted: a model with an adapter of the same shape, see `add_adapter`; the adapter's weights are replaced.
        stored: the adapter, see `read_adapter`.
        base: what the model is called, for messages.
        name: which adapter of the model.

    Raises:
        ModelError: the adapter belongs to another model, or computes otherwise than the one it is to become.
    """
    misfit = f"adapter {str(stored.folder)!r} does not fit model {base!r}"
    _check_base(adapted, stored, misfit)
    try:
        theirs = peft.LoraConfig.from_pretrained(str(stored.folder))
    except Exception as error:  # the files are a stranger's, and PEFT raises anything at what it does not expect
        raise ModelError(f"{misfit}: {one_line(error)}") from error
    ours = adapted.peft_config[name]
    for field in SHAPING:
        given, wanted = getattr(theirs, field), getattr(ours, field)
        if (given or None) != (wanted or None):
            raise ModelError(f"{misfit}: it has {field} = {_brief(given)}, and what is trained {_brief(wanted)}")
    _check_tensors(adapted, stored, name, f"{misfit} with the modules that are trained (lora.target_modules)")
    own = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    for key, tensor in own.items():
        if tensor.shape != stored.weights[key].shape:
            raise ModelError(f"{misfit}: {key!r} is {_sizes(stored.weights[key])} instead of {_sizes(tensor)}")
    set_peft_model_state_dict(adapted, {key: stored.weights[key] for key in own}, adapter_name=name)


def trained_on(settings: AdapterSettings, model: PreTrainedModel | PeftModel) -> bool:
    """Whether a model has the parameters that an adapter was trained on, as far as their floating-point types tell.

    The two are compared in the type with fewer digits, as which the other's values can be written. Of bfloat16 and
    float16 neither can be written as the other: then they count as the same.
    """
    name = dtype_name(model)
    known = settings.base.parameters
    compared = name if name in known else settings.dtype if model.dtype.itemsize > 2 else None
    return compared not in known or base_hash(model, getattr(torch, compared)) == known[compared]


def dtype_name(model: PreTrainedModel | PeftModel) -> str:
    """The floating-point type of a model, by torch's name."""
    return str(model.dtype).removeprefix("torch.")


def base_hashes(model: PreTrainedModel | PeftModel) -> dict[str, str]:
    """Hashes of a model without its adapters: in its own floating-point type, and in those with fewer digits."""
    own = dtype_name(model)
    names = (own, "bfloat16", "float16") if model.dtype.itemsize > 2 else (own,)
    return {name: base_hash(model, getattr(torch, name)) for name in names}


def remembered(model: PreTrainedModel | PeftModel, base: str, revision: str | None, **pair: Any) -> AdapterSettings:
    """What an adapter on a model has to remember.

    Args:
        model: the model it is trained on, with or without it.
        base: the model's name, as `models.loading.load_model` takes it.
        revision: its branch, tag or commit on the hub, as given; the commit is remembered where it is known.
        pair: the role of the adapter, and the prompts and limits of its training: see `AdapterSettings`.
    """
    commit = getattr(model.config, "_commit_hash", None)
    named = Base(
        model=portable_name(base),
        revision=commit or revision,
        parameters=cast(dict[DtypeName, str], base_hashes(model)),
    )
    dtype = cast(DtypeName, dtype_name(model))
    return AdapterSettings(format=FORMAT, version=_version(), base=named, dtype=dtype, **pair)


def _version() -> str | None:
    try:
        return metadata.version("shorthand")
    except metadata.PackageNotFoundError:
        return None


def save_adapter(
    adapted: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    base: str,
    name: str = DEFAULT,
    settings: AdapterSettings | None = None,
) -> None:
    """An adapter in PEFT's own format, its settings and its tokenizer, in a folder of its own.

    PEFT's README, an empty form that names the path of the base on this machine, is left out.

    Args:
        adapted: a model that holds the adapter.
        tokenizer: the model's.
        folder: made where it is missing.
        base: the model's name as `models.loading.load_model` takes it, which the files repeat.
        name: which adapter of the model.
        settings: what it was trained with.

    Raises:
        ModelError: a weight is not finite.
        OSError: the folder cannot be written.
    """
    if not all(parameter.isfinite().all() for parameter in adapted.parameters() if parameter.requires_grad):
        raise ModelError(f"the adapter for {folder} has weights that are not finite: it is not written")
    folder.mkdir(parents=True, exist_ok=True)
    # PEFT gives every adapter but the default one a folder inside the one it is told: written beside, then moved.
    with (
        other_writers(folder),
        tempfile.TemporaryDirectory(prefix=".", dir=folder) as beside,
        _named(adapted, name, base),
    ):
        adapted.save_pretrained(beside, selected_adapters=[name], save_embedding_layers=False)
        for file in [file for file in Path(beside).rglob("*") if file.is_file() and file.name != CARD_FILE]:
            file.replace(folder / file.name)
        tokenizer.save_pretrained(str(folder))
    if settings is not None:
        write_settings(folder, settings)


@contextmanager
def _named(adapted: PeftModel, name: str, base: str) -> Iterator[None]:
    """Let an adapter name its base for as long as it is written: saves of others look a model up by that name."""
    config = adapted.peft_config[name]
    former, config.base_model_name_or_path = config.base_model_name_or_path, base
    try:
        yield
    finally:
        config.base_model_name_or_path = former


def _no_card(output_dir: str) -> None:
    """Stands in for PEFT's writer of model cards."""


def _check_base(model: PreTrainedModel | PeftModel, stored: StoredAdapter, misfit: str) -> None:
    """Refuse an adapter that remembers another base than the model, as far as its settings tell."""
    if stored.settings is not None and not trained_on(stored.settings, model):
        other = stored.settings.base
        at = f" at {other.revision}" if other.revision else ""
        raise ModelError(f"{misfit}: it was trained on {other.model}{at}, whose parameters have other values")


def _check_tensors(adapted: PeftModel, stored: StoredAdapter, name: str, misfit: str) -> None:
    """Refuse an adapter whose tensors are not those of the model's adapter of that name."""
    expected = get_peft_model_state_dict(adapted, adapter_name=name, save_embedding_layers=False)
    if missing := expected.keys() - stored.weights.keys():
        raise ModelError(f"{misfit}: lacks {len(missing)} of {len(expected)} tensors, among them {min(missing)!r}")
    # Whoever trains embeddings along saves them beside the adapter, under names that the model itself has.
    if unknown := stored.weights.keys() - expected.keys() - adapted.state_dict().keys():
        raise ModelError(f"{misfit}: {len(unknown)} tensors have no place in it, among them {min(unknown)!r}")


def _brief(value: Any) -> str:
    return one_line(repr(value), 60)


def _sizes(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _check_name(model: PreTrainedModel | PeftModel, name: str) -> None:
    if isinstance(model, PeftModel) and name in model.peft_config:
        raise ValueError(f"the model has an adapter {name!r} already")


def _read_weights(subject: str, path: Path) -> dict[str, Tensor]:
    """Tensors by name, all of them finite."""
    if not path.is_file():
        raise ModelError(f"{subject}: holds no {path.name}")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{subject}: {path.name} cannot be read: {one_line(error)}") from error
    for name, tensor in weights.items():
        if not tensor.float().isfinite().all():
            raise ModelError(f"{subject}: {path.name} holds values that are not finite, in {name!r}")
    return weights


def _ranks(weights: dict[str, Tensor]) -> set[int]:
    """The ranks of a LoRA adapter's matrices, by its inner ones, of linear layers and of embeddings."""
    inner = [tensor for name, tensor in weights.items() if ".lora_A." in name or ".lora_embedding_A" in name]
    return {tensor.shape[0] for tensor in inner if tensor.ndim > 1}
