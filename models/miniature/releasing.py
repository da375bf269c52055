"""Writes a released member of the miniature family: weights, figures, curve and card."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from data.miniature.task import SHARING
from data.writing import write_text
from models.compressor import Compressor
from models.loading import load_model
from models.miniature.architecture import build_member
from models.miniature.card import CURVE, FIGURES, draw_curve, member_card
from models.miniature.members import CHECKPOINT, LOG, MEMBERS, TOKENIZER, Member
from models.miniature.quality import (
    MAX_ANSWER_TOKENS,
    MAX_MESSAGE_TOKENS,
    QUALIFIED_LOOKUP,
    Quality,
    draw_cases,
    lookup_observations,
    measure_member,
    summarise,
)
from models.miniature.scorer_quality import check_scorer, measure_scorer
from models.miniature.selection import check_selection, measure_selection
from models.miniature.training import Progress
from models.predictor import LocalPredictor
from models.prompts import ChatFormat

MOST_BYTES = 40_000_000
"""The most that all members together may weigh, so that the package stays small enough to install."""

QUESTIONS = 4
"""Questions about each document of a card."""

CARD = "README.md"
"""The file of a member's card, which hubs show first."""


def release_member(name: str, folder: Path, weights: Path, documents: int) -> str:
    """Write one member's weights, figures, curve and card to ``weights/<name>``.

    Args:
        name: a key of ``MEMBERS``.
        folder: what training wrote for this member: ``checkpoint.pt`` and ``log.jsonl``.
        weights: the folder of the family; its ``tokenizer`` is copied into the member.
        documents: how many of each shape to measure on.

    Returns:
        The card.

    Raises:
        FileNotFoundError: there is no checkpoint, log or tokenizer.
        ValueError: the family would weigh more than ``MOST_BYTES``, or the member fails its acceptance test.
    """
    log = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    target = weights / name
    progress = save_weights(name, folder / CHECKPOINT, weights)
    check_size(weights)
    model, tokenizer = load_model(str(target))
    quality = measure(MEMBERS[name], model, tokenizer, documents)
    record = {
        "member": {**asdict(MEMBERS[name]), "name": name, "parameters": model.num_parameters()},
        "training": {**asdict(progress), "loss": log[-1]["loss"]},
        "quality": {
            measure: {group: asdict(mean) for group, mean in groups.items()} for measure, groups in quality.items()
        },
    }
    write_text(target / FIGURES, json.dumps(record, indent=1) + "\n")
    draw_curve(log, target / CURVE)
    card = member_card(MEMBERS[name], name, model, progress, log, quality)
    write_text(target / CARD, card)
    return card


def measure(member: Member, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, documents: int) -> Quality:
    """The figures of a member's card; see the parameters of `release_member`.

    Raises:
        ValueError: a scorer, or a member whose messages are not to follow the question, fails its acceptance test.
    """
    if member.role == "scorer":
        quality = measure_scorer(model, tokenizer, documents)
        check_scorer(quality)
        return quality
    quality = measure_member(model, tokenizer, documents, QUESTIONS)
    compressor = Compressor(model, tokenizer, MAX_MESSAGE_TOKENS)
    if member.qualified:
        cases = draw_cases(documents, QUESTIONS, sharing=SHARING)
        quality |= summarise(lookup_observations(compressor, cases, QUALIFIED_LOOKUP))
    if member.style == "leading":
        predictor = LocalPredictor(model, tokenizer, MAX_ANSWER_TOKENS)
        rules = measure_selection(compressor, predictor, draw_cases(documents, QUESTIONS), 0)
        check_selection(rules)
        quality |= rules
    return quality


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
    model = build_member(MEMBERS[name], len(tokenizer), tokenizer.pad_token_id, end)
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
