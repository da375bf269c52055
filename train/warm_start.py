"""The warm start: supervised fine-tuning of the compressor's adapter before GRPO, by maximum likelihood.

A compressor that never writes a right message gives a group nothing to compare. Here it learns to copy the sentences
that an answer rests on, under the very prompts that it is sampled with. The processes share each batch and add up their
gradients. What comes out is kept in the run folder, whole or not at all: a run that is killed in the middle of the warm
start begins it anew, and one that is killed later takes it from there.
"""

import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from peft import PeftModel
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from tqdm.auto import tqdm

from configs.command import is_main, say
from data.errors import DataError
from data.evidence import find_evidence
from data.sample import Sample
from data.writing import write_json
from models.adapters import read_adapter, start_from
from models.compressor import Compressor
from models.shared_prefix import MAX_TOKENS_PER_PASS, Continuation, token_scores
from train.checkpoint import Checkpoint, damage, partial_folder, publish
from train.config import Config
from train.guard import DivergenceError
from train.models import Models, save_trained
from train.run_folder import WARM_START
from train.starting import WarmStartConfig

SUMMARY_FILE = "warm_start.json"
"""The file beside the adapter that says what the warm start was."""


class Example(NamedTuple):
    """What is learned from one question.

    Attributes:
        prompt_ids: what the compressor reads in the rollout.
        message_ids: what it is to write, the end token included.
    """

    prompt_ids: list[int]
    message_ids: list[int]


@dataclass(frozen=True)
class Examples:
    """The examples of a warm start, and how many questions have none.

    Attributes:
        chosen: in the order they were drawn.
        left_out: questions that were drawn and give no example, by reason.
    """

    chosen: list[Example]
    left_out: Counter[str]


def warm_start(config: Config, models: Models, samples: Sequence[Sample]) -> dict[str, Any]:
    """Fine-tune the adapter, or load what an earlier start of the run left; what was done, empty where nothing was.

    Args:
        config: the run's.
        models: their adapter is trained in place.
        samples: the questions to train on.

    Raises:
        DataError: no question has a target.
        DivergenceError: a loss or a gradient is not finite.
        ModelError: what an earlier start left cannot be loaded.
        OSError: the run folder cannot be written.
    """
    settings, place = config.train.warm_start, config.folder / WARM_START
    if settings is None:
        return {}
    if _is_whole(place):
        say(f"the warm start is taken from {place}")
        start_from(models.adapted, read_adapter(place), config.compressor.model)
        return json.loads((place / SUMMARY_FILE).read_text(encoding="utf-8"))
    begun = time.time()
    examples = draw_examples(samples, models.compressor, settings.examples, config.seed)
    tell(examples, settings)
    losses = fine_tune(models.adapted, examples.chosen, settings, config.train.max_grad_norm, config.seed)
    summary = {
        "examples": len(examples.chosen),
        "left_out": dict(examples.left_out),
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": time.time() - begun,
    }
    if is_main():
        written = partial_folder(config.folder, create=True) / WARM_START
        save_trained(config, models, written)
        write_json(written / SUMMARY_FILE, summary)
        publish(written, config.folder, None)
    PartialState().wait_for_everyone()
    return summary


def draw_examples(samples: Sequence[Sample], compressor: Compressor, count: int, seed: int) -> Examples:
    """Examples of questions drawn at random: at most ``count``, fewer where the questions give no more.

    Raises:
        DataError: none does.
    """
    chosen: list[Example] = []
    left_out: Counter[str] = Counter()
    for sample in random.Random(f"{seed}/warm start").sample(samples, len(samples)):
        if len(chosen) == count:
            break
        target = target_of(sample)
        if target is None:
            left_out["without evidence"] += 1
            continue
        message_ids = [*compressor.prompts.format.text_ids(target), compressor.end_token_id]
        if len(message_ids) > compressor.budget_tokens:
            left_out[f"longer than the budget of {compressor.budget_tokens} tokens"] += 1
            continue
        prompt = compressor.prompt(sample.document.text, sample.compressor_question)
        chosen.append(Example(prompt.ids, message_ids))
    if not chosen:
        raise DataError(
            f"train.warm_start: none of {len(samples)} training questions has a target ({_counted(left_out)}); give a "
            "larger compressor.budget_tokens, or train.warm_start=null"
        )
    return Examples(chosen, left_out)


def target_of(sample: Sample) -> str | None:
    """The sentences that the answer rests on, as the compressor is to write them; None where none are known.

    A compressor that is not told the question cannot know them either.
    """
    evidence = None if sample.question.blind else find_evidence(sample.document, sample.question)
    if evidence is None:
        return None
    return " ".join(sample.document.text[slice(*span)].strip() for span in evidence.spans)


def tell(examples: Examples, settings: WarmStartConfig) -> None:
    """Say what the warm start learns from, and what it leaves out."""
    count = len(examples.chosen)
    wanted = f" of {settings.examples} wanted" if count < settings.examples else ""
    left_out = f"; left out: {_counted(examples.left_out)}" if examples.left_out else ""
    say(f"warm start on {count}{wanted} questions with their evidence as the message{left_out}")


def fine_tune(
    model: PeftModel, examples: Sequence[Example], settings: WarmStartConfig, max_grad_norm: float, seed: int
) -> list[float]:
    """Train the adapter of a model, by all processes together; the loss of every step, in nats a token.

    The state of the random numbers is left as it is found.

    Args:
        model: is left in the mode it is in.
        examples: at least one, the same in every process.
        settings: batches, passes and learning rate.
        max_grad_norm: maximum norm of the gradient; a larger one is scaled down to it.
        seed: decides the order of examples, and what the adapter's dropout drops.

    Raises:
        DivergenceError: a loss or a gradient is not finite.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batches = list(_batches(examples, settings, seed))
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    schedule = LambdaLR(optimizer, lambda step: 1 - step / len(batches))
    losses: list[float] = []
    training, state = model.training, PartialState()
    model.train()
    bar = tqdm(total=len(batches), desc="warm start", dynamic_ncols=True, disable=not state.is_main_process)
    try:
        with bar, torch.random.fork_rng():
            torch.manual_seed(seed + state.process_index)
            for batch in batches:
                loss = _gradients(model, parameters, batch)
                norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm).item()
                _check_finite(len(losses) + 1, len(batches), loss, norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                schedule.step()
                losses.append(loss)
                bar.set_postfix_str(f"loss {loss:.3f} nats a token", refresh=False)
                bar.update()
    finally:
        optimizer.zero_grad(set_to_none=True)
        model.train(training)
    return losses


def _batches(examples: Sequence[Example], settings: WarmStartConfig, seed: int) -> Iterator[list[Example]]:
    """The examples of every step, shuffled anew for each pass; the last batch of a pass may be smaller."""
    for epoch in range(settings.epochs):
        order = random.Random(f"{seed}/warm start/{epoch}").sample(examples, len(examples))
        for start in range(0, len(order), settings.batch_size):
            yield order[start : start + settings.batch_size]


def _gradients(model: PeftModel, parameters: Sequence[Tensor], batch: Sequence[Example]) -> float:
    """Leave the gradient of a batch's loss at the parameters, in every process; the loss, in nats a token."""
    state = PartialState()
    tokens = sum(len(example.message_ids) for example in batch)
    loss = torch.zeros(1, device=parameters[0].device)
    for part in _passes(batch[state.process_index :: state.num_processes]):
        scores = token_scores(
            model,
            [example.prompt_ids[:-1] for example in part],
            [[Continuation(example.prompt_ids[-1:], example.message_ids)] for example in part],
            entropies=False,
        )
        nats = -torch.stack([message.log_probs.sum() for [message] in scores]).sum() / tokens
        nats.backward()
        loss += nats.detach()
    if state.num_processes > 1:
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = _summed(gradient)
        loss = _summed(loss)
    return loss.item()


def _passes(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """The examples in parts of as many tokens as one forward pass takes, so that a batch may be of any size."""
    part: list[Example] = []
    size = 0
    for example in examples:
        length = len(example.prompt_ids) + len(example.message_ids)
        if part and size + length > MAX_TOKENS_PER_PASS:
            yield part
            part, size = [], 0
        part.append(example)
        size += length
    if part:
        yield part


def _summed(tensor: Tensor) -> Tensor:
    summed = reduce(tensor, "sum")
    assert isinstance(summed, Tensor)
    return summed


def _check_finite(step: int, steps: int, loss: float, norm: float) -> None:
    for name, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value):
            raise DivergenceError(
                f"warm start, step {step} of {steps}: the {name} is not finite; choose a lower "
                "train.warm_start.learning_rate, or another compressor.dtype"
            )


def _is_whole(place: Path) -> bool:
    """Whether the warm start is done, the same for every process; a damaged one is named, and done again."""
    whole = [False]
    if is_main() and place.is_dir():
        reason = damage(Checkpoint(place, 0))
        whole = [reason is None]
        if reason is not None:
            say(f"{place}: {reason}; the warm start is done again", sys.stderr)
    broadcast_object_list(whole)
    return whole[0]


def _counted(left_out: Counter[str]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.most_common())
