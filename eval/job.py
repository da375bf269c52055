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
from eval.analysis.flops import cost, decoder_size
from eval.analysis.sentences import obedience
from eval.baselines.evaluate import BaselinePoint, Setting, evaluate_baseline, mean_tokens
from eval.config import ASKED, CUT, EvaluationConfig
from eval.diagnostics import summarise_diagnostics
from eval.evaluation import by_compressor
from eval.judge.grade import grade, probe_judge
from eval.parts import Pieces
from eval.provenance import provenance
from eval.readers import ask_readers
from eval.record import BaselineRecord, Record
from eval.record_file import BASELINE_RECORDS, write_records
from eval.record_log import RecordLog, open_log
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
            "flops": list(costs(samples, graded["samples"], stages(config, compressor, instruction))),
        }
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
    evaluation = replace(evaluation_of(config), diagnostics=config.diagnostics)
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
    samples: Sequence[Sample], records: Sequence[Record], compressors: Iterator[tuple[str, Compressor]]
) -> Iterator[dict[str, Any]]:
    """What a message of each stage costs, on average, FLOPs; a document in parts is as many prompts and replies."""
    pieces = Pieces.of(samples).samples
    for stage, compressor in compressors:
        model = compressor.model
        parameters = sum(p.numel() for name, p in model.named_parameters() if is_base(name, p))
        try:
            size = decoder_size(model.config, parameters)
        except ValueError as error:
            say(f"what a message costs is not counted, stage {stage}: {error}")
            continue
        prompts = (compressor.prompt(piece.document.text, piece.compressor_question) for piece in pieces)
        prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        message_tokens = sum(record["message_tokens"] for record in records if record["stage"] == stage)
        mean = cost(size, round(prompt_tokens / len(pieces)), max(1, round(message_tokens / len(pieces))))
        yield {
            "name": f"compressor, {stage}",
            "prompt_tokens": prompt_tokens / len(samples),
            "generated_tokens": message_tokens / len(samples),
            "prefill_flops": mean.prefill * len(pieces) / len(samples),
            "generation_flops": mean.generation * len(pieces) / len(samples),
            "flops_per_generated_token": mean.per_token,
        }
