"""The work of an evaluation: messages, answers and information of every stage, baselines, and what they cost."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import PartialState

from configs.build import build_predictor, build_scorer, draw, held_out, instructions
from configs.command import say, start_processes
from data.sample import Sample
from eval.analysis.density import summarise_one
from eval.analysis.flops import cost, decoder_size
from eval.analysis.sentences import obedience
from eval.baselines.evaluate import evaluate_baseline
from eval.config import EvaluationConfig
from eval.evaluation import by_compressor
from eval.judge.grade import grade
from eval.parts import in_parts
from eval.record import Record
from eval.results import finish
from eval.stages import MEASURED, REFERENCE, build_compressor, evaluate, identify, made_by, passes, stages
from models.channel import Channel
from models.compressor import Compressor
from models.loading import base, parameter_hash


def run(config: EvaluationConfig) -> int:
    """Evaluate, and write what was found."""
    start_processes()
    instruction, answer_instruction = instructions(config)
    compressor = build_compressor(config.compressor, instruction)
    predictor, predictor_model = build_predictor(config.predictor, answer_instruction)
    samples = draw(config, compressor, "evaluate", {task.name: held_out(config, task) for task in config.tasks}, say)
    scorer, scorer_model = build_scorer(config.scorer, compressor, instruction, say)
    scorers, second_model = [scorer], None
    if config.second_scorer is not None:
        second, second_model = build_scorer(config.second_scorer, compressor, instruction, say)
        scorers.append(second)
    channel = Channel(predictor, scorers)
    identity = identify(config, samples) | {
        "predictor_parameters": predictor_model and parameter_hash(predictor_model),
        "scorer_parameters": parameter_hash(scorer_model or compressor.model, base),
        "second_scorer": config.second_scorer and config.second_scorer.model_dump(mode="json"),
        "second_scorer_parameters": second_model and parameter_hash(second_model),
        # Of baselines: budgets are in the tokens of the compressor, whose base embeds sentences.
        "compressor_base": [config.compressor.model, parameter_hash(compressor.model, base)],
    }
    records = {
        name: [
            record
            for stage, one in stages(config, compressor, instruction)
            for record in evaluate(
                config,
                samples,
                by_compressor(one, temperature, config.seed),
                channel,
                made_by(stage, temperature, one),
                identity,
            )
        ]
        for name, temperature in passes(config).items()
    }
    baselines = [
        found
        for baseline in config.baselines
        for found in evaluate_baseline(config, baseline, samples, compressor, channel, identity)
    ]
    if PartialState().is_main_process:
        graded = {name: grade(config, found) for name, found in records.items()}
        meta = {
            "config": config.model_dump(mode="json"),
            "identity": identity,
            "versions": {"torch": torch.__version__},
        }
        extra = {
            "baselines": [
                point | summarise_one(grade(config, found) if config.judge else found) for point, found in baselines
            ],
            "sentences": sentence_counts(config, graded["samples"]),
            "flops": list(costs(samples, graded["samples"], stages(config, compressor, instruction))),
        }
        finish(config, graded, meta, extra)
    PartialState().wait_for_everyone()
    return 0


def sentence_counts(config: EvaluationConfig, records: Sequence[Record]) -> list[dict[str, Any]]:
    """How far each stage kept to the number of sentences it was asked for, where it was asked."""
    asked = {REFERENCE: config.held_against and config.held_against.sentences, MEASURED: config.compressor.sentences}
    return [
        {"name": stage, **obedience([record for record in records if record["stage"] == stage], wanted)}
        for stage, wanted in asked.items()
        if wanted is not None
    ]


def costs(
    samples: Sequence[Sample], records: Sequence[Record], compressors: Iterator[tuple[str, Compressor]]
) -> Iterator[dict[str, Any]]:
    """What a message of each stage costs, on average, FLOPs; a document in parts is as many prompts and replies."""
    pieces, _ = in_parts(samples)
    for stage, compressor in compressors:
        model = compressor.model
        parameters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
        try:
            size = decoder_size(model.config, parameters)
        except ValueError as error:
            say(f"what a message costs is not counted, stage {stage}: {error}")
            continue
        read = sum(len(compressor.prompt(piece.document.text, piece.asked).ids) for piece in pieces)
        written = sum(record["message_tokens"] for record in records if record["stage"] == stage)
        one = cost(size, round(read / len(pieces)), max(1, round(written / len(pieces))))
        yield {
            "name": f"compressor, {stage}",
            "prompt_tokens": read / len(samples),
            "generated_tokens": written / len(samples),
            "prefill_flops": one.prefill * len(pieces) / len(samples),
            "generation_flops": one.generation * len(pieces) / len(samples),
            "flops_per_generated_token": one.per_token,
        }
