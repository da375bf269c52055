"""The page of a member of the miniature family: its curve, its card, and the table of the whole family."""

import json
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from transformers import PreTrainedModel

from data.miniature.documents import SHAPES
from data.miniature.task import SHARING
from models.miniature.members import MEMBERS, Member, Role
from models.miniature.quality import ALL, FACT_COUNTS, FACTS, QUALIFIED_LOOKUP, MeasuredMean, Quality, is_share
from models.miniature.scorer_quality import DOCUMENT_AT_LEAST, OTHERS, QUOTED_AT_LEAST, TEXTS, TWINS
from models.miniature.selection import MOST_ACCURATE, RULES
from models.miniature.training import Progress

CURVE, FIGURES = "loss.svg", "quality.json"
"""Files beside a member's weights: the curve of its training, and the figures of its card."""

LOOKUPS = tuple(f"lookup/{facts}" for facts in FACT_COUNTS)
"""The measures of lookup, by the number of facts in the document."""

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
"""The columns of the family's table and the measures they show, in order."""


def draw_curve(log: list[dict[str, float]], path: Path) -> None:
    """Plot the loss and the lookup accuracy over the tokens read, with the number of facts the curriculum stood at.

    Args:
        log: the lines of the member's log.
        path: the SVG that is written.
    """
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


def member_card(
    member: Member, name: str, model: PreTrainedModel, progress: Progress, log: list[dict[str, float]], quality: Quality
) -> str:
    """The member's page, in Markdown.

    Args:
        member: its sizes and how it was trained.
        name: its key in ``MEMBERS``.
        model: the member.
        progress: how far it was trained.
        log: the lines of its log.
        quality: what was measured of it.
    """
    measured = _scorer_section(quality) if member.role == "scorer" else _pair_section(member, quality)
    return f"""---
license: apache-2.0
language: en
---
# {name}

A {type(model).__name__} of {model.num_parameters():,} parameters in bfloat16, trained from scratch on the project's own
generated documents. {ROLES[member.role]}
It knows five shapes of invented documents and nothing else.

{_training_table(member, model, progress, log)}

`python -m models.miniature.train {name}` trains it; `python -m models.miniature.release {name}` writes this page.

![loss, lookup accuracy and curriculum over training]({CURVE})

Jumps of the curve are changes of what is learned: at first little counts but the values, then all of a message; later
messages hold one fact alone, and in the end several again (see `models/miniature/training.py`). "Values right" counts
the first token of every value.

## Measured

{measured}"""


def _held_out(observed: MeasuredMean) -> str:
    """What the figures of a card were measured on."""
    return f"""These weights on held-out documents of {FACTS} facts: their names, their pairs of key and number and part
of their wordings never occurred in training. {observed.n} questions in {observed.documents} documents; in brackets the
95% interval from a percentile bootstrap over documents."""


def _scorer_section(quality: Quality) -> str:
    """What a scorer sees in texts of every kind."""
    rows = [f"| {label} | {_cell(measure, quality[measure][ALL])} |" for measure, label in TEXTS.items()]
    return f"""{_held_out(quality["ceiling/statement"][ALL])} The information of a text, by the contrastive
bound against {TWINS} versions of its document with another answer and {OTHERS} other documents, as a share of its
ceiling; a mean that is not clipped at 0. A text without the answer cannot be told from the versions: of 3 bits it
can have 1.

| text | share of the ceiling |
|---|---|
{chr(10).join(rows)}

The release refuses a scorer that gives the whole document less than {DOCUMENT_AT_LEAST:.0%}, or the document's own
sentence less than {QUOTED_AT_LEAST:.0%} of what it gives a statement of the same.
"""


def _selection_section(quality: Quality) -> str:
    """What no rule brings out of a member whose messages do not follow the question."""
    rules = [f"| {label} | {_cell(measure, quality[measure][ALL])} |" for measure, label in RULES.items()]
    return f"""
### Without training it does not select

Its own answers from its own messages, and rules over these; the release refuses a member of which a rule scores more
than {MOST_ACCURATE:.0%}.

| messages | right |
|---|---|
{chr(10).join(rules)}

### In both roles
"""


def _pair_section(member: Member, quality: Quality) -> str:
    """What a member does as compressor and as predictor."""
    selection = _selection_section(quality) if member.style == "leading" else ""
    shared = f"\n{_shared_keys(quality)}\n" if member.qualified else ""
    return f"""{_held_out(quality["chance"][ALL])} Messages are sampled at temperature 1 unless the row says
greedy; their tokens include the end token.
{selection}
{quality_table(quality)}

A document's value by its key, when a message has begun the sentence about it:

{lookup_table(quality)}
{shared}
Chance counts every value as equally likely: one in five options, yes or no, one in 90 numbers, next to nothing for an
invented name. A message that lacks the fact may still rule out options that it states about other things.
"""


def _shared_keys(quality: Quality) -> str:
    """Lookup among facts that share their keys."""
    right = _cell(QUALIFIED_LOOKUP, quality[QUALIFIED_LOOKUP][ALL])
    return f"""Where {SHARING} facts share a key and a qualifier tells them apart ("the small ticket", "the new
ticket"), {FACTS} facts a document: {right}."""


ROLES: dict[Role, str] = {
    "pair": "It plays both roles: it writes messages about a document, and it answers questions from a message.",
    "scorer": "It scores: it says how likely a text is after a document, whatever wrote the text.",
}
"""What a card says a member is for."""


def _training_table(member: Member, model: PreTrainedModel, progress: Progress, log: list[dict[str, float]]) -> str:
    """Sizes and training of a member, as a Markdown table."""
    corpus = "passages" if member.role == "scorer" else "corpus"
    return f"""| | |
|---|---|
| layers, width, heads, feed-forward | {member.layers}, {member.width}, {member.heads}, {member.feed_forward} |
| vocabulary | {model.config.vocab_size} byte-level tokens |
| window | {model.config.max_position_embeddings} tokens |
| data | `models/miniature/{corpus}.py`: documents of `data/miniature`, split `train`, up to {progress.facts} facts |
| start | {origin(member)} |
| seed | {member.seed} |
| learning rate | {member.learning_rate:g}, falling to nothing at the end |
| steps | {progress.step:,} |
| tokens | {progress.tokens / 1e6:.1f} million |
| hours | {progress.seconds / 3600:.2f} on one CPU core |
| final loss | {log[-1]["loss"]:.3f} nats a token of the replies |"""


def origin(member: Member) -> str:
    """What the weights were before the first step."""
    if member.grown_from is None:
        return "random, attention initialised for lookup"
    source = MEMBERS[member.grown_from]
    if source.width == member.width:
        return f"the weights of `{member.grown_from}`: its tokens come on top"
    return f"`{member.grown_from}` widened to the same function (`models/miniature/grow.py`): its tokens come on top"


def quality_table(quality: Quality) -> str:
    """Measures by shape, as a Markdown table."""
    rows = [f"| | all | {' | '.join(_short(shape) for shape in SHAPES)} |", "|---|" + "---|" * (len(SHAPES) + 1)]
    for measure, label in MEASURES.items():
        groups = quality[measure]
        # Chance is known exactly: it has no interval.
        overall = _mean if measure == "chance" else _cell
        cells = [overall(measure, groups[ALL]), *(_mean(measure, groups.get(shape)) for shape in SHAPES)]
        rows.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(rows)


def lookup_table(quality: Quality) -> str:
    """Lookup accuracy by the number of facts in the document, as a Markdown table."""
    counts = " | ".join(str(facts) for facts in FACT_COUNTS)
    cells = " | ".join(_cell(lookup, quality[lookup][ALL]) for lookup in LOOKUPS)
    return f"| facts | {counts} |\n|---|{'---|' * len(FACT_COUNTS)}\n| right | {cells} |"


def family_table(weights: Path) -> str:
    """All released members that compress and answer, smallest first, as a Markdown table.

    Raises:
        FileNotFoundError: no member has been released there.
    """
    records = [json.loads(path.read_text()) for path in weights.glob(f"*/{FIGURES}")]
    records = [record for record in records if record["member"].get("role", "pair") == "pair"]
    if not records:
        raise FileNotFoundError(f"no {FIGURES} in the folders of {weights}: release a member first")
    rows = [f"| member | parameters | {' | '.join(FAMILY_COLUMNS)} |", "|---|" + "---|" * (len(FAMILY_COLUMNS) + 1)]
    for record in sorted(records, key=lambda record: record["member"]["parameters"]):
        quality = record["quality"]
        cells = [_cell(measure, MeasuredMean(**quality[measure][ALL])) for measure in FAMILY_COLUMNS.values()]
        size = f"{record['member']['parameters'] / 1e6:.2f} M"
        rows.append(f"| {record['member']['name']} | {size} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _short(shape: str) -> str:
    """A shape without the name of the family."""
    return shape.rpartition("/")[2]


def _mean(measure: str, mean: MeasuredMean | None) -> str:
    """A mean as a cell; a dash where there is none."""
    if mean is None:
        return "–"
    return f"{mean.value:.1%}" if is_share(measure) else f"{mean.value:.1f}"


def _cell(measure: str, mean: MeasuredMean) -> str:
    """A mean and its interval as a cell."""
    factor = 100 if is_share(measure) else 1
    return f"{_mean(measure, mean)} [{factor * mean.low:.1f}, {factor * mean.high:.1f}]"
