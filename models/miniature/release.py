"""Turns a trained checkpoint into a released member: ``python -m models.miniature.release qwen2-small``.

Beside the bf16 weights stand a card with the loss curve and the measured quality of exactly these weights, and the
figures themselves in ``quality.json``. ``--table`` prints the whole family from those files.
"""

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import nn
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel

from data.miniature.documents import SHAPES
from models.loading import load_model
from models.miniature.quality import ALL, FACT_COUNTS, Estimate, Quality, is_share, measure
from models.miniature.train import CHECKPOINT, MEMBERS, WEIGHTS, Member, Progress, build
from models.prompts import ChatFormat

MOST_BYTES = 40_000_000
"""What all members together may weigh."""

TOKENIZER = "tokenizer"
CARD, CURVE, FIGURES = "README.md", "loss.svg", "quality.json"
LOOKUPS = tuple(f"lookup/{facts}" for facts in FACT_COUNTS)
MEASURES = {
    "accuracy_with_fact": "answers: message holds the fact",
    "exact_with_fact": "the same, exact match",
    "accuracy_without_fact": "answers: message lacks the fact",
    "chance": "chance without the fact",
    "sampled/kept": "messages that hold the needed fact",
    "sampled/contradicted": "messages that contradict it",
    "sampled/honest": "restated facts that are true",
    "sampled/facts": "facts restated",
    "sampled/message_tokens": "message tokens",
    "sampled/malformed": "messages cut off or not in the corpus's sentences",
    "sampled/accuracy": "own answers from own messages",
    "greedy/kept": "messages that hold the needed fact, greedy",
    "greedy/honest": "restated facts that are true, greedy",
    "greedy/message_tokens": "message tokens, greedy",
    "greedy/accuracy": "own answers from own messages, greedy",
}
"""The rows of a card's quality table, in order."""

FAMILY_COLUMNS = {
    "answers with the fact": "accuracy_with_fact",
    "without it": "accuracy_without_fact",
    "fact kept": "sampled/kept",
    "honest": "sampled/honest",
    "message tokens": "sampled/message_tokens",
    "own answers": "sampled/accuracy",
    f"lookup at {FACT_COUNTS[0]} facts": LOOKUPS[0],
    f"at {FACT_COUNTS[-1]}": LOOKUPS[-1],
}


def release(name: str, folder: Path, weights: Path, documents: int) -> None:
    """Write one member's weights, card, curve and figures to ``weights/<name>``.

    Args:
        name: a key of ``MEMBERS``.
        folder: what training wrote for this member: ``checkpoint.pt`` and ``log.jsonl``.
        weights: the folder of the family; its ``tokenizer`` is copied into the member.
        documents: how many of each shape to measure on.

    Raises:
        FileNotFoundError: there is no checkpoint, log or tokenizer.
        ValueError: the family would weigh more than ``MOST_BYTES``.
    """
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    target = weights / name
    progress = save_weights(name, folder / CHECKPOINT, weights)
    check_size(weights)
    model, tokenizer = load_model(str(target))
    quality = measure(model, tokenizer, documents)
    record = {
        "member": {**asdict(MEMBERS[name]), "name": name, "parameters": model.num_parameters()},
        "training": {**asdict(progress), "loss": log[-1]["loss"]},
        "quality": {
            measured: {group: asdict(found) for group, found in groups.items()} for measured, groups in quality.items()
        },
    }
    (target / FIGURES).write_text(json.dumps(record, indent=1) + "\n")
    draw_curve(log, target / CURVE)
    (target / CARD).write_text(card(MEMBERS[name], name, model, progress, log, quality))


def save_weights(name: str, checkpoint: Path, weights: Path) -> Progress:
    """Write the checkpoint's model in bfloat16 with its config and the family's tokenizer.

    Returns:
        How far the model was trained.

    Raises:
        FileNotFoundError: there is no checkpoint or tokenizer.
    """
    tokenizer = AutoTokenizer.from_pretrained(weights / TOKENIZER)
    end = ChatFormat(tokenizer).end_token_id
    state = torch.load(checkpoint, weights_only=True)
    model = build(MEMBERS[name], len(tokenizer), tokenizer.pad_token_id, end)
    model.load_state_dict(state["model"])
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=tokenizer.pad_token_id)
    shutil.copytree(weights / TOKENIZER, weights / name, dirs_exist_ok=True)
    cast(nn.Module, model).to(torch.bfloat16)
    model.save_pretrained(weights / name)
    return Progress(**state["progress"])


def check_size(weights: Path) -> None:
    """Refuse a family that is too heavy to ship.

    Raises:
        ValueError: its safetensors weigh more than ``MOST_BYTES``.
    """
    size = sum(file.stat().st_size for file in weights.glob("*/*.safetensors"))
    if size > MOST_BYTES:
        raise ValueError(f"the members in {weights} weigh {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f} MB")


def draw_curve(log: list[dict[str, float]], path: Path) -> None:
    """The loss and the lookup accuracy over the tokens read, with the number of facts the curriculum stood at."""
    millions = [line["tokens"] / 1e6 for line in log]
    with rc_context({"svg.hashsalt": "curve", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        above.plot(millions, [line["loss"] for line in log])
        above.set(yscale="log", ylabel="loss, nats a token")
        below.plot(millions, [line["value_accuracy"] for line in log])
        below.set(ylim=(0, 1.02), ylabel="values right", xlabel="million tokens")
        facts = below.twinx()
        facts.step(millions, [line["facts"] for line in log], color="tab:gray", where="post", linestyle=":")
        facts.set(ylim=(0, None), ylabel="most facts a document")
        figure.savefig(path, format="svg", metadata={"Date": None})


def card(
    member: Member, name: str, model: PreTrainedModel, progress: Progress, log: list[dict[str, float]], quality: Quality
) -> str:
    """The member's page, in Markdown."""
    n = quality["chance"][ALL]
    return f"""---
license: apache-2.0
language: en
---
# {name}

A {type(model).__name__} of {model.num_parameters():,} parameters in bfloat16, trained from scratch on the project's own
generated documents. It plays both roles: it writes messages about a document, and it answers questions from a message.
It knows five shapes of invented documents and nothing else.

| | |
|---|---|
| layers, width, heads, feed-forward | {member.layers}, {member.width}, {member.heads}, {member.feed_forward} |
| vocabulary | {model.config.vocab_size} byte-level tokens |
| window | {model.config.max_position_embeddings} tokens |
| data | `models/miniature/corpus.py`: documents of `data/miniature.py`, split `train`, up to {progress.facts} facts |
| start | {origin(member)} |
| seed | {member.seed} |
| learning rate | {member.learning_rate:g}, falling to nothing at the end |
| steps | {progress.step:,} |
| tokens | {progress.tokens / 1e6:.1f} million |
| hours | {progress.seconds / 3600:.2f} on one CPU core |
| final loss | {log[-1]["loss"]:.3f} nats a token of the replies |

`python -m models.miniature.train {name}` trains it; `python -m models.miniature.release {name}` writes this page.

![loss, lookup accuracy and curriculum over training]({CURVE})

Jumps of the curve are changes of what is learned: at first little but the values count, then all of a message, and
messages hold one fact or many (see `models/miniature/train.py`). "Values right" counts the first token of every value.

## Measured

These weights on held-out documents of 24 facts: their names, their pairs of key and number and part of their wordings
never occurred in training. {n.n} questions in {n.documents} documents; in brackets the 95% interval from a bootstrap
over documents. Messages are sampled at temperature 1 unless the row says greedy; their tokens include the end token.

{quality_table(quality)}

A document's value by its key, when a message has begun the sentence about it:

{lookup_table(quality)}

Chance counts every value as equally likely: one in five options, yes or no, one in 90 numbers, next to nothing for an
invented name. A message that lacks the fact may still rule out options that it states about other things.
"""


def origin(member: Member) -> str:
    """What the weights were before the first step."""
    if member.grown_from is None:
        return "random, attention initialised for lookup"
    return f"`{member.grown_from}` widened to the same function (`models/miniature/grow.py`): its tokens come on top"


def quality_table(quality: Quality) -> str:
    """Measures by shape, as a Markdown table."""
    rows = [f"| | all | {' | '.join(_short(shape) for shape in SHAPES)} |", "|---|" + "---|" * (len(SHAPES) + 1)]
    for measured, label in MEASURES.items():
        groups = quality[measured]
        whole = _mean if measured == "chance" else _cell
        cells = [whole(measured, groups[ALL]), *(_mean(measured, groups.get(shape)) for shape in SHAPES)]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(rows)


def lookup_table(quality: Quality) -> str:
    """Lookup accuracy by the number of facts in the document, as a Markdown table."""
    counts = " | ".join(str(facts) for facts in FACT_COUNTS)
    cells = " | ".join(_cell(lookup, quality[lookup][ALL]) for lookup in LOOKUPS)
    return f"| facts | {counts} |\n|---|{'---|' * len(FACT_COUNTS)}\n| right | {cells} |"


def family_table(weights: Path) -> str:
    """All released members, smallest first, as a Markdown table.

    Raises:
        FileNotFoundError: no member has been released there.
    """
    records = [json.loads(path.read_text()) for path in weights.glob(f"*/{FIGURES}")]
    if not records:
        raise FileNotFoundError(f"no {FIGURES} in the folders of {weights}: release a member first")
    rows = [f"| member | parameters | {' | '.join(FAMILY_COLUMNS)} |", "|---|" + "---|" * (len(FAMILY_COLUMNS) + 1)]
    for record in sorted(records, key=lambda record: record["member"]["parameters"]):
        found = [_cell(measured, Estimate(**record["quality"][measured][ALL])) for measured in FAMILY_COLUMNS.values()]
        size = f"{record['member']['parameters'] / 1e6:.2f} M"
        rows.append(f"| {record['member']['name']} | {size} | {' | '.join(found)} |")
    return "\n".join(rows)


def _short(shape: str) -> str:
    return shape.rpartition("/")[2]


def _mean(measured: str, found: Estimate | None) -> str:
    if found is None:
        return "–"
    return f"{found.value:.1%}" if is_share(measured) else f"{found.value:.1f}"


def _cell(measured: str, found: Estimate) -> str:
    factor = 100 if is_share(measured) else 1
    return f"{_mean(measured, found)} [{factor * found.low:.1f}, {factor * found.high:.1f}]"


def main() -> None:
    """Parse the command line; release one member or print the family's table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("member", nargs="?", choices=sorted(MEMBERS))
    parser.add_argument("--folder", type=Path, default=Path("runs/miniature"), help="where training left the member")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the folder of the released family")
    parser.add_argument("--documents", type=int, default=30, help="documents of each shape to measure on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print the table of all released members instead")
    arguments = parser.parse_args()
    if arguments.table:
        print(family_table(arguments.weights))
        return
    if arguments.member is None:
        parser.error("name a member to release, or pass --table")
    torch.set_num_threads(arguments.threads)
    release(arguments.member, arguments.folder / arguments.member, arguments.weights, arguments.documents)
    print((arguments.weights / arguments.member / CARD).read_text())


if __name__ == "__main__":
    main()
