"""The documents of early warning: which they are, and what training lacks because of them.

An adapter that is chosen by these documents looks better on them than on others, so they are not those of the final
evaluation; and what a model was trained on warns of nothing.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from configs.build import Say, evaluation_request, read_documents
from configs.errors import ConfigError
from configs.sections import TaskConfig
from data.errors import DataError
from data.sample import Document, Sample, samples_of
from data.task import Request, draw
from eval.evaluation import documents_by_task
from eval.parts import Pieces, parts_of
from eval.stages import evaluation_of
from models.prompts import ChatFormat
from train.config import Config
from train.sections.watch import WatchConfig

SEED_OF_ITS_OWN = 2**32
"""What the seed of generated documents is larger by than the run's: no configuration can name such a seed, so that no
training and no evaluation, of this run or of another one, draws the same documents."""


def hold_back(
    config: Config,
    watch: WatchConfig,
    chat: ChatFormat,
    trained: Sequence[Document],
    evaluated: Sequence[Document],
    say: Say,
    told: Callable[[Document], Document] | None,
) -> tuple[list[Document], list[Document]]:
    """What is left to train on, and the watched documents, in the order of the tasks.

    Args:
        config: the run's.
        watch: its section ``watch``.
        chat: gives the compressor's tokens.
        trained: the documents to train on, none held back so far.
        evaluated: those of the final evaluation.
        say: is told how many documents are held back.
        told: see `configs.build.read_documents`.

    Raises:
        DataError: there are too few documents to watch, or too few would be left to train on, or watched messages would
            have nothing to be compared with.
        ConfigError: the adapter is to be kept by an accuracy that no metric gives.
    """
    left, watched = list(trained), list[Document]()
    for task in config.tasks:
        if task.embedded:
            watched += _generated(config, task, watch, chat, say, told)
            continue
        of_task = [document for document in trained if document.task == task.name]
        chosen = _chosen(task.name, of_task, evaluated, watch.documents, config.seed)
        sides = _sides(chosen)
        held = [document for document in of_task if not sides.isdisjoint(_sides([document]))]
        _check_left(task.name, of_task, held, watch)
        say(
            f"{task.name}: held back from training {len(held)} of {len(of_task)} documents: {len(chosen)} to watch and "
            f"{len(held) - len(chosen)} others of their groups"
        )
        left = [document for document in left if document.task != task.name or sides.isdisjoint(_sides([document]))]
        request = Request(task.split, questions_per_document=watch.questions_per_document, seed=config.seed)
        watched += draw(chosen, Counter(), request).documents
    samples = samples_of(watched)
    _check_measured(config, watch, samples)
    _check_enough(config, watch, left)
    measured = f"every {watch.every} steps" if config.train.steps else "never, as there are no steps"
    say(f"watched while it trains, {measured}: {len(samples)} questions about {len(watched)} documents")
    return left, watched


def _generated(
    config: Config,
    task: TaskConfig,
    watch: WatchConfig,
    chat: ChatFormat,
    say: Say,
    told: Callable[[Document], Document] | None,
) -> list[Document]:
    """Documents of the evaluation's split that nothing else draws."""

    def request(recipe: Config, task: TaskConfig) -> Request:
        return replace(
            evaluation_request(recipe, task),
            documents=watch.documents,
            questions_per_document=watch.questions_per_document,
            seed=recipe.seed + SEED_OF_ITS_OWN,
        )

    return read_documents(config.model_copy(update={"tasks": (task,)}), chat, "watch", request, say, told)


def _chosen(
    task: str, documents: Sequence[Document], evaluated: Sequence[Document], count: int, seed: int
) -> list[Document]:
    """The documents whose hashes with the seed are the smallest, of those that are on no side of the evaluation."""
    taken = _sides(document for document in evaluated if document.task == task)
    free = [document for document in documents if taken.isdisjoint(_sides([document]))]
    if len(free) < count:
        raise DataError(
            f"watch.documents = {count}: {task} has {len(documents)} documents to train on, of which "
            f"{len(documents) - len(free)} are evaluated or share their group with one that is, so that {len(free)} "
            "can be watched; watch fewer, or give more documents"
        )
    return sorted(free, key=lambda document: _hash(seed, document.id))[:count]


def _hash(seed: int, name: str) -> str:
    return hashlib.sha256(f"watch {seed} {name}".encode("utf-8", "surrogatepass")).hexdigest()


def _sides(documents: Iterable[Document]) -> set[tuple[str, str]]:
    """What a document must not share with one on another side: its id, its text, its patient, company or user."""
    return {
        (kind, value)
        for document in documents
        for kind, value in (
            ("id", document.id),
            ("text", document.text),
            ("group", document.group),
            ("cluster", document.cluster),
        )
        if value
    }


def _check_left(task: str, documents: Sequence[Document], held: Sequence[Document], watch: WatchConfig) -> None:
    if len(held) == len(documents):
        raise DataError(
            f"watch.documents = {watch.documents}: of the {len(documents)} documents of {task} to train on none is "
            "left, as all share their group with one that is watched; watch fewer, or give more documents"
        )


def _check_enough(config: Config, watch: WatchConfig, left: Sequence[Document]) -> None:
    """Refuse fewer questions than a step has contexts, where those that are held back may be the reason."""
    wanted, questions = config.train.contexts_per_step, len(Pieces.of(samples_of(list(left))).samples)
    if questions < wanted:
        raise DataError(
            f"watch.documents = {watch.documents}: leaves {questions} training questions, fewer than "
            f"train.contexts_per_step = {wanted}; watch fewer, choose fewer contexts a step, or give more documents"
        )


def _check_measured(config: Config, watch: WatchConfig, samples: Sequence[Sample]) -> None:
    if watch.keep == "accuracy" and not any(sample.question.scored for sample in samples):
        raise ConfigError(
            f"watch.keep = 'accuracy': none of the {len(samples)} watched questions has a metric, as only a judge can "
            "score them; choose reward, or null"
        )
    evaluation, pools = evaluation_of(config), documents_by_task(samples)
    try:
        for batch in evaluation.batches(samples):
            evaluation.columns(Pieces.of(batch).samples, parts_of(pools[batch[0].document.task]))
    except DataError as error:
        raise DataError(f"watch.documents = {watch.documents}: {error}") from error
