"""The work of a training run: evaluate the untrained compressor, train its adapter, evaluate again."""

import json
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from configs.build import draw, held_out
from configs.command import is_main, say
from configs.sections import TaskConfig
from data.sample import Sample
from eval.evaluation import by_compressor
from eval.report.table import console_table
from eval.results import finish
from eval.stages import MEASURED, REFERENCE, identify, made_by, passes
from eval.stages import evaluate as evaluate_messages
from models.adapters import save_adapter
from models.loading import base, parameter_hash
from train.checkpoint import last_checkpoint
from train.config import Config
from train.models import Models, check_fingerprints, fingerprints, load_models
from train.reward import MessageReward
from train.rollout import Rollout
from train.run_folder import prepare
from train.tracking import log_results, start_wandb
from train.trainer import build_trainer


def run(config: Config, fresh: bool) -> int:
    """The whole job, from where the run folder says it stands; the exit status.

    Raises:
        InputError: a model, document or server cannot be used, or the run folder holds something else.
        KeyboardInterrupt: a signal ended it; its words say what the same command goes on from.
    """
    folder = config.folder
    prepare(config, folder, fresh)
    if (folder / "results.json").exists():
        say(f"{folder} is finished; --fresh starts over\n")
        say(console_table(json.loads((folder / "results.json").read_text())))
        return 0
    try:
        train_and_evaluate(config, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(last_checkpoint(folder) or "the start") from None
    return 0


def train_and_evaluate(config: Config, folder: Path) -> None:
    """Evaluate, train, evaluate again, and leave what was found in the run folder.

    Raises:
        KeyboardInterrupt: a signal ended it.
    """
    models = load_models(config)
    train_samples = draw(config, models.compressor, "train", {t.name: wanted(config, t) for t in config.tasks}, say)
    eval_samples = draw(config, models.compressor, "evaluate", {t.name: held_out(config, t) for t in config.tasks}, say)
    warn_of_overlap(train_samples, eval_samples)
    report_to = start_wandb(config, folder) if is_main() else []
    hashes = fingerprints(models)
    start = time.time()
    resumed = last_checkpoint(folder)
    before = evaluate(config, eval_samples, models, REFERENCE)
    evaluated = time.time()
    train(config, models, train_samples, report_to, resumed)
    trained = time.time()
    after = evaluate(config, eval_samples, models, MEASURED)
    seconds = {
        "before": evaluated - start,
        "training": trained - evaluated,
        "after": time.time() - trained,
    }
    check_fingerprints(hashes, fingerprints(models))
    if is_main():
        save_adapter(models.adapted, models.tokenizer, folder / "compressor", config.compressor.model)
        records = {name: before[name] + after[name] for name in before}
        meta = {"seconds": seconds, "hashes": fingerprints(models)}
        meta |= {"config": config.model_dump(mode="json"), "versions": {"torch": torch.__version__}}
        log_results(finish(config, records, meta), config.name, folder)
        print(f"adapter: {folder / 'compressor'}")
    PartialState().wait_for_everyone()


def warn_of_overlap(train_samples: list[Sample], eval_samples: list[Sample]) -> None:
    """Say how many evaluated documents are trained on: one file without splits serves both purposes."""
    trained = {(sample.document.task, sample.document.text) for sample in train_samples}
    evaluated = {(sample.document.task, sample.document.text) for sample in eval_samples}
    if shared := trained & evaluated:
        say(f"{len(shared)} of {len(evaluated)} evaluated documents are trained on as well: give eval_source")


def wanted(config: Config, task: TaskConfig) -> dict[str, Any]:
    """What training loads of a task; of the embedded suite what the steps ask for, one question a document."""
    needed = -(-config.train.steps * config.train.contexts_per_step // len(config.tasks))
    return {
        "split": task.split,
        "source": task.source,
        "documents": task.documents or (needed if task.embedded else None),
        "questions_per_document": task.questions_per_document or (1 if task.embedded else None),
    }


def evaluate(config: Config, samples: list[Sample], models: Models, stage: str) -> dict[str, list[dict[str, Any]]]:
    """The records of one stage, by the name of the file they go to, in the order of ids."""
    identity = identify(config, samples) | {
        "predictor_parameters": models.predictor_model and parameter_hash(models.predictor_model),
        "scorer_parameters": parameter_hash(models.scorer_model or models.adapted, base),
    }
    found = {}
    with models.adapted.disable_adapter() if stage == REFERENCE else nullcontext():
        for name, temperature in passes(config).items():
            write = by_compressor(models.compressor, temperature, config.seed)
            made = made_by(stage, temperature, models.compressor)
            found[name] = evaluate_messages(config, samples, write, models.channel, made, identity)
    return found


def train(config: Config, models: Models, samples: list[Sample], report_to: list[str], resumed: str | None) -> None:
    """Train the adapter.

    Raises:
        KeyboardInterrupt: a signal ended it early, behind a checkpoint.
    """
    by_id = {sample.id: sample for sample in samples}
    trainer = build_trainer(
        config,
        models.adapted,
        models.tokenizer,
        samples,
        Rollout(models.compressor, by_id, config.train.temperature, config.seed),
        MessageReward(config, models.compressor, models.channel, by_id),
        report_to,
    )
    trainer.train(resume_from_checkpoint=resumed)
    models.adapted.eval()
    # Whoever leaves takes the others along, for the launcher ends them: so nobody does before all have saved.
    PartialState().wait_for_everyone()
    if trainer.state.global_step < config.train.steps:
        raise KeyboardInterrupt
