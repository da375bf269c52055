"""The work of the rounds: messages and refined questions, and what is written down of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from configs.build import build_predictor, build_scorer, draw, held_out, instructions
from configs.command import say, start_processes
from eval.config import EvaluationConfig
from eval.evaluation import Evaluation
from eval.record import Record
from eval.record_log import RecordLog
from eval.report.table import aligned
from eval.rounds.figures import draw_rounds, round_lines, summarise_rounds
from eval.rounds.rounds import MOST_QUESTION_TOKENS, REQUEST, Rounds
from eval.stages import MEASURED, build_compressor, identify, made_by
from models.channel import Channel
from models.loading import base, parameter_hash
from objectives.negatives import NegativeCounts


def run(config: EvaluationConfig, rounds: int) -> int:
    """Go through the rounds with the compressor of an evaluation, and write what was found."""
    start_processes()
    instruction, answer_instruction = instructions(config)
    compressor = build_compressor(config.compressor, instruction)
    predictor, predictor_model = build_predictor(config.predictor, answer_instruction)
    samples = draw(config, compressor, "evaluate", {task.name: held_out(config, task) for task in config.tasks}, say)
    scorer, scorer_model = build_scorer(config.scorer, compressor, instruction, say)
    identity = identify(config, samples) | {
        "predictor_parameters": predictor_model and parameter_hash(predictor_model),
        "scorer_parameters": parameter_hash(scorer_model or compressor.model, base),
        "request": [REQUEST, MOST_QUESTION_TOKENS],
    }
    temperature = config.eval.temperature
    log = RecordLog(config.folder / "records", identity, PartialState().process_index)
    if log.torn:
        say(f"{log.torn} batch that a kill cut short is done again")
    made = made_by(MEASURED, temperature, compressor) | {"rounds": rounds}
    channel = Channel(predictor, [scorer])
    negatives = NegativeCounts(**config.information.negatives.model_dump())
    one = Evaluation(negatives, config.eval.batch_size, config.seed)
    records = Rounds(one, rounds, temperature, config.seed).run(samples, compressor, channel, made, log)
    if PartialState().is_main_process:
        finish(config.folder, records, {"config": config.model_dump(mode="json"), "identity": identity})
    PartialState().wait_for_everyone()
    return 0


def finish(folder: Path, records: Sequence[Record], meta: Mapping[str, Any]) -> None:
    """Write ``rounds.json`` and ``rounds.svg``, and say what is in them."""
    found = summarise_rounds(records)
    notes = list(_notes(records, meta))
    written = {"rounds": found, "notes": notes, "records": list(records), "meta": dict(meta)}
    (folder / "rounds.json.tmp").write_text(json.dumps(written, indent=1), encoding="utf-8")
    (folder / "rounds.json.tmp").replace(folder / "rounds.json")
    draw_rounds(found, folder / "rounds.svg")
    say(aligned(round_lines(found)))
    for note in notes:
        say(note)
    say(f"\nrounds: {folder / 'rounds.json'}, {folder / 'rounds.svg'}")


def _notes(records: Sequence[Record], meta: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know beside the figures."""
    asked_again = sum(record["unanswered"] for record in records)
    if asked_again:
        yield f"{asked_again} times the predictor wrote no question, and the last one was asked again."
    temperature = meta["config"]["eval"]["temperature"]
    if temperature != 1:
        yield f"Messages were written at temperature {temperature:g}: what is counted of them together is no bound."
    model = meta["config"]["predictor"]["model"]
    if model.startswith("miniature/"):
        yield f"{model} was trained on one prompt and follows no request for a question: further rounds mean little."
