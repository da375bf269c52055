"""The work of an evaluation: messages, answers and information of every stage, baselines, and what they cost."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from accelerate import PartialState

from configs.build import build_predictor, build_scorer, evaluation_request, instructions, load_samples, telling
from configs.command import say, start_processes
from configs.run_folder import owned
from configs.servers import ANSWERS
from data.sample import Sample
from eval.analysis.curves import lead
from eval.analysis.density import summarise_one
from eval.analysis.sentences import obedience
from eval.baselines.evaluate import BaselinePoint, Setting, evaluate_baseline, mean_tokens
from eval.config import ASKED, CUT, EvaluationConfig
from eval.costs import Model, Prices, all_flops, cost_row, flops_of_tokens, message_flops, predictor_size, size_of
from eval.diagnostics import summarise_diagnostics
from eval.evaluation import by_compressor
from eval.judge.grade import grade, probe_judge
from eval.metering import energy_counters
from eval.parts import Pieces
from eval.provenance import provenance
from eval.readers import ask_readers
from eval.record import BaselineRecord, Record
from eval.record_file import BASELINE_RECORDS, write_records
from eval.record_log import RecordLog, open_log
from eval.report.results import CostEntry, CostRow
from eval.results import finish
from eval.servers import probe_predictors, tell_of_server
from eval.stages import (
    MEASURED,
    REFERENCE,
    build_compressor,
    evaluation_of,
    identify,
    origin_of,
    passes,
    stages,
)
from models.channel import Channel
from models.compressor import Compressor
from models.fingerprint import is_base, parameter_hash
from models.predictor import Predictor


def run(config: EvaluationConfig) -> int:
    """Evaluate, and write the results.

    Raises:
        InputError: a model, document or server cannot be used.
    """
    start_processes()
    with owned(config.folder, "evaluate"):
        evaluate(config)
    return 0


def evaluate(config: EvaluationConfig) -> None:
    """The work, in a run folder that nobody else uses.

    Raises:
        InputError: a model, document or server cannot be used.
    """
    start = time.time()
    instruction, answer_instruction = instructions(config)
    # Servers first: whether they are there is known in seconds.
    probe_judge(config)
    probe_predictors([reader for reader in config.readers if reader.endpoint is not None], config.folder)
    predictor, predictor_model = build_predictor(config.predictor, answer_instruction, config.folder / ANSWERS)
    compressor = build_compressor(config.compressor, instruction)
    told = telling(config.compressor)
    samples = load_samples(config, compressor, "evaluate", evaluation_request, say, told)
    scorer, scorer_model = build_scorer(config.scorer, compressor, instruction, say)
    scorers, second_model = [scorer], None
    if config.second_scorer is not None:
        second, second_model = build_scorer(config.second_scorer, compressor, instruction, say)
        scorers.append(second)
    channel = Channel(predictor, scorers)
    identity = identify(config, samples) | {
        "predictor_parameters": predictor_model and parameter_hash(predictor_model),
        "scorer_parameters": parameter_hash(scorer_model or compressor.model, is_base),
        "second_scorer": config.second_scorer and config.second_scorer.model_dump(mode="json"),
        "second_scorer_parameters": second_model and parameter_hash(second_model),
        # Budgets of baselines are in the tokens of the compressor, whose base embeds sentences.
        "compressor_base": [config.compressor.model, parameter_hash(compressor.model, is_base)],
    }
    log = open_log(config.folder / "records", identity)
    if problem := energy_counters().problem:
        say(problem)
    records = evaluate_stages(config, samples, compressor, instruction, channel, log)
    setting = Setting(config, samples, compressor, channel, log, mean_tokens(samples, records["samples"]))
    baselines = [entry for baseline in config.baselines for entry in evaluate_baseline(setting, baseline)]
    tell_of_server(predictor)
    if PartialState().is_main_process:
        graded = {name: grade(config, stage_records) for name, stage_records in records.items()}
        if config.judge:
            baselines = [(point, grade(config, baseline_records)) for point, baseline_records in baselines]
        extra: dict[str, Any] = {
            "baselines": [{**point, **summarise_one(baseline_records)} for point, baseline_records in baselines],
            "leads": leads(graded["samples"], baselines),
            "sentences": sentence_counts(config, graded["samples"]),
        }
        extra |= costs(config, samples, graded, baselines, stages(config, compressor, instruction), predictor)
        if config.diagnostics:
            extra["diagnostics"] = summarise_diagnostics(graded["samples"])
        if baselines:
            write_records(config.folder / BASELINE_RECORDS, baseline_records(baselines))
        if config.readers:
            extra["readers"] = ask_readers(config, samples, records["samples"], answer_instruction, log)
        seconds = {"evaluation": time.time() - start}
        meta = {"config": config.model_dump(mode="json"), "identity": identity, "seconds": seconds, **provenance()}
        finish(config, graded, meta, extra)
    PartialState().wait_for_everyone()


def evaluate_stages(
    config: EvaluationConfig,
    samples: Sequence[Sample],
    compressor: Compressor,
    instruction: str,
    channel: Channel,
    log: RecordLog[Record],
) -> Mapping[str, list[Record]]:
    """The records of the reference and of the compressor, by the name of the file they go to."""
    evaluation = replace(evaluation_of(config), diagnostics=config.diagnostics, costs=True)
    return {
        name: [
            record
            for stage, writer in stages(config, compressor, instruction)
            for record in evaluation.run(
                samples,
                by_compressor(writer, temperature, config.seed),
                channel,
                origin_of(stage, temperature, writer),
                log,
            )
        ]
        for name, temperature in passes(config).items()
    }


def leads(records: Sequence[Record], baselines: Sequence[tuple[BaselinePoint, list[Record]]]) -> list[dict[str, Any]]:
    """How far the compressor's accuracy lies above each baseline's line, at its length or along its curve."""
    measured = [record for record in records if record["stage"] == MEASURED]
    curves: dict[str, list[list[Record]]] = {}
    for point, baseline_records in baselines:
        curves.setdefault(point["name"], []).append(baseline_records)
    of_its_own = (curve for rule in (ASKED, CUT) for name, curve in curves.items() if name.startswith(rule))
    own = next(of_its_own, [measured])
    found = {name: lead(own, curve) for name, curve in curves.items() if not name.startswith((ASKED, CUT))}
    return [{"name": name, **figures} for name, figures in found.items() if figures is not None]


def baseline_records(baselines: Sequence[tuple[BaselinePoint, list[Record]]]) -> Iterator[BaselineRecord]:
    """The records of all baselines, each with the name of its own."""
    fields = BaselineRecord.__annotations__
    for point, records in baselines:
        for record in records:
            kept = {name: value for name, value in record.items() if name in fields}
            yield cast(BaselineRecord, {"baseline": point["name"], **kept})


def sentence_counts(config: EvaluationConfig, records: Sequence[Record]) -> list[dict[str, Any]]:
    """How far each stage kept to the number of sentences it was asked for, where it was asked."""
    counts = {REFERENCE: config.held_against and config.held_against.sentences, MEASURED: config.compressor.sentences}
    return [
        {"name": stage, **obedience([record for record in records if record["stage"] == stage], count)}
        for stage, count in counts.items()
        if count is not None
    ]


def costs(
    config: EvaluationConfig,
    samples: Sequence[Sample],
    records: Mapping[str, Sequence[Record]],
    baselines: Sequence[tuple[BaselinePoint, list[Record]]],
    compressors: Iterator[tuple[str, Compressor]],
    predictor: Predictor,
) -> dict[str, Any]:
    """The operations of a message of each stage, and a row of costs for every stage, decoding and baseline."""
    prices = Prices(config.costs.compressor, config.costs.predictor or config.predictor.dollars_per_million_tokens)
    answering = predictor_size(predictor)
    exchanges = len(Pieces.of(samples).samples) / len(samples)
    flops: list[CostEntry] = []
    rows: list[CostRow] = []
    size = None

    def add(name: str, budget_tokens: int | None, own: Sequence[Record], of_message: float | None) -> None:
        of_models: dict[Model, float | None] = {
            "compressor": of_message,
            "predictor": flops_of_tokens(answering, own, "predictor"),
        }
        rows.append(cost_row(name, budget_tokens, own, of_models, prices))

    for stage, compressor in compressors:
        size = size_of(compressor.model, f"compressor, {stage}")
        for name, of_pass in records.items():
            own = [record for record in of_pass if record["stage"] == stage]
            entry, title = None, f"compressor, {stage}"
            if size is not None:
                tokens = sum(record["message_tokens"] for record in own)
                entry = message_flops(title, size, samples, compressor, tokens)
                flops += [entry] if name == "samples" else []
            add(title if name == "samples" else f"{title}, greedy", None, own, all_flops(entry))
    for point, own in baselines:
        # What a model writes for baselines, the compressor's own writes, with or without its adapter.
        add(point["name"], point["budget_tokens"], own, flops_of_tokens(size, own, "compressor", exchanges))
    return {"flops": flops, "costs": rows}
