"""The card of an exported model: how to run it, its prompt, what it was made of, and what the proof has shown."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.writing import write_text
from models.adapter_settings import AdapterSettings, portable_name
from models.adapters import CARD_FILE
from models.export.files import Target
from models.export.prompt import PROMPT_FILE, DevicePrompt
from models.export.sample import Worth
from models.export.trained import Trained
from models.export.verify import Verification


@dataclass(frozen=True)
class Proof:
    """What was shown of a group of files.

    Attributes:
        files: their names in the export's folder.
        verification: what the runtime has shown; None where that was left out.
        worth: what its messages are worth; None without a sample.
    """

    files: tuple[str, ...]
    verification: Verification | None
    worth: Worth | None


RUN: dict[Target, str] = {
    "peft": "Any program that reads PEFT's adapters loads this folder; all modules have one rank and one scale.",
    "merged": "A plain model in float32: `AutoModelForCausalLM.from_pretrained(folder)`.",
    "gguf": 'llama.cpp: `python examples/on_device.py FOLDER/model-f16.gguf document.txt "the question"`.',
    "gguf-lora": "llama.cpp: `llama-server -m BASE.gguf --lora lora.gguf`; several adapters share one base.",
    "mlx": "mlx-lm: `merged` is a model by itself; `adapter` is for its base, `--adapter-path adapter`.",
    "ollama": "`ollama create NAME -f Modelfile`, then `ollama run NAME` with document and question as one text.",
}
"""How a target is run, in a line."""


def write_card(
    folder: Path,
    trained: Trained,
    target: Target,
    proofs: Sequence[Proof],
    reference: tuple[str, Worth] | None,
) -> None:
    """Write ``README.md`` beside the files.

    Args:
        folder: the export's.
        trained: what was exported.
        target: to what.
        proofs: what was shown of each group of files.
        reference: the sample's name, and what the messages are worth through PyTorch.

    Raises:
        OSError: the folder cannot be written.
    """
    parts = [
        f"# {trained.folder.resolve().name}, for {target}",
        f"A {trained.settings.role} that Shorthand trained on `{portable_name(trained.base)}`. {RUN[target]}",
        "## The proof",
        _proof(proofs, reference),
        "## The prompt",
        _prompt(trained.device_prompt, trained.settings),
    ]
    write_text(folder / CARD_FILE, "\n\n".join(parts) + "\n")


def _proof(proofs: Sequence[Proof], reference: tuple[str, Worth] | None) -> str:
    if all(proof.verification is None for proof in proofs):
        return "None: it was exported with `--no-verify`, and nobody knows whether it computes what was trained."
    lines = [
        "The runtime itself has read the same token ids as PyTorch in float32. A slope of 1 says that all of the "
        "adapter's change arrives, 0 that the adapter is not applied.",
        "",
        "| files | runtime | prompts with equal tokens | log-probabilities apart, nats | slope | missed |",
        "|---|---|---|---|---|---|",
    ]
    for proof in proofs:
        if (verification := proof.verification) is not None:
            lines.append(
                f"| {', '.join(f'`{name}`' for name in proof.files)} | {verification.runtime} | "
                f"{verification.equal_prompts} of {verification.prompts}, {verification.tokens} tokens each | "
                f"{verification.largest_difference:.2g} | {verification.arrived.slope:.3f} | "
                f"{verification.arrived.error_share:.1%} |"
            )
    if reference is not None:
        name, plain = reference
        lines += ["", f"On {name}:", "", f"- {plain.line('PyTorch')}"]
        lines += [f"- {proof.worth.line(' with '.join(proof.files))}" for proof in proofs if proof.worth is not None]
    lines += [
        f"\n**Not proven**: {proof.verification.problem}."
        for proof in proofs
        if proof.verification is not None and proof.verification.problem is not None
    ]
    return "\n".join(lines)


def _prompt(prompt: DevicePrompt, settings: AdapterSettings) -> str:
    first = "document" if settings.role == "compressor" else "message"
    budget = (
        ""
        if prompt.budget_tokens is None
        else f" A message has at most {prompt.budget_tokens} tokens, that one among them."
    )
    limit = (
        ""
        if prompt.max_document_tokens is None
        else f" Of a {first} of more than {prompt.max_document_tokens} tokens keep the first and the last, half each."
    )
    pieces = "\n".join(
        f"- `{name}`: `{json.dumps(text, ensure_ascii=False)}`"
        for name, text in (("head", prompt.head), ("middle", prompt.middle), ("tail", prompt.tail))
    )
    budgets = (
        f"\n\nIt was trained to keep to budgets that it is asked for: `tails` in `{PROMPT_FILE}` has the tail of each."
        if prompt.tails
        else ""
    )
    return (
        f"Token ids, in this order: `head`, the {first}, `middle`, a space and the question, `tail`; the pieces are in "
        f"`{PROMPT_FILE}`. The reply ends with the token `{prompt.end}` ({prompt.end_token_id}).{budget}{limit}\n\n"
        f"{pieces}\n\n"
        f"Tokenise the pieces with control tokens recognised, and the {first} and the question with control tokens "
        "switched off, or a document can end its turn and speak as somebody else. llama.cpp: `POST /tokenize` with "
        '`{"content": ..., "add_special": false, "parse_special": false}`, then send the ids to `/completion`. The '
        f"chat template inside a GGUF file writes the same prompt from two user messages, {first} and question, but "
        "a runtime recognises control tokens in all of what a template writes: that is for texts that are "
        f"trusted.{budgets}"
    )
