"""What each target of an export consists of, and the runtime that runs it."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast, get_args

import peft
from peft import PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn

from data.writing import write_text
from models.adapter_settings import portable_name, write_settings
from models.export.factors import lora_factors
from models.export.gguf_file import Packing, check_architecture, write_lora, write_model
from models.export.llama_cpp import LlamaCpp, llama_cpp_bindings
from models.export.mlx import require_computed, write_mlx_adapter, write_mlx_model
from models.export.mlx_runtime import Mlx, require_mlx
from models.export.runtime import Runtime
from models.export.torch_runtime import Torch
from models.export.trained import Trained
from models.naming import ADAPTER_CONFIG, WEIGHTS_FILE, ModelError

Target = Literal["peft", "merged", "gguf", "gguf-lora", "mlx", "ollama"]
"""What an adapter is exported to."""

TARGETS: tuple[Target, ...] = get_args(Target)

EXACT_PACKINGS = ("f32", "f16")
"""Packings that keep the very weights, up to rounding to float16."""


@dataclass(frozen=True)
class Runnable:
    """Files that a runtime runs.

    Attributes:
        files: their names in the export's folder.
        exact: whether they hold the very weights, up to rounding to float16.
        load: loads them, from the export's folder, into the runtime.
        folder: where they lie; None until they are written.
    """

    files: tuple[str, ...]
    exact: bool
    load: Callable[[Path], Runtime]
    folder: Path | None = None

    def at(self, folder: Path) -> "Runnable":
        """The same, of files that were written into a folder."""
        return replace(self, folder=folder)

    def start(self) -> Runtime:
        """The runtime, with the files loaded.

        Raises:
            ModelError: the runtime is not installed, or refuses a file.
        """
        assert self.folder is not None
        return self.load(self.folder)


def check_target(trained: Trained, target: Target) -> None:
    """Refuse what a target cannot express, before anything is written.

    Raises:
        ModelError: naming it.
    """
    if target in ("gguf", "gguf-lora", "ollama"):
        check_architecture(trained.adapted.config)
    if target == "mlx":
        require_computed(trained.adapted.config)
    if target in ("peft", "gguf-lora", "mlx"):
        lora_factors(trained.adapted)


def check_runtime(target: Target) -> None:
    """Refuse a proof whose runtime is not installed, before anything is loaded.

    Raises:
        ModelError: saying how to install it.
    """
    try:
        if target in ("gguf", "gguf-lora", "ollama"):
            llama_cpp_bindings()
        if target == "mlx":
            require_mlx()
    except ModelError as error:
        raise ModelError(f"{error}; or export without a proof (--no-verify)") from error


def write_files(trained: Trained, target: Target, packings: tuple[Packing, ...], folder: Path) -> None:
    """Write a target's files into a folder.

    Raises:
        ModelError: the target cannot express the adapter or its base.
        OSError: the folder cannot be written.
    """
    name, prompt = trained.folder.resolve().name, trained.device_prompt
    if target == "peft":
        _write_peft(trained, folder)
    elif target == "merged":
        trained.merged().save_pretrained(folder)
        trained.tokenizer.save_pretrained(str(folder))
    elif target == "mlx":
        write_mlx_model(trained.merged(), trained.tokenizer, folder / "merged")
        write_mlx_adapter(trained.adapted, folder / "adapter")
    elif target == "gguf-lora":
        write_lora(folder / "lora.gguf", lora_factors(trained.adapted), trained.adapted.config, name)
        _write_base(trained, packings[0], folder)
    else:
        merged = trained.merged()
        for packing in packings:
            path = folder / f"model-{packing}.gguf"
            end = prompt.end_token_id
            write_model(path, merged, trained.tokenizer, packing, end, prompt.template(), name)
        if target == "ollama":
            write_text(folder / "Modelfile", prompt.modelfile(f"model-{packings[0]}.gguf"))
    prompt.write(folder)


def runnables(trained: Trained, target: Target, packings: tuple[Packing, ...]) -> list[Runnable]:
    """What is verified of a target, once its files are written."""
    window = trained.device_prompt.window
    if target == "peft":
        files = (WEIGHTS_FILE, ADAPTER_CONFIG)
        return [Runnable(files, True, lambda folder: Torch.of_adapter(trained.base, folder))]
    if target == "merged":
        return [Runnable(("model.safetensors",), True, Torch.of_model)]
    if target == "mlx":
        return [
            Runnable(("merged",), True, lambda folder: Mlx(folder / "merged")),
            Runnable(("adapter",), True, lambda folder: _mlx_adapter(trained, folder)),
        ]
    if target == "gguf-lora":
        base = base_file(trained, packings[0])
        exact = trained.base_gguf is None and packings[0] in EXACT_PACKINGS
        return [
            Runnable((base, "lora.gguf"), exact, lambda folder: LlamaCpp(folder / base, folder / "lora.gguf", window))
        ]
    return [_merged_gguf(f"model-{packing}.gguf", packing, window) for packing in packings]


def base_file(trained: Trained, packing: Packing) -> str:
    """The name of the GGUF base beside a GGUF LoRA: the very file that the base came from, where it came from one."""
    return f"base-{packing}.gguf" if trained.base_gguf is None else trained.base_gguf.name


def _merged_gguf(name: str, packing: Packing, window: int) -> Runnable:
    return Runnable((name,), packing in EXACT_PACKINGS, lambda folder: LlamaCpp(folder / name, None, window))


def _mlx_adapter(trained: Trained, folder: Path) -> Mlx:
    """The adapter's files on the base alone, which is written for the proof and is no part of the export."""
    with tempfile.TemporaryDirectory() as beside:
        write_mlx_model(trained.plain(), trained.tokenizer, Path(beside) / "base")
        return Mlx(Path(beside) / "base", folder / "adapter")


def _write_base(trained: Trained, packing: Packing, folder: Path) -> None:
    """The base beside a GGUF LoRA: the file that it came from, byte by byte, or else one that is written."""
    path = folder / base_file(trained, packing)
    if trained.base_gguf is not None:
        shutil.copyfile(trained.base_gguf, path)
        return
    prompt, name = trained.device_prompt, portable_name(trained.base)
    write_model(path, trained.plain(), trained.tokenizer, packing, prompt.end_token_id, prompt.template(), name)


def _write_peft(trained: Trained, folder: Path) -> None:
    """The adapter in PEFT's format with one rank and one scale, for programs that pass over patterns and rsLoRA."""
    factors = lora_factors(trained.adapted)
    rank = max(part.rank for part in factors)
    tensors: dict[str, Tensor] = {}
    for part in (part.of_rank(rank) for part in factors):
        tensors[f"base_model.model.{part.module}.lora_A.weight"] = part.a.contiguous()
        tensors[f"base_model.model.{part.module}.lora_B.weight"] = part.b.contiguous()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=_target_modules(trained.adapted, [part.module for part in factors]),
        task_type="CAUSAL_LM",
        base_model_name_or_path=portable_name(trained.base),
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    trained.tokenizer.save_pretrained(str(folder))
    write_settings(folder, trained.settings)


def _target_modules(adapted: PeftModel, modules: list[str]) -> list[str]:
    """The adapted modules as PEFT is told them: by their last names where those name no others, else by their paths."""
    names = sorted({module.rpartition(".")[2] for module in modules})
    paths = [path.replace(".base_layer", "") for path, module in _linears(adapted)]
    named = [path for path in paths if path.rpartition(".")[2] in names]
    return names if sorted(set(named)) == sorted(modules) else sorted(modules)


def _linears(adapted: PeftModel) -> list[tuple[str, nn.Module]]:
    base = cast(nn.Module, adapted.get_base_model())
    return [
        (path, module) for path, module in base.named_modules() if type(module) is nn.Linear and "lora_" not in path
    ]
