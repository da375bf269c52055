"""Trains the embedded model family from scratch, each member through a curriculum.

What makes a lookup of a value by its key form in a few million tokens instead of some hundred million, each measured:
the loss weighs a value's tokens ten times over the rest (whose order is noise until the end), attention starts where it
has to go (`models.miniature.architecture`), a learning rate of 1e-3 and no more, and a curriculum over the number of
facts.

Three phases: the curriculum, for as long as it takes; focused messages; then what the member is to be, with the
learning rate falling: a writer of wordy or of leading messages, or a scorer. A member that grows from another has the
last alone.
"""

import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel

from models.loading import load_model
from models.miniature.architecture import build_member
from models.miniature.corpus import Style, compressor_turns, corpus_texts, predictor_turns
from models.miniature.grow import widen
from models.miniature.members import CHECKPOINT, LOG, MEMBERS, TOKENIZER, Member
from models.miniature.packing import IGNORED, Packer, Row
from models.miniature.passages import scorer_turns
from models.miniature.tokenizer import train_tokenizer
from models.naming import MINIATURE_WEIGHTS

VOCABULARY = 1536
"""Tokens of the family's tokenizer: the corpus has few words, and every token more weighs on the smallest member."""

CURRICULUM_ACCURACY = 0.93
"""Share of right values over a hundred steps from which on documents become longer."""

FIRST_FACTS = 4
"""Facts of the documents that the curriculum begins with."""

LOOKUP_FORMED = 12
"""Facts a document that the curriculum has to reach before the rest of a message is learned at full weight."""

REST_WEIGHT = 0.1
"""Loss weight of the tokens outside values until then: their order is noise."""

FOCUSED_TOKENS = 2e6
"""Tokens, once the curriculum is through, over which messages hold the fact asked for alone: wordy ones teach lookup,
but hardly that the question matters."""

LAST_TOKENS = 5e6
"""Tokens, after these, over which a member becomes what it is to be; `Member.last_tokens` of one that says so."""

COOLDOWN_TOKENS = 4e6
"""Tokens, at the end, over which the learning rate falls."""

LEAST_RATE = 0.02
"""The share of the learning rate that it falls to."""

WARMUP_STEPS = 50
"""Steps over which the learning rate rises."""

MOST_TOKENS = 25e6
"""Tokens after which training gives up on a curriculum that does not get through."""

LOG_STEPS = 100
"""Steps between two lines of the log, each with a checkpoint and a chance for the curriculum to move on."""

PREDICTOR_EVERY = 4
"""Every fourth batch holds predictor conversations, the others compressor conversations."""


@dataclass
class Progress:
    """How far training has come; saved beside the weights.

    Attributes:
        step: optimizer steps taken.
        tokens: tokens read.
        facts: most facts a document of the curriculum has.
        seconds: time spent.
        mastered: the number of tokens after which the curriculum was through, None until then.
        last_style: how far messages follow the question in the last phase.
        last_tokens: tokens of the last phase.
    """

    step: int = 0
    tokens: float = 0.0
    facts: int = FIRST_FACTS
    seconds: float = 0.0
    mastered: float | None = None
    last_style: Style = "wordy"
    last_tokens: float = LAST_TOKENS

    @property
    def style(self) -> Style:
        """How far the messages of the next batch follow the question."""
        if self.mastered is None:
            return "wordy"
        return "focused" if self.tokens < self.mastered + FOCUSED_TOKENS else self.last_style

    @property
    def end(self) -> float:
        """The number of tokens after which training ends, as far as is known."""
        return MOST_TOKENS if self.mastered is None else self.mastered + FOCUSED_TOKENS + self.last_tokens

    @property
    def reads_messages(self) -> bool:
        """Whether the next batch holds predictor conversations."""
        return self.step % PREDICTOR_EVERY == PREDICTOR_EVERY - 1


def ensure_tokenizer() -> None:
    """Train the family's tokenizer where there is none."""
    folder = MINIATURE_WEIGHTS / TOKENIZER
    if not folder.exists():
        train_tokenizer(corpus_texts(seed=0, count=3000), VOCABULARY).save_pretrained(folder)


def train_member(name: str, folder: Path, sequences: int, most_facts: int) -> None:
    """Train one member through its phases, logging and saving as it goes; goes on from its last checkpoint.

    Args:
        name: a key of ``MEMBERS``.
        folder: where checkpoint and log go; members that others are grown from lie beside it.
        sequences: documents a batch.
        most_facts: facts a document at the end of the curriculum.
    """
    member = MEMBERS[name]
    tokenizer = AutoTokenizer.from_pretrained(MINIATURE_WEIGHTS / TOKENIZER)
    packer = Packer(tokenizer)
    model, progress = start_member(name, packer, len(tokenizer), folder.parent, most_facts)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=member.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    if (folder / CHECKPOINT).exists():
        progress = load_checkpoint(model, optimizer, folder)
    generator = random.Random(f"{name}/{member.seed}/{progress.step}")
    window: list[tuple[float, float]] = []
    start, before = time.time(), progress.seconds
    while progress.tokens < progress.end:
        rate_factor, rest_weight = schedule(progress)
        for group in optimizer.param_groups:
            group["lr"] = member.learning_rate * rate_factor
        rows = draw_rows(packer, generator, progress, sequences, member)
        loss, accuracy, tokens = loss_and_accuracy(model, packer, rows, rest_weight)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        window.append((loss.item(), math.nan if progress.reads_messages else accuracy))
        progress.step += 1
        progress.tokens += tokens
        progress.seconds = before + time.time() - start
        if progress.step % LOG_STEPS == 0:
            log_progress(progress, window, folder)
            advance_curriculum(progress, compressor_accuracy(window), member, most_facts)
            window.clear()
            save_checkpoint(model, optimizer, progress, folder)
    save_checkpoint(model, optimizer, progress, folder)


def start_member(
    name: str, packer: Packer, vocabulary: int, family: Path, most_facts: int
) -> tuple[PreTrainedModel, Progress]:
    """A member before its first step: initialised for lookup, or grown from another's checkpoint in ``family``."""
    member = MEMBERS[name]
    model = build_member(member, vocabulary, packer.pad, packer.end)
    last = {"last_style": member.style, "last_tokens": member.last_tokens or LAST_TOKENS}
    if member.grown_from is None:
        return model, Progress(**last)
    if member.released:
        # Only what is shipped is needed to train it anew.
        source, _ = load_model(f"miniature/{member.grown_from}", "float32")
        model.load_state_dict(source.state_dict())
    else:
        small = build_member(MEMBERS[member.grown_from], vocabulary, packer.pad, packer.end)
        small.load_state_dict(torch.load(family / member.grown_from / CHECKPOINT, weights_only=True)["model"])
        widen(small, model)
    return model, Progress(facts=most_facts, mastered=-FOCUSED_TOKENS, **last)


def draw_rows(
    packer: Packer, generator: random.Random, progress: Progress, sequences: int, member: Member
) -> list[Row]:
    """A batch: ``sequences`` compressor conversations, or twice as many predictor conversations, which are shorter.

    A scorer has conversations of its own kind alone.
    """
    if member.role == "scorer":
        return [
            packer.row(scorer_turns(generator, generator.randint(FIRST_FACTS, progress.facts), generator.random(), 4))
            for _ in range(sequences)
        ]
    if progress.reads_messages:
        return [packer.row(predictor_turns(generator, 10, member.qualified)) for _ in range(sequences * 2)]
    facts = [generator.randint(min(FIRST_FACTS, progress.facts), progress.facts) for _ in range(sequences)]
    filler = [generator.random() for _ in facts]
    return [
        packer.row(compressor_turns(generator, count, share, 8, progress.style, member.qualified))
        for count, share in zip(facts, filler, strict=True)
    ]


def loss_and_accuracy(
    model: PreTrainedModel, packer: Packer, rows: list[Row], rest_weight: float
) -> tuple[Float[Tensor, ""], float, int]:
    """Weighted cross-entropy (nats a token), the share of values whose first token is right, and the tokens read.

    Args:
        model: the member.
        packer: knows the tokens of values.
        rows: the batch.
        rest_weight: loss weight of the tokens outside values.
    """
    ids, labels = packer.batch(rows)
    hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
    mask = labels[:, 1:] != IGNORED
    targets = labels[:, 1:][mask]
    logits = model.lm_head(hidden[mask])
    weights = packer.weights(targets, rest_weight)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    opens = packer.opens_value[targets]
    accuracy = (logits.argmax(-1) == targets)[opens].float().mean().item()
    return (losses * weights).sum() / weights.sum(), accuracy, ids.numel()


def schedule(progress: Progress) -> tuple[float, float]:
    """The factor of the learning rate, and the loss weight of tokens outside values."""
    cooldown = min(1.0, max(0.0, progress.end - progress.tokens) / min(COOLDOWN_TOKENS, progress.last_tokens))
    rate_factor = min(1.0, (progress.step + 1) / WARMUP_STEPS) * max(LEAST_RATE, cooldown)
    return rate_factor, REST_WEIGHT if progress.facts < LOOKUP_FORMED else 1.0


def advance_curriculum(progress: Progress, accuracy: float, member: Member, most_facts: int) -> None:
    """Let documents grow where the last steps' value accuracy allows it, or note that the curriculum is through.

    Args:
        progress: changed in place.
        accuracy: share of right values over the last steps.
        member: by how much documents grow, and when the curriculum ends in any case.
        most_facts: facts a document at the end of the curriculum.
    """
    if progress.mastered is not None:
        return
    given_up = member.curriculum_tokens is not None and progress.tokens >= member.curriculum_tokens
    if given_up or (accuracy > CURRICULUM_ACCURACY and progress.facts >= most_facts):
        progress.mastered, progress.facts = progress.tokens, most_facts
    elif accuracy > CURRICULUM_ACCURACY:
        progress.facts = min(most_facts, progress.facts + member.more_facts)


def save_checkpoint(model: PreTrainedModel, optimizer: torch.optim.Optimizer, progress: Progress, folder: Path) -> None:
    """Write the checkpoint in one move, so that a kill leaves the last one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    torch.save(state, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").replace(folder / CHECKPOINT)


def load_checkpoint(model: PreTrainedModel, optimizer: torch.optim.Optimizer, folder: Path) -> Progress:
    """Load weights and optimizer state in place; how far training had come is returned."""
    state = torch.load(folder / CHECKPOINT, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def compressor_accuracy(window: list[tuple[float, float]]) -> float:
    """Mean value accuracy of the window's compressor batches; 0 without any.

    Args:
        window: loss and accuracy of each step; the accuracy of predictor batches is NaN.
    """
    values = [accuracy for _, accuracy in window if not math.isnan(accuracy)]
    return sum(values) / max(1, len(values))


def log_progress(progress: Progress, window: list[tuple[float, float]], folder: Path) -> None:
    """Write one line on the console and in the log: mean loss and value accuracy of the window."""
    folder.mkdir(parents=True, exist_ok=True)
    line = {
        "step": progress.step,
        "tokens": round(progress.tokens),
        "seconds": round(progress.seconds),
        "facts": progress.facts,
        "loss": round(sum(loss for loss, _ in window) / len(window), 4),
        "value_accuracy": round(compressor_accuracy(window), 4),
    }
    print(json.dumps(line), flush=True)
    with (folder / LOG).open("a") as log:
        log.write(json.dumps(line) + "\n")
