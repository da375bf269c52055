"""Train a compressor and show what changed: ``deepspeed train/run.py --config mi_rl.yaml`` (or plain ``python``).

Evaluates the untrained compressor on held-out documents, trains its adapter by GRPO, evaluates again, and leaves a run
folder with the resolved config, the adapter, metrics, samples, results and a report. The same command resumes a run
that was interrupted.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from configs.build import draw, held_out
from configs.command import is_main, say, world_size
from configs.sections import TaskConfig
from configs.tree import ConfigError, describe
from data.errors import DataError
from data.sample import Sample
from eval.evaluation import by_compressor
from eval.report.table import console_table
from eval.results import finish
from eval.stages import MEASURED, REFERENCE, identify, made_by, passes
from eval.stages import evaluate as evaluate_messages
from models.adapters import save_adapter
from models.endpoint import EndpointError
from models.loading import ModelError, base, parameter_hash, quiet_libraries
from train.checkpoint import last_checkpoint
from train.config import Config, load_config
from train.models import Models, check_fingerprints, fingerprints, load_models
from train.reward import MessageReward
from train.rollout import Rollout
from train.run_folder import prepare
from train.tracking import log_results, start_wandb
from train.trainer import build_trainer

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    quiet_libraries()
    try:
        config = load_config(options.config, options.overrides)
        config.check_world_size(world_size())
        return run(config, options.fresh)
    except (ConfigError, ModelError, DataError, EndpointError) as error:
        if is_main():
            print(f"error: {error}", file=sys.stderr)
        return 2


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key."""
    parser = argparse.ArgumentParser(
        prog="train/run.py",
        description=__doc__,
        epilog="configuration keys:\n\n" + describe(Config),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a YAML file, as given or in configs/")
    parser.add_argument("--fresh", action="store_true", help="drop what the run folder holds and start over")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys: train.steps=20")
    return parser.parse_intermixed_args(arguments)


def run(config: Config, fresh: bool) -> int:
    """The whole job, from where the run folder says it stands; the exit status."""
    folder = config.folder
    prepare(config, folder, fresh)
    if (folder / "results.json").exists():
        say(f"{folder} is finished; --fresh starts over\n")
        say(console_table(json.loads((folder / "results.json").read_text())))
        return 0
    try:
        train_and_evaluate(config, folder)
    except KeyboardInterrupt:
        say(f"\ninterrupted: the same command goes on from {last_checkpoint(folder) or 'the start'}")
        return INTERRUPTED
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


if __name__ == "__main__":
    sys.exit(main())
