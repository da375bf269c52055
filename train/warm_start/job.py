"""The warm start: supervised fine-tuning before GRPO, of the predictor and then of the compressor.

A pretrained predictor answers badly from a perfect message until it has seen what an answer looks like; it learns from
the sentences that an answer rests on, from whole contexts and from empty messages. A compressor that never writes a
right message gives a group nothing to compare; it learns to copy these sentences. Both learn under the very prompts
that they are used with. What comes out is kept in the run folder, whole or not at all: a run that is killed in the
middle goes on from the last state, and one that is killed later takes the adapters from there.
"""

import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from configs.build import device, instructions
from configs.command import is_main, say
from data.errors import DataError
from data.sample import Sample
from data.writing import write_json
from models.adapters import add_adapter, read_adapter, save_adapter, start_from
from models.compressor import Compressor
from models.loading import context_window, load_model
from models.predictor import UNLIMITED, LocalPredictor, Query
from train.checkpoints.checkpoint import Checkpoint, damage, partial_folder, publish
from train.config import Config
from train.models import Models, predictor_settings, save_trained
from train.run_folder import PREDICTOR, PREDICTOR_STATE, WARM_START, WARM_START_STATE
from train.sections.starting import FineTuningConfig, PredictorWarmStartConfig, Targets
from train.warm_start.fine_tuning import Example, Kept, drop_state, fine_tune
from train.warm_start.store import held, stored_name
from train.warm_start.targets import budget_for, message_ids, message_to_learn, target_of

SUMMARY_FILE = "warm_start.json"
"""The file beside an adapter that says what its warm start was."""

UNANSWERABLE = "Unanswerable"
"""What the predictor learns to answer from an empty message: QASPER's word for it."""


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
    """Fine-tune the compressor's adapter, or load what an earlier start of the run left.

    Args:
        config: the run's.
        models: their adapter is trained in place.
        samples: the questions to train on.

    Returns:
        What was done; empty where the configuration asks for nothing.

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
        drop_state(config.folder, WARM_START_STATE)
        say(f"the warm start is taken from {place}")
        start_from(models.adapted, read_adapter(place), config.compressor.model)
        return json.loads((place / SUMMARY_FILE).read_text(encoding="utf-8"))
    begun = time.time()
    examples = draw_examples(
        samples, models.compressor, settings.examples, config.seed, settings.targets, settings.epochs
    )
    tell(examples, settings, "warm start", f"their {settings.targets} as the message")
    key = _key(settings, examples.chosen)
    kept, store = Kept(config.folder, WARM_START_STATE, key), config.train.warm_start_store

    def learn() -> dict[str, Any]:
        limit = config.train.max_grad_norm
        losses = fine_tune(models.adapted, examples.chosen, settings, limit, config.seed, "train.warm_start", kept)
        return _summary(examples, losses, begun)

    summary = learn() if store is None else _learned_once(config, models, Path(store).expanduser(), key, learn)
    _publish(config.folder, WARM_START, summary, lambda folder: save_trained(config, models, folder))
    drop_state(config.folder, WARM_START_STATE)
    return summary


def _learned_once(
    config: Config, models: Models, store: Path, key: str, learn: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Take a warm start from a store; where it is not there, ``learn`` it and leave it there for others."""
    with held(store, stored_name(config, models.adapted, key)) as folder:
        place = folder / WARM_START
        if _is_whole(place):
            say(f"the warm start is taken from {place}: another run began in the same way")
            start_from(models.adapted, read_adapter(place), config.compressor.model)
            return json.loads((place / SUMMARY_FILE).read_text(encoding="utf-8"))
        summary = learn()
        _publish(folder, WARM_START, summary, lambda written: save_trained(config, models, written))
    return summary


def warm_start_predictor(config: Config, samples: Sequence[Sample]) -> tuple[Config, dict[str, Any]]:
    """Fine-tune an adapter of the predictor, or find what an earlier start of the run left, in the run folder.

    Args:
        config: the run's.
        samples: the questions to train on.

    Returns:
        The configuration with that adapter as the predictor's, and what was done; as it is, and empty, where the
        configuration asks for nothing.

    Raises:
        DataError: no question gives an example.
        DivergenceError: a loss or a gradient is not finite.
        ModelError: the model or the adapter it starts from cannot be loaded.
        OSError: the run folder cannot be written.
    """
    settings, place = config.train.predictor_warm_start, config.folder / PREDICTOR
    if settings is None:
        return config, {}
    adapted = {"predictor": config.predictor.model_copy(update={"adapter": str(place)})}
    if _is_whole(place):
        drop_state(config.folder, PREDICTOR_STATE)
        say(f"the predictor's warm start is taken from {place}")
        summary = json.loads((place / SUMMARY_FILE).read_text(encoding="utf-8"))
        return config.model_copy(update=adapted), summary
    begun, key = time.time(), "train.predictor_warm_start"
    named, lora = config.predictor, config.predictor.lora
    stored = None if named.adapter is None else read_adapter(named.adapter)
    plain, tokenizer = load_model(named.model, named.dtype, device(), named.revision)
    window, (_, instruction) = context_window(plain.config) or UNLIMITED, instructions(config)
    model = add_adapter(plain, lora.rank, lora.alpha, lora.dropout, lora.target_modules, config.seed)
    if stored is not None:
        start_from(model, stored, named.model)
    predictor = LocalPredictor(plain, tokenizer, named.max_answer_tokens, window, instruction)
    examples = draw_answers(samples, predictor, settings, config.seed)
    tell(examples, settings, "warm start of the predictor", "their answer to learn")
    kept = Kept(config.folder, PREDICTOR_STATE, _key(settings, examples.chosen))
    losses = fine_tune(model, examples.chosen, settings, config.train.max_grad_norm, config.seed, key, kept)
    summary = _summary(examples, losses, begun)
    remembered = predictor_settings(config, model)
    _publish(
        config.folder,
        PREDICTOR,
        summary,
        lambda folder: save_adapter(model, tokenizer, folder, named.model, settings=remembered),
    )
    drop_state(config.folder, PREDICTOR_STATE)
    return config.model_copy(update=adapted), summary


def draw_examples(
    samples: Sequence[Sample],
    compressor: Compressor,
    count: int,
    seed: int,
    targets: Targets = "evidence",
    epochs: int = 1,
) -> Examples:
    """Examples of questions drawn at random: at most ``count``, fewer where the questions give no more.

    Targets that are drawn at random are drawn anew for every pass, so that none is learned by heart.

    Raises:
        DataError: none does.
    """
    chosen: list[Example] = []
    left_out: Counter[str] = Counter()
    for sample in random.Random(f"{seed}/warm start").sample(samples, len(samples)):
        if len(chosen) == count:
            break
        target = message_to_learn(compressor, sample, targets, random.Random(f"{seed}/{sample.id}"))
        if target is None:
            left_out["without evidence"] += 1
            continue
        target_ids = message_ids(compressor, target)
        budget = budget_for(compressor, len(target_ids))
        if budget is None:
            left_out[f"longer than the budget of {compressor.budget_tokens} tokens"] += 1
            continue
        prompt = compressor.under(budget).prompt(sample.document.text, sample.compressor_question)
        later = [
            message_ids(compressor, other)
            for epoch in range(1, epochs if targets == "clause" else 1)
            if (other := message_to_learn(compressor, sample, targets, random.Random(f"{seed}/{sample.id}/{epoch}")))
        ]
        # Under the same prompt, which asks for the same budget.
        fitting = tuple(ids for ids in later if budget_for(compressor, len(ids)) == budget)
        chosen.append(Example(prompt.ids, target_ids, sample.document.id, fitting))
    if not chosen:
        raise DataError(
            f"train.warm_start: none of {len(samples)} training questions has a target ({_counted(left_out)}); give a "
            "larger compressor.budget_tokens, or train.warm_start=null"
        )
    return Examples(chosen, left_out)


def draw_answers(
    samples: Sequence[Sample], predictor: LocalPredictor, settings: PredictorWarmStartConfig, seed: int
) -> Examples:
    """Examples for the predictor, of questions drawn at random: the shortest gold answer, from one text or another.

    That text is the whole context in the share ``whole_contexts`` of the examples, nothing in the share ``empty``, to
    which the answer is `UNANSWERABLE`, and the sentences that the answer rests on in all others.

    Args:
        samples: the questions.
        predictor: gives the prompts.
        settings: how many examples, and the shares.
        seed: decides which questions, and which text for each.

    Raises:
        DataError: no question gives an example.
    """
    generator = random.Random(f"{seed}/warm start of the predictor")
    chosen: list[Example] = []
    left_out: Counter[str] = Counter()
    for sample in generator.sample(samples, len(samples)):
        if len(chosen) == settings.examples:
            break
        drawn = generator.random()
        whole, empty = drawn < settings.whole_contexts, drawn >= 1 - settings.empty
        text = sample.document.text if whole else "" if empty else target_of(sample)
        if text is None:
            left_out["without evidence"] += 1
            continue
        answer = UNANSWERABLE if empty else min(sample.question.answers, key=len)
        query = Query(text, sample.question.text, sample.question.options)
        chosen.append(Example(*predictor.lesson(query, answer), sample.document.id if whole else ""))
    if not chosen:
        raise DataError(
            f"train.predictor_warm_start: none of {len(samples)} training questions gives an example "
            f"({_counted(left_out)}); give train.predictor_warm_start=null"
        )
    return Examples(chosen, left_out)


def tell(examples: Examples, settings: FineTuningConfig, title: str, learned: str) -> None:
    """Say what a warm start learns from, and what it leaves out."""
    count = len(examples.chosen)
    wanted = f" of {settings.examples} wanted" if count < settings.examples else ""
    left_out = f"; left out: {_counted(examples.left_out)}" if examples.left_out else ""
    say(f"{title} on {count}{wanted} questions with {learned}{left_out}")


def _key(settings: FineTuningConfig, examples: Sequence[Example]) -> str:
    """What a fine-tuning depends on, beside what the run folder already holds fast."""
    digest = hashlib.sha256(json.dumps(examples).encode()).hexdigest()
    return f"{settings.model_dump_json()} {digest}"


def _summary(examples: Examples, losses: Sequence[float], begun: float) -> dict[str, Any]:
    return {
        "examples": len(examples.chosen),
        "left_out": dict(examples.left_out),
        "steps": len(losses),
        "first_loss": losses[0],
        "last_loss": losses[-1],
        "seconds": time.time() - begun,
    }


def _publish(place: Path, name: str, summary: dict[str, Any], save: Callable[[Path], object]) -> None:
    """Leave an adapter and its summary in a folder, whole or not at all."""
    if is_main():
        written = partial_folder(place, create=True) / name
        save(written)
        write_json(written / SUMMARY_FILE, summary)
        publish(written, place, None)
    PartialState().wait_for_everyone()


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
