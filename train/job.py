"""The work of a training run: evaluate the untrained compressor, train its adapter, evaluate again."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from accelerate import PartialState

from configs.build import evaluation_request, instructions, load_samples
from configs.command import is_main, say, start_processes
from configs.sections import TaskConfig
from data.sample import Sample
from data.task import Request
from eval.evaluation import by_compressor
from eval.provenance import provenance
from eval.record import Record
from eval.record_log import RecordLog, open_log
from eval.report.console import console_table
from eval.results import finish
from eval.servers import tell_of_server
from eval.stages import MEASURED, REFERENCE, evaluation_of, identify, origin_of, passes
from models.adapters import save_adapter
from models.fingerprint import is_base, parameter_hash
from train.checkpoint import last_checkpoint
from train.config import Config
from train.extension_cache import prepare_compilation
from train.models import Models, check_fingerprints, fingerprints, load_models
from train.reward import MessageReward
from train.rollout import Rollout
from train.run_folder import open_run_folder
from train.tracking import log_results, start_wandb
from train.trainer import build_trainer


def run(config: Config, fresh: bool) -> int:
    """The whole job, from where the run folder says it stands; the exit status.

    Raises:
        InputError: a model, document or server cannot be used, or the run folder holds something else.
        KeyboardInterrupt: a signal ended it; its words say what the same command goes on from.
    """
    prepare_compilation()
    start_processes()
    folder = open_run_folder(config, fresh)
    results = folder / "results.json"
    if results.exists():
        say(f"{folder} is finished; --fresh starts over\n")
        say(console_table(json.loads(results.read_text(encoding="utf-8"))))
        return 0
    try:
        train_and_evaluate(config, folder)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(last_checkpoint(folder) or "the start") from None
    return 0


def train_and_evaluate(config: Config, folder: Path) -> None:
    """Evaluate, train, evaluate again, and leave adapter, results and report in the run folder.

    Raises:
        InputError: a model, document or server cannot be used.
        KeyboardInterrupt: a signal ended it.
        RuntimeError: training changed something else than the adapter.
    """
    models = load_models(config)
    train_samples = load_samples(config, models.compressor, "train", training_request, say)
    eval_samples = load_samples(config, models.compressor, "evaluate", evaluation_request, say)
    warn_of_overlap(train_samples, eval_samples)
    report_to = start_wandb(config, folder) if is_main() else []
    hashes = fingerprints(models)
    start = time.time()
    resumed = last_checkpoint(folder)
    log = open_records(config, eval_samples, models)
    before = evaluate_stage(config, eval_samples, models, REFERENCE, log)
    evaluated = time.time()
    train_adapter(config, models, train_samples, report_to, resumed)
    trained = time.time()
    after = evaluate_stage(config, eval_samples, models, MEASURED, log)
    seconds = {"before": evaluated - start, "training": trained - evaluated, "after": time.time() - trained}
    check_fingerprints(hashes, fingerprints(models))
    tell_of_server(models.channel.predictor)
    if is_main():
        base, answer_instruction = config.compressor, instructions(config)[1]
        settings = models.compressor.settings(base.model, base.revision, answer_instruction)
        save_adapter(models.adapted, models.tokenizer, folder / "compressor", base.model, settings=settings)
        meta = {
            "seconds": seconds,
            "hashes": fingerprints(models),
            "config": config.model_dump(mode="json"),
            **provenance(),
        }
        records = {name: [*before[name], *after[name]] for name in before}
        log_results(finish(config, records, meta), config.name, folder)
        print(f"adapter: {folder / 'compressor'}")
    PartialState().wait_for_everyone()


def training_request(config: Config, task: TaskConfig) -> Request:
    """Which documents of a task training loads.

    Of the embedded suite, as many as the steps of a task ask for, with one question each: a generated document costs
    nothing, so none has to serve twice.
    """
    pairs = -(-config.train.steps * config.train.contexts_per_step // len(config.tasks))
    return Request(
        split=task.split,
        source=task.source,
        documents=task.documents or (pairs if task.embedded else None),
        questions_per_document=task.questions_per_document or (1 if task.embedded else None),
        facts=task.facts,
        seed=config.seed,
        variant=task.variant,
        context_tokens=task.context_tokens,
        columns=task.columns,
        metric=task.metric,
    )


def warn_of_overlap(train_samples: Sequence[Sample], eval_samples: Sequence[Sample]) -> None:
    """Say how many evaluated documents are trained on, as where one file without splits serves both purposes."""
    trained = {(sample.document.task, sample.document.text) for sample in train_samples}
    evaluated = {(sample.document.task, sample.document.text) for sample in eval_samples}
    if shared := trained & evaluated:
        say(f"{len(shared)} of {len(evaluated)} evaluated documents are trained on as well: give eval_source")


def open_records(config: Config, samples: Sequence[Sample], models: Models) -> RecordLog[Record]:
    """The log of the run folder, for records that depend on these questions, this predictor and this scorer."""
    identity = identify(config, samples) | {
        "predictor_parameters": models.predictor_model and parameter_hash(models.predictor_model),
        "scorer_parameters": parameter_hash(models.scorer_model or models.adapted, is_base),
    }
    return open_log(config.folder / "records", identity)


def evaluate_stage(
    config: Config, samples: Sequence[Sample], models: Models, stage: str, log: RecordLog[Record]
) -> Mapping[str, Sequence[Record]]:
    """The records of one stage, by the name of the file they go to, in the order of ids."""
    evaluation, records = evaluation_of(config), {}
    with models.adapted.disable_adapter() if stage == REFERENCE else nullcontext():
        for name, temperature in passes(config).items():
            write = by_compressor(models.compressor, temperature, config.seed)
            origin = origin_of(stage, temperature, models.compressor)
            records[name] = evaluation.run(samples, write, models.channel, origin, log)
    return records


def train_adapter(
    config: Config, models: Models, samples: Sequence[Sample], report_to: list[str], resumed: str | None
) -> None:
    """Train the adapter.

    Args:
        config: the run's.
        models: the compressor whose adapter is trained, and the channel that its messages are read through.
        samples: questions to write messages for.
        report_to: where Trainer reports metrics, in its own terms.
        resumed: the folder of the checkpoint to go on from; None starts anew.

    Raises:
        KeyboardInterrupt: a signal ended the training early; a checkpoint has been saved.
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
    # A process that leaves takes the others along, for the launcher ends them: so none leaves before all have saved.
    PartialState().wait_for_everyone()
    if trainer.state.global_step < config.train.steps:
        raise KeyboardInterrupt
