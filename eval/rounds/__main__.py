"""Several rounds of refined questions: ``python -m eval.rounds --config evaluation.yaml --rounds 3``.

Round 1 is the ordinary message. In each further round the predictor asks, in one sentence, for what the messages so far
lack, the compressor writes another message for that, and the predictor answers from all of them (the study, He et al.,
arXiv 2512.21720, finds that information saturates after two rounds). Options are never shown to who asks: what it asks
for is told to the compressor. Leaves ``rounds.json`` and ``rounds.svg`` in the run folder.

What the messages carry together is measured on the sum of their log-prob matrices. The refined question is a function
of the question and the messages before (it is decoded greedily), so that log s(z_1 ... z_k given x, q) is the sum of
log s(z_i given x, q_i), each message under the question q_i that it was written for, and the bounds apply to that sum;
a column of it has the ceiling log N, however many rounds there are. Beside it stands the sum of each message's own
information under its own question: an upper count of the same, as rounds may repeat each other. Both presume messages
sampled at temperature 1.

Embedded models were trained on one prompt and follow no request for a question: what they ask means little, and so do
their further rounds.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from configs.build import build_predictor, build_scorer, draw, held_out, instructions
from configs.command import say, status
from configs.tree import describe
from eval.config import EvaluationConfig, load_config
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 2 for bad input, 130 when interrupted."""
    options = parse(arguments)
    return status(lambda: load_config(options.config, options.overrides), lambda config: run(config, options.rounds))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; ``--help`` lists every configuration key."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.rounds",
        description=__doc__,
        epilog="configuration keys:\n\n" + describe(EvaluationConfig),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, help="a YAML file, as given or in configs/, as for eval.run")
    parser.add_argument("--rounds", type=int, default=3, help="how many, the ordinary message included; 3 by default")
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dotted keys: eval.documents=5")
    options = parser.parse_intermixed_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds {options.rounds}: there is at least one, the ordinary message")
    return options


def run(config: EvaluationConfig, rounds: int) -> int:
    """Go through the rounds with the compressor of an evaluation, and write what was found."""
    PartialState(cpu=not torch.cuda.is_available())
    instruction, answer_instruction = instructions(config)
    compressor = build_compressor(config.compressor, instruction)
    predictor, predictor_model = build_predictor(config.predictor, answer_instruction)
    samples = draw(config, compressor, "evaluate", {task.name: held_out(config, task) for task in config.tasks}, say)
    scorer, scorer_model, shares = build_scorer(config.scorer, compressor, instruction, say)
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
    channel = Channel(predictor, scorer, shares)
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


if __name__ == "__main__":
    sys.exit(main())
