"""The work of a training run: warm start, evaluate the compressor, train its adapter, evaluate again."""

import json
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from configs.build import fit, tell_evidence
from configs.command import is_main, say, start_processes
from configs.run_folder import is_finished, mark_finished, owned
from configs.tree import to_yaml
from data.sample import Sample, samples_of
from eval.adapter_card import write_card
from eval.analysis.density import summarise_one
from eval.evaluation import by_compressor
from eval.parts import Pieces
from eval.provenance import provenance
from eval.record import Record
from eval.record_log import RecordLog, open_log
from eval.report.console import console_table
from eval.results import finish
from eval.servers import probe_predictors, tell_of_server
from eval.stages import BASE, MEASURED, REFERENCE, evaluation_of, identify, origin_of, passes
from models.endpoint import EndpointError
from models.fingerprint import is_base, parameter_hash
from train.checkpoints.checkpoint import CheckpointError, find_checkpoint
from train.config import Config
from train.early_warning.watch import Kept, Watch
from train.grpo.guarded_trainer import GuardedGRPOTrainer
from train.grpo.trainer import build_trainer
from train.models import (
    Models,
    check_fingerprints,
    check_frozen,
    fingerprints,
    load_models,
    save_trained,
    save_trained_predictor,
)
from train.predictor_update import FOLDER as PREDICTOR_UPDATE
from train.predictor_update import PredictorUpdate
from train.processes.extension_cache import prepare_compilation
from train.processes.peers import LostPeerError, lost_peer
from train.processes.signals import StopOnSignal
from train.questions.source import check_count, read_questions
from train.reward.message_reward import MessageReward
from train.run_folder import TRAINED_PREDICTOR, holds_work, identity, stand
from train.sampling.rollout import Rollout
from train.tracking.metrics import ProgressBar, log_results, start_wandb
from train.warm_start.job import warm_start, warm_start_predictor


def run(config: Config, fresh: bool) -> int:
    """The whole job, from where the run folder says it stands; the exit status.

    Raises:
        InputError: a model, document or server cannot be used, or the run folder holds something else.
        KeyboardInterrupt: a signal ended it; its words say what the same command goes on from.
    """
    prepare_compilation()
    start_processes()
    with owned(config.folder, "train", to_yaml(config), identity(config), fresh, holds_work) as folder:
        if is_finished(folder):
            say(f"{folder} is finished; --fresh starts over\n")
            say(console_table(json.loads((folder / "results.json").read_text(encoding="utf-8"))))
            return 0
        try:
            train_and_evaluate(config, folder)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(stand(folder)) from None
        except RuntimeError as error:
            if (lost := lost_peer(error)) is None:
                raise
            raise LostPeerError(f"{lost}; the same command goes on from {stand(folder)}") from error
    return 0


def train_and_evaluate(config: Config, folder: Path) -> None:
    """Evaluate, train, evaluate again, and leave adapter, results and report in the run folder.

    Raises:
        InputError: a model, document or server cannot be used.
        KeyboardInterrupt: a signal ended it.
        RuntimeError: training changed something else than the adapter.
    """
    # Whether a server is there is known in seconds.
    probe_predictors([config.predictor], config.folder)
    questions = read_questions(config, say)
    start = time.time()
    answering, predictor_warm = warm_start_predictor(config, Pieces.of(samples_of(questions.trained)).samples)
    models = load_models(answering)
    loaded = time.time()
    # A document in parts is compressed part by part, as at evaluation: each is a context of its own.
    train_samples = Pieces.of(fit(questions.trained, models.compressor, "train", say)).samples
    check_count(config, train_samples)
    eval_samples = fit(questions.evaluated, models.compressor, "evaluate", say)
    watched_samples = fit(questions.watched, models.compressor, "watch", say) if questions.watched else []
    tell_of_questions(config, train_samples, eval_samples)
    report_to = start_wandb(config, folder) if is_main() else []
    hashes = fingerprints(models)
    resumed = find_start(folder)
    log = open_records(config, eval_samples, models)
    warm = warm_start(config, models, train_samples)
    warmed = time.time()
    check_frozen(hashes, hashes := fingerprints(models))
    baselines = evaluate_base(config, eval_samples, models, log)
    before = evaluate_stage(config, eval_samples, models, REFERENCE, log)
    evaluated = time.time()
    kept = train_adapter(config, models, train_samples, report_to, resumed, watched_samples)
    trained = time.time()
    after = evaluate_stage(config, eval_samples, models, MEASURED, log)
    seconds = {"predictor_warm_start": loaded - start} if predictor_warm else {}
    seconds |= {"warm_start": warmed - loaded} if warm else {}
    seconds |= {"before": evaluated - warmed, "training": trained - evaluated, "after": time.time() - trained}
    untrained = kept is not None and kept.step == 0
    check = check_frozen if untrained else check_fingerprints
    moved = check(hashes, hashes := fingerprints(models), config.is_joint)
    tell_of_server(models.channel.predictor)
    if is_main():
        parts = {"warm_start": warm, "predictor_warm_start": predictor_warm, "kept": kept and kept._asdict()}
        meta = {
            "seconds": seconds,
            "hashes": hashes,
            "moved": moved,
            **({"start": "warm start" if warm else "starting adapter"} if baselines else {}),
            **{name: part for name, part in parts.items() if part},
            "config": config.model_dump(mode="json"),
            **provenance(),
        }
        leave(config, models, {name: [*before[name], *after[name]] for name in before}, meta, baselines)
    PartialState().wait_for_everyone()


def tell_of_questions(config: Config, train_samples: Sequence[Sample], eval_samples: Sequence[Sample]) -> None:
    """Say what the user has to know of the questions before anything is computed from them."""
    tell_evidence(config, train_samples, "train", say)
    tell_evidence(config, eval_samples, "evaluate", say)
    warn_of_overlap(train_samples, eval_samples)


def leave(
    config: Config,
    models: Models,
    records: Mapping[str, Sequence[Record]],
    meta: Mapping[str, Any],
    baselines: Sequence[Mapping[str, Any]],
) -> None:
    """Write what a run leaves: adapters, records, results, report and card; the main process alone.

    Raises:
        OSError: the run folder cannot be written.
    """
    folder = config.folder
    settings = save_trained(config, models, folder / "compressor")
    save_trained_predictor(config, models, folder / TRAINED_PREDICTOR)
    results = finish(config, records, meta, {"baselines": baselines} if baselines else None)
    write_card(folder / "compressor", config, settings, results)
    log_results(results, config.name, folder)
    mark_finished(folder)
    print(f"adapter: {folder / 'compressor'}")


def warn_of_overlap(train_samples: Sequence[Sample], eval_samples: Sequence[Sample]) -> None:
    """Say how many evaluated documents are trained on, as where one file without splits serves both purposes."""
    trained = {(sample.document.task, sample.document.text) for sample in train_samples}
    evaluated = {(sample.document.task, sample.document.text) for sample in eval_samples}
    if shared := trained & evaluated:
        say(f"{len(shared)} of {len(evaluated)} evaluated documents are trained on as well: give eval_source")


def open_records(config: Config, samples: Sequence[Sample], models: Models) -> RecordLog[Record]:
    """The log of the run folder, for records that depend on these questions, this predictor and this scorer."""
    identity = identify(config, samples) | {
        "predictor_parameters": models.predictor_parameters,
        "scorer_parameters": parameter_hash(models.scorer_model or models.adapted, is_base),
    }
    return open_log(config.folder / "records", identity)


def evaluate_stage(
    config: Config, samples: Sequence[Sample], models: Models, stage: str, log: RecordLog[Record]
) -> Mapping[str, Sequence[Record]]:
    """The records of one stage, by the name of the file they go to, in the order of ids."""
    evaluation, records, temperatures = evaluation_of(config), {}, passes(config)
    if stage == BASE:
        # The table of baselines is about sampled messages.
        temperatures = {"samples": temperatures["samples"]}
    plain = stage == BASE or (stage == REFERENCE and config.starts_from_base)
    with models.adapted.disable_adapter() if plain else nullcontext():
        for name, temperature in temperatures.items():
            write = by_compressor(models.compressor, temperature, config.seed)
            origin = origin_of(stage, temperature, models.compressor)
            records[name] = evaluation.run(samples, write, models.channel, origin, log)
    return records


def evaluate_base(
    config: Config, samples: Sequence[Sample], models: Models, log: RecordLog[Record]
) -> list[dict[str, Any]]:
    """The figures of the model without any adapter, in the way of a baseline, where it is not the reference."""
    if config.starts_from_base:
        return []
    records = evaluate_stage(config, samples, models, BASE, log)["samples"]
    return [{"name": BASE, "budget_tokens": config.compressor.budget_tokens, **summarise_one(records)}]


def train_adapter(
    config: Config,
    models: Models,
    samples: Sequence[Sample],
    report_to: list[str],
    resumed: str | None,
    watched: Sequence[Sample] = (),
) -> Kept | None:
    """Train the adapter, where there are steps; which one is left, None where that is the one of the last step.

    Args:
        config: the run's.
        models: the compressor whose adapter is trained, and the channel that its messages are read through.
        samples: questions to write messages for.
        report_to: where Trainer reports metrics, in its own terms.
        resumed: the folder of the checkpoint to go on from; None starts anew.
        watched: the questions that the configuration's section ``watch`` measures on.

    Raises:
        KeyboardInterrupt: a signal ended the training early; a checkpoint has been saved.
    """
    if not config.train.steps:
        return None
    by_id = {sample.id: sample for sample in samples}
    update = build_update(config, models)
    trainer = build_trainer(
        config,
        models.adapted,
        models.tokenizer,
        samples,
        Rollout(models.compressor, by_id, config.train.temperature, config.seed, config.train.demonstrations),
        MessageReward(config, models.compressor, models.channel, by_id, predictor_update=update),
        report_to,
    )
    assert isinstance(trainer, GuardedGRPOTrainer)
    if update is not None:
        trainer.save_beside.append(lambda folder: update.save(folder / PREDICTOR_UPDATE))
        if resumed is not None:
            update.load(Path(resumed) / PREDICTOR_UPDATE)
    watch = None if config.watch is None else Watch(config, config.watch, models, watched)
    if watch is not None:
        trainer.add_callback(watch)
        trainer.save_beside.append(watch.kept.save)
        if resumed is not None:
            watch.kept.load(Path(resumed))
    kept = take_steps(config, trainer, watch, resumed)
    models.adapted.eval()
    # A process that leaves takes the others along, for the launcher ends them: so none leaves before all have saved.
    PartialState().wait_for_everyone()
    if trainer.state.global_step < config.train.steps:
        raise KeyboardInterrupt
    return kept


def take_steps(config: Config, trainer: GuardedGRPOTrainer, watch: Watch | None, resumed: str | None) -> Kept | None:
    """Take the steps that are left, unless a signal ends them early; see `train_adapter`.

    Raises:
        CheckpointError: the checkpoint holds code.
        EndpointError: the predictor's server failed; what was trained has been saved.
    """
    try:
        trainer.train(resume_from_checkpoint=resumed)
        done = trainer.state.global_step >= config.train.steps
        return watch.finish(trainer.state) if watch is not None and done else None
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{resumed}: holds an object that is code, and is not loaded; remove that folder, and the same command "
            "goes on from the checkpoint before it"
        ) from error
    except EndpointError as error:
        trainer.save_after_error()
        raise EndpointError(f"{error}; the same command goes on from {stand(config.folder)}") from error
    finally:
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, StopOnSignal):
                callback.release()
            if isinstance(callback, ProgressBar):
                # What is printed next begins a line of its own.
                callback.on_train_end()


def build_update(config: Config, models: Models) -> PredictorUpdate | None:
    """The predictor's part in the training; None where it is frozen."""
    adapted = models.adapted_predictor
    if config.train.predictor_update is None:
        return None
    assert adapted is not None
    return PredictorUpdate(config.train, adapted.predictor, adapted.adapter, config.seed, gather_object)


def find_start(folder: Path) -> str | None:
    """The checkpoint that training goes on from, the same for every process; None where it starts anew.

    Damaged checkpoints are named, and passed over.
    """
    start: list[str | None] = [None]
    if is_main():
        found = find_checkpoint(folder)
        for damaged in found.damaged:
            say(f"{damaged}; it is passed over", sys.stderr)
        start = [str(found.newest.path) if found.newest else None]
        if found.damaged:
            say(f"training goes on from {start[0] or 'the start'}", sys.stderr)
    broadcast_object_list(start)
    return start[0]
