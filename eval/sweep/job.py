"""The work of a sweep: every message written once, every answer to it, and the pages made from them."""

from collections.abc import Sequence
from typing import Any

from accelerate import PartialState

from configs.build import instructions
from configs.command import start_processes
from configs.run_folder import owned
from configs.tree import to_yaml
from data.writing import write_json, write_text
from eval.judge.grade import grade, probe_judge
from eval.provenance import provenance
from eval.record import (
    SCHEMA_VERSION,
    AnswerRecord,
    CompressorFields,
    MessageRecord,
    PredictorFields,
    SweepRecord,
    question_fields,
)
from eval.record_file import write_records
from eval.servers import probe_predictors
from eval.sweep.config import SweepConfig, SweptCompressor
from eval.sweep.drawing import draw_all
from eval.sweep.findings import findings
from eval.sweep.models import InspectedModels, inspect_models, scorers_of
from eval.sweep.page import console, write_page
from eval.sweep.passes import answer_messages, write_messages
from eval.sweep.results import summarise


def run(config: SweepConfig) -> int:
    """Sweep, and write what was found."""
    start_processes()
    with owned(config.folder, "sweep"):
        sweep(config)
    return 0


def sweep(config: SweepConfig) -> None:
    """The work, in a run folder that nobody else uses.

    Raises:
        InputError: a model, document or server cannot be used.
    """
    recipe = config.recipe()
    instruction, answer_instruction = instructions(recipe)
    probe_judge(recipe)
    probe_predictors(config.predictors, config.folder)
    loaded = inspect_models(config, instruction, answer_instruction)
    messages = write_messages(config, loaded, instruction)
    answers = answer_messages(config, loaded, messages, answer_instruction)
    if PartialState().is_main_process:
        finish(config, loaded, grade(recipe, records_of(config, loaded, messages, answers)))
    PartialState().wait_for_everyone()


def records_of(
    config: SweepConfig, loaded: InspectedModels, messages: Sequence[MessageRecord], answers: Sequence[AnswerRecord]
) -> list[SweepRecord]:
    """A record for every answer, with its message, its question, and what the two models are."""
    written = {(record["compressor"], record["seed"], record["id"]): record for record in messages}
    questions = {sample.id: question_fields(sample) for sample in loaded.samples}
    compressors = {one.called: compressor_fields(config, loaded, one) for one in config.measured}
    predictors: dict[str, PredictorFields] = {
        one.called: {
            "predictor": one.called,
            "predictor_family": one.family,
            "predictor_parameters": loaded.predictors[one.called].parameters,
        }
        for one in config.predictors
    }
    records: list[SweepRecord] = [
        {
            **questions[answer["id"]],
            **compressors[answer["compressor"]],
            **predictors[answer["predictor"]],
            **written[answer["compressor"], answer["seed"], answer["id"]],
            **answer,
        }
        for answer in answers
    ]
    first, second = list(compressors), list(predictors)
    return sorted(
        records, key=lambda r: (first.index(r["compressor"]), second.index(r["predictor"]), r["seed"], r["id"])
    )


def compressor_fields(config: SweepConfig, loaded: InspectedModels, compressor: SweptCompressor) -> CompressorFields:
    """What records say of their compressor; its setting is what of its prompt and budget varies over the grid."""
    setting = []
    if len(config.sentences) > 1 or len({another.sentences for another in config.compressors}) > 1:
        setting.append("any length" if compressor.sentences is None else f"{compressor.sentences} sentences")
    if len({another.budget_tokens for another in config.compressors}) > 1:
        setting.append(f"at most {compressor.budget_tokens} tokens")
    return {
        "compressor": compressor.called,
        "compressor_family": compressor.family,
        "compressor_parameters": loaded.compressors[compressor.called].parameters,
        "sentences": compressor.sentences,
        "budget_tokens": compressor.budget_tokens,
        "setting": ", ".join(setting),
    }


def finish(config: SweepConfig, loaded: InspectedModels, records: list[SweepRecord]) -> None:
    """Results, samples, figures, the page, and the table on the console."""
    folder = config.folder
    results = {
        "schema_version": SCHEMA_VERSION,
        **summarise(records, control=config.control),
        "meta": meta(config, loaded),
    }
    results["findings"] = [one.as_dict() for one in findings(results)]
    write_records(folder / "samples.jsonl", records)
    write_text(folder / "config.yaml", to_yaml(config))
    write_json(folder / "sweep.json", results)
    figures = draw_all(results, folder / "figures")
    page = write_page(results, figures, folder / "sweep.md")
    print(console(results))
    print(f"\npage: {page}")


def meta(config: SweepConfig, loaded: InspectedModels) -> dict[str, Any]:
    """What made the results."""
    return {
        "name": config.name,
        "config": config.model_dump(mode="json"),
        "fingerprints": {
            "compressors": {name: model.fingerprint for name, model in loaded.compressors.items()},
            "predictors": {name: model.fingerprint for name, model in loaded.predictors.items()},
            "scorers": {one.model: f for one, f in zip(scorers_of(config), loaded.scorers, strict=True)},
        },
        **provenance(),
    }
