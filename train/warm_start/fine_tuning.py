"""Supervised fine-tuning of an adapter by maximum likelihood, which goes on where a kill ended it.

The processes share each batch and add up their gradients. Every two minutes the state is written: the adapter's weights
and the moments of its optimizer, as plain tensors. All else is drawn anew from the seed and the number of the step.
"""

import json
import math
import random
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from jaxtyping import Float
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from configs.command import is_main, say
from data.writing import write_json
from models.shared_prefix import MAX_TOKENS_PER_PASS, Continuation, sampling_seed, token_scores
from train.checkpoints.checkpoint import Checkpoint, damage, partial_folder, publish, put_back
from train.grpo.guard import DivergenceError
from train.sections.starting import FineTuningConfig

SAVE_SECONDS = 120.0
"""Seconds between two states, of three times the adapter's size each: what a kill costs at most, and a step more. A
step of a real model takes less than a second or a minute, as the machine is."""

TENSORS, PROGRESS = "tensors.safetensors", "progress.json"
"""The files of a state."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of every parameter beside the number of steps."""


class Example(NamedTuple):
    """What is learned from one question.

    Attributes:
        prompt_ids: what the model reads.
        reply_ids: what it is to write, the end token included.
        context: a name of the long text that the prompt begins with; empty where there is none to share.
        later_replies: what it is to write in the second pass over the examples, in the third, and so on, in turn with
            the first reply; empty where that is the reply of every pass.
    """

    prompt_ids: list[int]
    reply_ids: list[int]
    context: str = ""
    later_replies: tuple[list[int], ...] = ()

    def in_pass(self, number: int) -> "Example":
        """The example of a pass, from 0."""
        replies = (self.reply_ids, *self.later_replies)
        return self._replace(reply_ids=replies[number % len(replies)])


class Kept(NamedTuple):
    """Where the state of a fine-tuning is kept.

    Attributes:
        run_folder: the run's.
        name: the state's folder in it.
        key: everything the fine-tuning depends on, in words: a state of another one is not gone on from.
    """

    run_folder: Path
    name: str
    key: str

    @property
    def place(self) -> Path:
        """The folder of the state."""
        return self.run_folder / self.name


def fine_tune(
    model: PeftModel,
    examples: Sequence[Example],
    settings: FineTuningConfig,
    max_grad_norm: float,
    seed: int,
    title: str,
    kept: Kept | None = None,
) -> list[float]:
    """Train the adapter of a model, by all processes together; the loss of every step, in nats a token.

    The state of the random numbers is left as it is found.

    Args:
        model: is left in the mode it is in.
        examples: at least one, the same in every process.
        settings: batches, passes and learning rate.
        max_grad_norm: maximum norm of the gradient; a larger one is scaled down to it.
        seed: decides the order of examples, and what the adapter's dropout drops.
        title: what it is called: on the progress bar, and the key in messages.
        kept: where its state is kept until it is done; None keeps none.

    Raises:
        DivergenceError: a loss or a gradient is not finite.
        OSError: the state cannot be written.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    batches = list(_batches(examples, settings, seed))
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    losses = _go_on(kept, parameters, optimizer, title)
    training, state, saved = model.training, PartialState(), time.monotonic()
    model.train()
    bar = tqdm(
        total=len(batches), initial=len(losses), desc=title, dynamic_ncols=True, disable=not state.is_main_process
    )
    try:
        with bar, torch.random.fork_rng():
            for batch in batches[len(losses) :]:
                torch.manual_seed(sampling_seed(seed, title, len(losses), state.process_index))
                optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - len(losses) / len(batches))
                nats = leave_gradients(model, parameters, batch)
                loss = nats.sum().item() / sum(len(example.reply_ids) for example in batch)
                norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm).item()
                _check_finite(title, len(losses) + 1, len(batches), loss, norm)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                losses.append(loss)
                bar.set_postfix_str(f"loss {loss:.3f} nats a token", refresh=False)
                bar.update()
                if kept is not None and time.monotonic() - saved >= SAVE_SECONDS and len(losses) < len(batches):
                    _keep(kept, parameters, optimizer, losses)
                    saved = time.monotonic()
    finally:
        optimizer.zero_grad(set_to_none=True)
        model.train(training)
    return losses


def drop_state(run_folder: Path, name: str) -> None:
    """Remove the state of a fine-tuning whose outcome is safe, where there is one."""
    if is_main():
        shutil.rmtree(run_folder / name, ignore_errors=True)


def _batches(examples: Sequence[Example], settings: FineTuningConfig, seed: int) -> Iterator[list[Example]]:
    """The examples of every step, shuffled anew for each pass; the last batch of a pass may be smaller.

    Up to ``questions_per_context`` examples of one context lie next to each other.
    """
    for epoch in range(settings.epochs):
        generator = random.Random(f"{seed}/warm start/{epoch}")
        order = [example.in_pass(epoch) for example in generator.sample(examples, len(examples))]
        if settings.questions_per_context > 1:
            order = _side_by_side(order, settings.questions_per_context, generator)
        for start in range(0, len(order), settings.batch_size):
            yield order[start : start + settings.batch_size]


def _side_by_side(order: Sequence[Example], together: int, generator: random.Random) -> list[Example]:
    """The examples in a new order, in which as many of one context as are wanted together follow each other."""
    units: list[list[Example]] = []
    open_unit: dict[str, list[Example]] = {}
    for example in order:
        unit = open_unit.get(example.context) if example.context else None
        if unit is None or len(unit) == together:
            unit = []
            units.append(unit)
            open_unit[example.context] = unit
        unit.append(example)
    generator.shuffle(units)
    return [example for unit in units for example in unit]


def leave_gradients(
    model: PreTrainedModel | PeftModel,
    parameters: Sequence[Tensor],
    batch: Sequence[Example],
    weights: Sequence[float] | None = None,
) -> Float[Tensor, " examples"]:
    """Leave the gradient of a batch's loss at the parameters, in every process; the loss of each example, in nats.

    Args:
        model: in the mode it is to learn in.
        parameters: those that require a gradient; they have none yet.
        batch: the same in every process; each reads its share.
        weights: what each example counts; all of them 1 without it. The loss of the batch is the weighted sum, divided
            by all tokens of the replies.
    """
    state = PartialState()
    tokens = sum(len(example.reply_ids) for example in batch)
    nats = torch.zeros(len(batch), device=parameters[0].device)
    places = list(range(state.process_index, len(batch), state.num_processes))
    for part in _passes([batch[place] for place in places]):
        scores = token_scores(
            model,
            [example.prompt_ids[:-1] for example in part],
            [[Continuation(example.prompt_ids[-1:], example.reply_ids)] for example in part],
            entropies=False,
        )
        own, places = places[: len(part)], places[len(part) :]
        losses = -torch.stack([reply.log_probs.sum() for [reply] in scores])
        counted = losses if weights is None else losses * losses.new_tensor([weights[place] for place in own])
        (counted.sum() / tokens).backward()
        nats[own] = losses.detach().to(nats)
    if state.num_processes > 1:
        for parameter in parameters:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = _summed(gradient)
        nats = _summed(nats)
    return nats


def state_tensors(parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Parameters and the moments of their AdamW by name, on the CPU: see `put_state`."""
    tensors = {f"{number}.weight": parameter.detach() for number, parameter in enumerate(parameters)}
    for number, parameter in enumerate(parameters):
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"{number}.{name}": moments[name] for name in MOMENTS if name in moments}
    return {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}


def put_state(
    tensors: Mapping[str, Tensor], parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, updates: int
) -> None:
    """Give parameters and their AdamW what `state_tensors` has kept after so many updates."""
    for number, parameter in enumerate(parameters):
        parameter.data.copy_(tensors[f"{number}.weight"])
        if updates:
            moments = {name: tensors[f"{number}.{name}"].to(parameter.device) for name in MOMENTS}
            optimizer.state[parameter] = {"step": torch.tensor(float(updates)), **moments}


def _passes(examples: Sequence[Example]) -> Iterator[list[Example]]:
    """The examples in parts of as many tokens as one forward pass takes, so that a batch may be of any size.

    A context counts once for the examples of it that follow each other, for it is read once for them.
    """
    part: list[Example] = []
    size = 0
    for example in examples:
        length = len(example.prompt_ids) + len(example.reply_ids)
        if part and example.context and example.context == part[-1].context:
            # What the two prompts begin with in common is the context and the template in front of it.
            length -= _common(part[-1].prompt_ids, example.prompt_ids)
        if part and size + length > MAX_TOKENS_PER_PASS:
            yield part
            part, size, length = [], 0, len(example.prompt_ids) + len(example.reply_ids)
        part.append(example)
        size += length
    if part:
        yield part


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with in common."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))


def _keep(kept: Kept, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, losses: list[float]) -> None:
    """Write the state, whole or not at all; the same in every process, so that one writes it."""
    if not is_main():
        return
    written = partial_folder(kept.run_folder, create=True) / kept.name
    written.mkdir()
    save_file(state_tensors(parameters, optimizer), written / TENSORS)
    write_json(written / PROGRESS, {"key": kept.key, "losses": losses})
    publish(written, kept.run_folder, None)


def _go_on(
    kept: Kept | None, parameters: Sequence[Tensor], optimizer: torch.optim.Optimizer, title: str
) -> list[float]:
    """Put a kept state in place; the losses of the steps that were done, none where there is no state to go on from."""
    if kept is None:
        return []
    usable = [False]
    if is_main():
        put_back(kept.run_folder)
    if is_main() and kept.place.is_dir():
        reason = damage(Checkpoint(kept.place, 0))
        if reason is None and json.loads((kept.place / PROGRESS).read_text(encoding="utf-8"))["key"] != kept.key:
            reason = "of other examples or settings"
        usable = [reason is None]
        if reason is not None:
            say(f"{kept.place}: {reason}; {title} begins anew", sys.stderr)
    broadcast_object_list(usable)
    if not usable[0]:
        return []
    losses: list[float] = json.loads((kept.place / PROGRESS).read_text(encoding="utf-8"))["losses"]
    put_state(load_file(kept.place / TENSORS), parameters, optimizer, len(losses))
    say(f"{title} goes on after step {len(losses)}")
    return losses


def _summed(tensor: Tensor) -> Tensor:
    summed = reduce(tensor, "sum")
    assert isinstance(summed, Tensor)
    return summed


def _check_finite(title: str, step: int, steps: int, loss: float, norm: float) -> None:
    for name, value in (("loss", loss), ("gradient", norm)):
        if not math.isfinite(value):
            raise DivergenceError(
                f"{title}, step {step} of {steps}: the {name} is not finite; choose a lower learning_rate for it, "
                "or another dtype"
            )
