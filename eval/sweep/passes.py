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
from configs.command import say
from data.registry import TASKS
from data.sample import Document, Sample
from eval.analysis.flops import DecoderSize, cost
from eval.evaluation import Evaluation, measure
from eval.parts import in_parts, joined, parts_of
from eval.record import Record
from eval.record_log import RecordLog
from eval.sentences import count_sentences
from eval.stages import build_compressor
from eval.sweep.config import SweepConfig, SweptCompressor, SweptPredictor
from eval.sweep.models import Loaded, LoadedScorer, bind, load_scorers, release, scorers_of
from models.channel import read
from models.compressor import Compressor, Message
from models.predictor import Predictor
from models.shared_prefix.generation import sampling_seed
from objectives.accuracy import score
from objectives.negatives import NegativeCounts

Batch = Sequence[Sample]

BY_TOKEN = ("tokens", "token_bits")
"""What is measured token by token; a sweep keeps sums alone."""


def write_messages(config: SweepConfig, loaded: Loaded, instruction: str) -> list[Record]:
    """A record for every compressor, seed and question: the message, what it carries, and what it cost.

    All seeds' messages of a batch are written and scored together, so that their contexts are read once.
    """
    log = open_log(config, "messages", message_identity(config, loaded))
    plan = evaluation(config)
    batches = own_share(plan.batches(loaded.samples))
    pools = {task: parts_of([s.document for s in group]) for task, group in by_task(loaded.samples).items()}
    scorers = cache(partial(load_scorers, config, instruction))
    jobs = [(one, batch, made_by(config, loaded, one)) for one in config.measured for batch in batches]
    records: list[Record] = []
    with progress("messages", len(config.seeds) * sum(len(batch) for _, batch, _ in jobs)) as bar:
        for one, group in itertools.groupby(jobs, key=itemgetter(0)):
            writing = cache(partial(build_compressor, one, instruction))
            for _, batch, made in group:
                found = log.records(made, batch)
                if found is None:
                    size, pool = loaded.compressors[one.called].size, pools[batch[0].document.task]
                    found = log.add(made, batch, write_batch(config, writing(), scorers(), pool, size, batch))
                bar.update(len(found))
                records += [record | {"compressor": one.called} for record in found]
            writing.cache_clear()
            release()
    return gather_object(records)


def write_batch(
    config: SweepConfig,
    compressor: Compressor,
    scorers: Sequence[LoadedScorer],
    pool: Sequence[Document],
    size: DecoderSize | None,
    batch: Batch,
) -> list[Record]:
    """The messages of a batch by seed, their information, and the FLOPs of reading the contexts and of writing them."""
    samples = [sample for _ in config.seeds for sample in batch]
    seeds = [seed for seed in config.seeds for _ in batch]
    pieces, owner = in_parts(samples)
    written = compressor.write(
        [piece.document.text for piece in pieces],
        [piece.asked for piece in pieces],
        temperature=config.eval.temperature,
        seeds=[sampling_seed(seeds[number], piece.id) for number, piece in zip(owner.tolist(), pieces, strict=True)],
    )
    columns = evaluation(config).columns(pieces, pool)
    measured = measure(bind(scorers, compressor), pieces, written, columns, owner, len(samples))
    parts = [(owner == number).nonzero()[:, 0].tolist() for number in range(len(samples))]
    return [
        {"id": sample.id, "seed": seed}
        | message_fields([written[i] for i in own])
        | {key: value for key, value in values.items() if key not in BY_TOKEN}
        | flops(compressor, size, [pieces[i] for i in own], [written[i] for i in own])
        for sample, seed, values, own in zip(samples, seeds, measured, parts, strict=True)
    ]


def message_fields(written: Sequence[Message]) -> Record:
    """What records say of a message, from the messages of its document's parts."""
    message = joined(written)
    return {
        "message": message.text,
        "message_tokens": message.tokens,
        "message_sentences": [count_sentences(part.text) for part in written],
        "truncated_tokens": message.truncated_tokens,
    }


def flops(
    compressor: Compressor, size: DecoderSize | None, pieces: Sequence[Sample], written: Sequence[Message]
) -> dict[str, int | None]:
    """What reading the contexts and writing the message cost; None where the model's operations cannot be counted."""
    if size is None:
        return {"prefill_flops": None, "generation_flops": None}
    costs = [
        cost(size, len(compressor.prompt(piece.document.text, piece.asked).ids), max(1, message.tokens))
        for piece, message in zip(pieces, written, strict=True)
    ]
    return {
        "prefill_flops": sum(one.prefill for one in costs),
        "generation_flops": sum(one.generation for one in costs),
    }


def answer_messages(config: SweepConfig, loaded: Loaded, messages: Sequence[Record], instruction: str) -> list[Record]:
    """A record for every predictor and message: the answer, and how likely the predictor found the right one."""
    log = open_log(config, "answers", {"tasks": task_identity(config)})
    texts = {(record["compressor"], record["seed"], record["id"]): record["message"] for record in messages}
    jobs = []
    for predictor, one, batch in itertools.product(
        config.predictors, config.measured, own_share(evaluation(config).batches(loaded.samples))
    ):
        own = [texts[one.called, seed, sample.id] for seed in config.seeds for sample in batch]
        jobs.append((predictor, one.called, batch, own, answered_by(loaded, predictor, own)))
    records: list[Record] = []
    with progress("answers", len(config.seeds) * sum(len(batch) for _, _, batch, _, _ in jobs)) as bar:
        for predictor, group in itertools.groupby(jobs, key=itemgetter(0)):
            answering = cache(partial(build_predictor, predictor, instruction))
            for _, compressor, batch, own, made in group:
                found = log.records(made, batch)
                if found is None:
                    found = log.add(made, batch, answer_batch(answering()[0], [*batch] * len(config.seeds), own))
                bar.update(len(found))
                seeds = (seed for seed in config.seeds for _ in batch)
                whose = {"compressor": compressor, "predictor": predictor.called}
                records += [record | whose | {"seed": seed} for record, seed in zip(found, seeds, strict=True)]
            answering.cache_clear()
            release()
    return gather_object(records)


def answer_batch(predictor: Predictor, samples: Sequence[Sample], texts: Sequence[str]) -> list[Record]:
    """What a predictor makes of messages, equal ones read once."""
    found = read(predictor, samples, [Message(text, [], True, []) for text in texts])
    return [
        {
            "id": sample.id,
            "prediction": answer,
            "accuracy": accuracy(sample, answer),
            "answer_nll_nats": None if gold is None else -gold.log_prob,
            "answer_tokens": None if gold is None else gold.tokens,
            "task_information_nats": None if gold is None or null is None else gold.log_prob - null.log_prob,
        }
        for sample, answer, gold, null in zip(
            samples, found.answers, found.answer_scores, found.null_scores, strict=True
        )
    ]


def accuracy(sample: Sample, answer: str) -> float | None:
    """None where no metric can tell, but a judge or the gold answer's perplexity."""
    question = sample.question
    return score(question.metric, answer, question.answers, question.options) if question.scored else None


def evaluation(config: SweepConfig) -> Evaluation:
    """How questions are batched and negatives chosen."""
    return Evaluation(NegativeCounts(**config.information.negatives.model_dump()), config.eval.batch_size, config.seed)


def task_identity(config: SweepConfig) -> dict[str, Any]:
    """What the questions depend on beside their words."""
    return {task.name: [TASKS[task.name].version, task.model_dump(mode="json")] for task in config.tasks}


def message_identity(config: SweepConfig, loaded: Loaded) -> dict[str, Any]:
    """What all messages and their information depend on, beside the compressor."""
    pool = sorted({(s.document.task, s.document.id, s.document.text) for s in loaded.samples})
    return {
        "tasks": task_identity(config),
        "pool": hashlib.sha256(json.dumps(pool).encode()).hexdigest(),
        "negatives": config.information.negatives.model_dump(),
        "scorers": [
            [one.model_dump(mode="json"), fingerprint]
            for one, fingerprint in zip(scorers_of(config), loaded.scorers, strict=True)
        ],
        "scored_tokens": max(one.budget_tokens for one in config.compressors),
        "seed": config.seed,
    }


def made_by(config: SweepConfig, loaded: Loaded, one: SweptCompressor) -> dict[str, Any]:
    """What tells the messages of one compressor from others."""
    return {
        "compressor": one.model_dump(mode="json", exclude={"name", "family"}),
        "parameters": loaded.compressors[one.called].fingerprint,
        "seeds": list(config.seeds),
        "temperature": config.eval.temperature,
    }


def answered_by(loaded: Loaded, predictor: SweptPredictor, texts: Sequence[str]) -> dict[str, Any]:
    """What tells the answers of one predictor to some messages from others, whoever wrote the messages."""
    return {
        "predictor": predictor.model_dump(mode="json", exclude={"name", "family", "parameters"}),
        "parameters": loaded.predictors[predictor.called].fingerprint,
        "messages": hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest(),
    }


def open_log(config: SweepConfig, name: str, identity: dict[str, Any]) -> RecordLog:
    """The log of one pass, in the run folder."""
    log = RecordLog(config.folder / "records" / name, identity, PartialState().process_index)
    if log.torn:
        say(f"{name}: {log.torn} batch that a kill cut short is done again")
    return log


def progress(name: str, total: int) -> tqdm:
    """A bar over messages or answers; what the log holds is passed at once."""
    return tqdm(total=total, desc=name, dynamic_ncols=True, disable=not PartialState().is_main_process)


def own_share(batches: Sequence[list[Sample]]) -> Sequence[list[Sample]]:
    """The batches of this process."""
    state = PartialState()
    return batches[state.process_index :: state.num_processes]


def by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """The samples of each task."""
    tasks = dict.fromkeys(sample.document.task for sample in samples)
    return {task: [sample for sample in samples if sample.document.task == task] for task in tasks}
