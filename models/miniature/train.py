"""Trains the embedded model family from scratch: ``python -m models.miniature.train qwen2-small``.

What makes a lookup of a value by its key form in a few million tokens instead of some hundred million, each measured:
the loss weighs a value's tokens ten times over the rest (whose order is noise until the end), attention starts where it
has to go (mimetic initialisation, Trockman and Kolter 2023: a layer that smears the last tokens over each position,
then layers that match like with like), a learning rate of 1e-3 and no more, and a curriculum over the number of facts.

Three phases: the curriculum, for as long as it takes; focused messages; wordy ones with the learning rate falling.
A start continues from the member's last checkpoint.
"""

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from data.miniature.values import FIRST_SYLLABLES
from models.miniature.corpus import Turn, compressor_turns, corpus_texts, predictor_turns
from models.miniature.grow import widen
from models.miniature.tokenizer import train_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
VOCABULARY = 1536
CHECKPOINT = "checkpoint.pt"
IGNORED = -100
SMEARED = 3
"""How many tokens back the first layer looks at the start, one head for each."""

CURRICULUM_ACCURACY = 0.93
"""Share of right values over a hundred steps from which on documents become longer."""

LOOKUP_FORMED = 12
"""Facts a document that the curriculum has to reach before the rest of a message is learned at full weight."""

FOCUSED_TOKENS = 2e6
"""Tokens, once the curriculum is through, over which messages hold the fact asked for alone: wordy ones teach lookup,
but hardly that the question matters."""

WORDY_TOKENS = 5e6
"""Tokens, after these, over which messages are as wordy as the untrained compressor's are to be."""

COOLDOWN_TOKENS = 4e6
"""Tokens, at the end, over which the learning rate falls."""

MOST_TOKENS = 25e6
"""Where training gives up on a curriculum that does not get through."""


@dataclass(frozen=True)
class Member:
    """One model of the family and how it is trained.

    ``more_facts`` is by how much the curriculum's documents grow, ``grown_from`` the member it starts as a wider copy
    of (lookup is there then, and only the wordy phase is left).
    """

    architecture: str
    width: int
    layers: int
    heads: int
    feed_forward: int
    learning_rate: float = 1e-3
    more_facts: int = 2
    grown_from: str | None = None
    seed: int = 0


MEMBERS = {
    "qwen2-small": Member("qwen2", 128, 2, 4, 256),
    "llama-medium": Member("llama", 192, 2, 6, 512, learning_rate=6e-4, more_facts=4),
    "qwen2-large": Member("qwen2", 256, 2, 8, 800, learning_rate=5e-4, grown_from="qwen2-small"),
}


@dataclass
class Progress:
    """Where training stands; saved beside the weights.

    ``mastered`` is the number of tokens after which the curriculum was through, None until then.
    """

    step: int = 0
    tokens: float = 0.0
    facts: int = 4
    seconds: float = 0.0
    mastered: float | None = None

    @property
    def focused(self) -> bool:
        """Whether messages hold the fact asked for alone."""
        return self.mastered is not None and self.tokens < self.mastered + FOCUSED_TOKENS

    @property
    def end(self) -> float:
        """The number of tokens after which training ends, as far as is known."""
        return MOST_TOKENS if self.mastered is None else self.mastered + FOCUSED_TOKENS + WORDY_TOKENS


def build(member: Member, vocabulary: int, pad: int, end: int) -> PreTrainedModel:
    """A stock transformers model of the member's size, initialised for lookup."""
    shared: dict[str, Any] = dict(
        vocab_size=vocabulary,
        hidden_size=member.width,
        intermediate_size=member.feed_forward,
        num_hidden_layers=member.layers,
        num_attention_heads=member.heads,
        num_key_value_heads=member.heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.06,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        pad_token_id=pad,
        eos_token_id=end,
        bos_token_id=None,
    )
    torch.manual_seed(member.seed)
    if member.architecture == "qwen2":
        model: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(**shared))
    else:
        model = LlamaForCausalLM(LlamaConfig(**shared, attention_bias=True))
    initialise_for_lookup(model, member)
    return model


@torch.no_grad()
def initialise_for_lookup(model: PreTrainedModel, member: Member, scale: float = 0.7, bias: float = 2.5) -> None:
    """Start attention near a smear-then-match circuit: equal query and key maps, value and output maps that cancel.

    In the first layer, biases on queries and keys make RoPE peak one to ``SMEARED`` tokens back.
    """
    size = member.width // member.heads
    half = size // 2
    frequencies = 1e6 ** (-torch.arange(half) / half)
    for index, layer in enumerate(model.model.layers):
        attention = layer.self_attn
        for head in range(member.heads):
            rows = slice(head * size, (head + 1) * size)
            matching = torch.randn(size, member.width) / math.sqrt(member.width) * 1.5
            smears = index == 0 and head < SMEARED
            attention.q_proj.weight[rows] = attention.k_proj.weight[rows] = matching * (0.2 if smears else 1.0)
            if smears:
                offset = head + 1
                start = head * size
                attention.q_proj.bias[start : start + half] = bias
                attention.k_proj.bias[start : start + half] = bias * torch.cos(offset * frequencies)
                attention.k_proj.bias[start + half : start + size] = bias * torch.sin(offset * frequencies)
        orthogonal = torch.linalg.qr(torch.randn(member.width, member.width))[0]
        if index == 0:
            # Smeared tokens share one subspace, so that a key is found again whatever its distance was.
            orthogonal[: SMEARED * size] = orthogonal[:size].repeat(SMEARED, 1)
        attention.v_proj.weight.copy_(orthogonal * scale)
        attention.o_proj.weight.copy_(orthogonal.T * scale)


class Packer:
    """Turns conversations into token rows whose loss weights single out the tokens of values."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Find the tokens that open a value and those that cannot continue one."""
        self.encode = tokenizer.backend_tokenizer.encode_batch
        self.user, self.assistant, self.end, self.pad = (
            tokenizer.vocab[token] for token in ("<|user|>", "<|assistant|>", "<|end|>", "<|pad|>")
        )
        size = len(tokenizer)
        self.opens_value = torch.zeros(size, dtype=torch.bool)
        self.ends_value = torch.zeros(size, dtype=torch.bool)
        for index in range(size):
            text = str(tokenizer.decode([index]))
            number = len(text.strip()) == 2 and text.strip().isdigit()
            name = len(text) >= 3 and text[0] == " " and any(s.startswith(text[1:]) for s in FIRST_SYLLABLES)
            self.opens_value[index] = number or name or text.strip() in ("yes", "no")
            self.ends_value[index] = text in (".", " million", "<|end|>", ";", ":")

    def row(self, turns: list[Turn]) -> tuple[list[int], list[int]]:
        """Token ids and labels; a label is ``IGNORED`` outside the replies."""
        encoded = self.encode([part for turn in turns for part in (turn.prompt, turn.reply)], add_special_tokens=False)
        ids: list[int] = []
        labels: list[int] = []
        for prompt, reply in zip(encoded[::2], encoded[1::2], strict=True):
            ids += [self.user, *prompt.ids, self.end, self.assistant, *reply.ids, self.end]
            labels += [IGNORED] * (len(prompt.ids) + 3) + [*reply.ids, self.end]
        return ids, labels

    def batch(self, rows: list[tuple[list[int], list[int]]]) -> tuple[Tensor, Tensor]:
        """Right-padded ids and labels; causal attention needs no mask for them."""
        longest = max(len(ids) for ids, _ in rows)
        ids = torch.tensor([row + [self.pad] * (longest - len(row)) for row, _ in rows])
        labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for _, row in rows])
        return ids, labels

    def weights(self, targets: Tensor, other: float) -> Tensor:
        """1 for the two tokens of each value, ``other`` elsewhere."""
        opens = self.opens_value[targets]
        second = torch.zeros_like(opens)
        second[1:] = opens[:-1] & ~self.ends_value[targets[1:]]
        return torch.where(opens | second, 1.0, other)


def loss_and_accuracy(model: PreTrainedModel, packer: Packer, rows: list, other: float) -> tuple[Tensor, float, int]:
    """Weighted cross-entropy, the share of right value openings, and the tokens read."""
    ids, labels = packer.batch(rows)
    hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state
    mask = labels[:, 1:] != IGNORED
    targets = labels[:, 1:][mask]
    logits = model.lm_head(hidden[mask])
    weights = packer.weights(targets, other)
    losses = nn.functional.cross_entropy(logits, targets, reduction="none")
    opens = packer.opens_value[targets]
    accuracy = (logits.argmax(-1) == targets)[opens].float().mean().item()
    return (losses * weights).sum() / weights.sum(), accuracy, ids.numel()


def draw_rows(packer: Packer, generator: random.Random, progress: Progress, sequences: int) -> list:
    """Three batches of compressor conversations, then one of predictor conversations."""
    if progress.step % 4 == 3:
        return [packer.row(predictor_turns(generator, 10)) for _ in range(sequences * 2)]
    facts = [generator.randint(min(4, progress.facts), progress.facts) for _ in range(sequences)]
    filler = [generator.random() for _ in facts]
    return [
        packer.row(compressor_turns(generator, count, share, 8, progress.focused))
        for count, share in zip(facts, filler, strict=True)
    ]


def schedule(progress: Progress) -> tuple[float, float]:
    """Learning rate factor and the weight of tokens outside values: these count fully once lookup has formed."""
    cooldown = min(1.0, max(0.0, progress.end - progress.tokens) / COOLDOWN_TOKENS)
    return min(1.0, (progress.step + 1) / 50) * max(0.02, cooldown), 0.1 if progress.facts < LOOKUP_FORMED else 1.0


def advance(progress: Progress, accuracy: float, more_facts: int, most_facts: int) -> None:
    """Move the curriculum on where the last steps' value accuracy allows it."""
    if accuracy > CURRICULUM_ACCURACY and progress.mastered is None:
        if progress.facts >= most_facts:
            progress.mastered = progress.tokens
        progress.facts = min(most_facts, progress.facts + more_facts)


def save(model: PreTrainedModel, optimizer: torch.optim.Optimizer, progress: Progress, folder: Path) -> None:
    """Write the checkpoint in one move, so that a kill leaves the last one whole."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
    torch.save(state, folder / "checkpoint.tmp")
    (folder / "checkpoint.tmp").replace(folder / CHECKPOINT)


def train(name: str, folder: Path, sequences: int, most_facts: int) -> None:
    """Train one member through its phases, logging and saving as it goes."""
    member = MEMBERS[name]
    tokenizer = AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    packer = Packer(tokenizer)
    model = build(member, len(tokenizer), packer.pad, packer.end)
    progress = Progress()
    if member.grown_from:
        small = build(MEMBERS[member.grown_from], len(tokenizer), packer.pad, packer.end)
        small.load_state_dict(torch.load(folder.parent / member.grown_from / CHECKPOINT, weights_only=True)["model"])
        widen(small, model)
        progress = Progress(facts=most_facts, mastered=-FOCUSED_TOKENS)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=member.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    if (folder / CHECKPOINT).exists():
        state = torch.load(folder / CHECKPOINT, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
    generator = random.Random(f"{name}/{member.seed}/{progress.step}")
    window: list[tuple[float, float]] = []
    start, before = time.time(), progress.seconds
    while progress.tokens < progress.end:
        factor, other = schedule(progress)
        for group in optimizer.param_groups:
            group["lr"] = member.learning_rate * factor
        rows = draw_rows(packer, generator, progress, sequences)
        loss, accuracy, tokens = loss_and_accuracy(model, packer, rows, other)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        window.append((loss.item(), accuracy if progress.step % 4 != 3 else math.nan))
        progress.step += 1
        progress.tokens += tokens
        progress.seconds = before + time.time() - start
        if progress.step % 100 == 0:
            report(progress, window, folder)
            advance(progress, compressor_accuracy(window), member.more_facts, most_facts)
            window.clear()
            save(model, optimizer, progress, folder)
    save(model, optimizer, progress, folder)


def compressor_accuracy(window: list[tuple[float, float]]) -> float:
    """Mean value accuracy of the compressor batches of the window."""
    values = [accuracy for _, accuracy in window if not math.isnan(accuracy)]
    return sum(values) / max(1, len(values))


def report(progress: Progress, window: list[tuple[float, float]], folder: Path) -> None:
    """One line on the console and in ``log.jsonl``."""
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
    with (folder / "log.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


def main() -> None:
    """Parse the command line, train the tokenizer where it is missing, train the member."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("member", choices=sorted(MEMBERS))
    parser.add_argument("--folder", type=Path, default=Path("runs/miniature"), help="checkpoints and logs go here")
    parser.add_argument("--sequences", type=int, default=6, help="documents a batch")
    parser.add_argument("--facts", type=int, default=26, help="facts a document at the end of the curriculum")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not (WEIGHTS / "tokenizer").exists():
        train_tokenizer(corpus_texts(seed=0, count=3000), VOCABULARY).save_pretrained(WEIGHTS / "tokenizer")
    train(arguments.member, arguments.folder / arguments.member, arguments.sequences, arguments.facts)


if __name__ == "__main__":
    main()
