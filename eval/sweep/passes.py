"""The two passes of a sweep, logged by batch: messages are written and scored, then answered by every predictor."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import cache, partial
from operator import itemgetter
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from tqdm.auto import tqdm

from configs.build import build_predictor
from configs.servers import ANSWERS, PATIENCE
from data.registry import TASKS
from data.sample import Document, Sample
from eval.analysis.flops import DecoderSize, cost
from eval.evaluation import Evaluation, documents_by_task
from eval.information import measure
from eval.parts import Pieces, parts_of
from eval.record import (
    AnswerRecord,
    FlopsFields,
    LoggedAnswer,
    LoggedMessage,
    MessageRecord,
    answer_fields,
    message_fields,
)
from eval.record_log import RecordLog, open_log
from eval.stages import build_compressor, evaluation_of, lenders
from eval.sweep.config import SweepConfig, SweptCompressor, SweptPredictor
from eval.sweep.models import InspectedModels, LoadedScorer, bind, free_memory, load_scorers, scorers_of
from models.channel import read
from models.compressor import Compressor, Message
from models.predictor import Predictor, RemotePredictor
from models.shared_prefix import sampling_seed

Batch = Sequence[Sample]


def write_messages(config: SweepConfig, loaded: InspectedModels, instruction: str) -> list[MessageRecord]:
    """A record for every compressor, seed and question: the message, what it carries, and what it cost.

    All seeds' messages of a batch are written and scored together, so that their contexts are read once.
    """
    log: RecordLog[LoggedMessage] = open_log(config.folder / "records" / "messages", message_identity(config, loaded))
    plan = evaluation(config)
    batches = own_share(plan.batches(loaded.samples))
    pools = {task: parts_of(documents) for task, documents in documents_by_task(loaded.samples).items()}
    scorers = cache(partial(load_scorers, config, instruction))
    jobs = [
        (compressor, batch, made_by(config, loaded, compressor)) for compressor in config.measured for batch in batches
    ]
    records: list[MessageRecord] = []
    with progress("messages", len(config.seeds) * sum(len(batch) for _, batch, _ in jobs)) as bar:
        for compressor, group in itertools.groupby(jobs, key=itemgetter(0)):
            writing = cache(partial(build_compressor, compressor, instruction))
            for _, batch, origin in group:
                logged = log.records(origin, batch)
                if logged is None:
                    size, pool = loaded.compressors[compressor.called].size, pools[batch[0].document.task]
                    logged = log.add(origin, batch, write_batch(config, writing(), scorers(), pool, size, batch))
                bar.update(len(logged))
                records.extend({**record, "compressor": compressor.called} for record in logged)
            writing.cache_clear()
            free_memory()
    return gather_object(records)


def write_batch(
    config: SweepConfig,
    compressor: Compressor,
    scorers: Sequence[LoadedScorer],
    pool: Sequence[Document],
    size: DecoderSize | None,
    batch: Batch,
) -> list[LoggedMessage]:
    """The messages of a batch by seed, their information, and the FLOPs of reading the contexts and of writing them."""
    samples = [sample for _ in config.seeds for sample in batch]
    seeds = [seed for seed in config.seeds for _ in batch]
    pieces = Pieces.of(samples)
    messages = compressor.write(
        [piece.document.text for piece in pieces.samples],
        [piece.compressor_question for piece in pieces.samples],
        temperature=config.eval.temperature,
        seeds=[
            sampling_seed(seeds[owner], piece.id) for owner, piece in zip(pieces.owners, pieces.samples, strict=True)
        ],
    )
    columns = evaluation(config).columns(pieces.samples, pool)
    information = measure(bind(scorers, compressor), pieces, messages, columns).information
    parts, prompts = pieces.by_sample(messages), pieces.by_sample(pieces.samples)
    return [
        {
            "id": sample.id,
            "seed": seeds[number],
            **message_fields(parts[number]),
            **information[number],
            **flops(compressor, size, prompts[number], parts[number]),
        }
        for number, sample in enumerate(samples)
    ]


def flops(
    compressor: Compressor, size: DecoderSize | None, pieces: Sequence[Sample], written: Sequence[Message]
) -> FlopsFields:
    """What reading the contexts and writing the message cost; None where the model's operations cannot be counted."""
    if size is None:
        return {"prefill_flops": None, "generation_flops": None}
    costs = [
        cost(size, len(compressor.prompt(piece.document.text, piece.compressor_question).ids), max(1, message.tokens))
        for piece, message in zip(pieces, written, strict=True)
    ]
    return {
        "prefill_flops": sum(message_cost.prefill for message_cost in costs),
        "generation_flops": sum(message_cost.generation for message_cost in costs),
    }


def answer_messages(
    config: SweepConfig, loaded: InspectedModels, messages: Sequence[MessageRecord], instruction: str
) -> list[AnswerRecord]:
    """A record for every predictor and message: the answer, and how likely the predictor found the right one."""
    identity = {"tasks": task_identity(config)}
    log: RecordLog[LoggedAnswer] = open_log(config.folder / "records" / "answers", identity)
    texts = {(record["compressor"], record["seed"], record["id"]): record["message"] for record in messages}
    jobs = []
    for predictor, one, batch in itertools.product(
        config.predictors, config.measured, own_share(evaluation(config).batches(loaded.samples))
    ):
        batch_texts = [texts[one.called, seed, sample.id] for seed in config.seeds for sample in batch]
        jobs.append((predictor, one.called, batch, batch_texts, answered_by(loaded, predictor, batch_texts)))
    records: list[AnswerRecord] = []
    with progress("answers", len(config.seeds) * sum(len(batch) for _, _, batch, _, _ in jobs)) as bar:
        for predictor, group in itertools.groupby(jobs, key=itemgetter(0)):
            answering = cache(partial(build_predictor, predictor, instruction, config.folder / ANSWERS))
            for _, compressor, batch, batch_texts, origin in group:
                logged = log.records(origin, batch)
                if logged is None:
                    logged = log.add(
                        origin, batch, answer_batch(answering()[0], [*batch] * len(config.seeds), batch_texts)
                    )
                bar.update(len(logged))
                seeds = (seed for seed in config.seeds for _ in batch)
                records.extend(
                    {**record, "compressor": compressor, "predictor": predictor.called, "seed": seed}
                    for record, seed in zip(logged, seeds, strict=True)
                )
            if answering.cache_info().currsize and isinstance(remote := answering()[0], RemotePredictor):
                # By each process of its own share: a process that had nothing to ask has no server to tell of.
                for line in remote.endpoint.notes("the predictor's max_answer_tokens"):
                    print(line, flush=True)
            answering.cache_clear()
            free_memory()
    return gather_object(records)


def answer_batch(predictor: Predictor, samples: Sequence[Sample], texts: Sequence[str]) -> list[LoggedAnswer]:
    """What a predictor makes of messages, equal ones read once."""
    readings = read(predictor, samples, [Message(text, [], True, []) for text in texts])
    return [
        {"id": sample.id, **answer_fields(sample, answer, gold, null)}
        for sample, answer, gold, null in zip(
            samples, readings.answers, readings.answer_scores, readings.null_scores, strict=True
        )
    ]


def evaluation(config: SweepConfig) -> Evaluation:
    """How questions are batched and negatives chosen."""
    return evaluation_of(config.recipe())


def task_identity(config: SweepConfig) -> dict[str, Any]:
    """What the questions depend on beside their words."""
    return {task.name: [TASKS[task.name].version, task.model_dump(mode="json")] for task in config.tasks}


def message_identity(config: SweepConfig, loaded: InspectedModels) -> dict[str, Any]:
    """What all messages and their information depend on, beside the compressor."""
    pool = sorted({(s.document.task, s.document.id, s.document.text) for s in loaded.samples})
    return {
        "tasks": task_identity(config),
        "pool": hashlib.sha256(json.dumps(pool).encode()).hexdigest(),
        "negatives": config.information.negatives.model_dump(),
        "arrangement": [config.information.evidence, config.information.context_words],
        **lenders(config.recipe(), loaded.samples),
        "scorers": [
            [scorer.model_dump(mode="json"), fingerprint]
            for scorer, fingerprint in zip(scorers_of(config), loaded.scorers, strict=True)
        ],
        "scored_tokens": max(scorer.budget_tokens for scorer in config.compressors),
        "seed": config.seed,
    }


def made_by(config: SweepConfig, loaded: InspectedModels, compressor: SweptCompressor) -> dict[str, Any]:
    """The key of a compressor's messages in the log: the compressor, its parameters, seeds and temperature."""
    return {
        "compressor": compressor.model_dump(mode="json", exclude={"name", "family"}),
        "parameters": loaded.compressors[compressor.called].fingerprint,
        "seeds": list(config.seeds),
        "temperature": config.eval.temperature,
    }


def answered_by(loaded: InspectedModels, predictor: SweptPredictor, texts: Sequence[str]) -> dict[str, Any]:
    """The key of a predictor's answers in the log: the predictor and the messages, whichever compressor wrote them."""
    return {
        "predictor": predictor.model_dump(mode="json", exclude={"name", "family", "parameters", *PATIENCE}),
        "parameters": loaded.predictors[predictor.called].fingerprint,
        "messages": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
    }


def progress(name: str, total: int) -> tqdm:
    """A bar over messages or answers; what the log holds is passed at once."""
    return tqdm(total=total, desc=name, dynamic_ncols=True, disable=not PartialState().is_main_process)


def own_share(batches: Sequence[list[Sample]]) -> Sequence[list[Sample]]:
    """The batches of this process."""
    state = PartialState()
    return batches[state.process_index :: state.num_processes]
