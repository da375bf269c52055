"""The work of the rounds: messages and refined questions, and what is written down of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState

from configs.build import build_predictor, build_scorer, evaluation_request, instructions, load_samples
from configs.command import say, start_processes
from configs.run_folder import owned
from configs.servers import ANSWERS
from data.writing import write_json
from eval.config import EvaluationConfig
from eval.provenance import provenance
from eval.record import SCHEMA_VERSION, RoundRecord
from eval.record_log import open_log
from eval.report.console import aligned
from eval.rounds.figures import draw_rounds, round_lines, summarise_rounds
from eval.rounds.rounds import MAX_QUESTION_TOKENS, REQUEST, Rounds
from eval.servers import tell_of_server
from eval.stages import MEASURED, build_compressor, evaluation_of, identify, origin_of
from models.channel import Channel
from models.fingerprint import is_base, parameter_hash


def run(config: EvaluationConfig, rounds: int) -> int:
    """Go through the rounds with the compressor of an evaluation, and write the results.

    Raises:
        InputError: a model, document or server cannot be used.
    """
    start_processes()
    # One folder with the evaluation of the same configuration, whose records are of no use here and do no harm.
    with owned(config.folder, "evaluate"):
        go_through(config, rounds)
    return 0


def go_through(config: EvaluationConfig, rounds: int) -> None:
    """The work, in a run folder that nobody else uses.

    Raises:
        InputError: a model, document or server cannot be used.
    """
    instruction, answer_instruction = instructions(config)
    predictor, predictor_model = build_predictor(config.predictor, answer_instruction, config.folder / ANSWERS)
    compressor = build_compressor(config.compressor, instruction)
    samples = load_samples(config, compressor, "evaluate", evaluation_request, say)
    scorer, scorer_model = build_scorer(config.scorer, compressor, instruction, say)
    identity = identify(config, samples) | {
        "predictor_parameters": predictor_model and parameter_hash(predictor_model),
        "scorer_parameters": parameter_hash(scorer_model or compressor.model, is_base),
        "request": [REQUEST, MAX_QUESTION_TOKENS],
    }
    temperature = config.eval.temperature
    origin = {**origin_of(MEASURED, temperature, compressor), "rounds": rounds}
    log = open_log(config.folder / "records", identity)
    plan = Rounds(evaluation_of(config), rounds, temperature, config.seed)
    records = plan.run(samples, compressor, Channel(predictor, [scorer]), origin, log)
    tell_of_server(predictor)
    if PartialState().is_main_process:
        meta = {"config": config.model_dump(mode="json"), "identity": identity, **provenance()}
        finish(config.folder, records, meta)
    PartialState().wait_for_everyone()


def finish(folder: Path, records: Sequence[RoundRecord], meta: Mapping[str, Any]) -> None:
    """Write ``rounds.json`` and ``rounds.svg``, and say what is in them."""
    summaries = summarise_rounds(records)
    notes = list(_notes(records, meta))
    results = {
        "schema_version": SCHEMA_VERSION,
        "rounds": summaries,
        "notes": notes,
        "records": list(records),
        "meta": dict(meta),
    }
    write_json(folder / "rounds.json", results)
    draw_rounds(summaries, folder / "rounds.svg")
    say(aligned(round_lines(summaries)))
    for note in notes:
        say(note)
    say(f"\nrounds: {folder / 'rounds.json'}, {folder / 'rounds.svg'}")


def _notes(records: Sequence[RoundRecord], meta: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know beside the figures."""
    unanswered = sum(record["unanswered"] for record in records)
    if unanswered:
        yield f"{unanswered} times the predictor wrote no question, and the last one was asked again."
    temperature = meta["config"]["eval"]["temperature"]
    if temperature != 1:
        yield (
            f"Messages were written at temperature {temperature:g}: the figures of their information together are no "
            "bounds."
        )
    model = meta["config"]["predictor"]["model"]
    if model.startswith("miniature/"):
        yield f"{model} was trained on one prompt and follows no request for a question: further rounds mean little."
