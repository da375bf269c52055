"""The questions of a training run, read and checked before any model is loaded: enough of them, and what pays them."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from configs.build import evaluation_request, read_documents, telling
from configs.sections import TaskConfig
from configs.tree import ConfigError
from data.errors import DataError
from data.sample import Document, Sample, samples_of
from data.task import Request
from eval.parts import Pieces
from models.loading import load_tokenizer
from models.prompts import ChatFormat
from train.config import Config
from train.early_warning.documents import hold_back

PAID_BY_METRIC = ("accuracy", "length")
"""Weights of the reward that pay where an answer is scored: length counts where the answer is right."""

PAID_WITHOUT_METRIC = ("information", "task_information", "prior_rate", "readability", "token_information")
"""Weights of the reward that pay for a message whose answer no metric scores."""


def training_request(config: Config, task: TaskConfig) -> Request:
    """Which documents of a task training loads.

    Of the embedded suite, as many as the steps of a task or its warm start ask for, each with the questions that one
    step asks about it: a generated document costs nothing, so none has to serve twice.
    """
    pairs = -(-config.train.questions_read // len(config.tasks))
    together = config.train.questions_per_context
    asked = min(count for count in (together, task.questions_per_document, task.facts) if count)
    return Request(
        split=task.split,
        source=task.source,
        documents=task.documents or (-(-pairs // asked) if task.embedded else None),
        questions_per_document=task.questions_per_document or (together if task.embedded else None),
        facts=task.facts,
        seed=config.seed,
        variant=task.variant,
        context_tokens=task.context_tokens,
        columns=task.columns,
        metric=task.metric,
    )


class Questions(NamedTuple):
    """The documents of a run, each with its questions, as they are before the compressor cuts them to its window.

    Attributes:
        trained: those to train on.
        evaluated: those of the evaluations before and after.
        watched: those that early warning measures on; empty without it.
    """

    trained: list[Document]
    evaluated: list[Document]
    watched: list[Document]


def read_questions(config: Config, say: Callable[[str], None]) -> Questions:
    """The documents to train, to evaluate and to watch on.

    Args:
        config: the run's.
        say: takes what has to be said.

    Raises:
        ModelError: the compressor has no usable tokenizer, which counts the tokens of contexts.
        DataError: documents cannot be read, or there are too few questions for a step or documents to watch.
        ConfigError: no training question is scored by a metric, and the reward pays for nothing else, or the adapter is
            to be kept by what no metric gives.
    """
    chat = ChatFormat(load_tokenizer(config.compressor.model, config.compressor.revision))
    told = telling(config.compressor)
    documents = read_documents(config, chat, "train", training_request, say, told)
    evaluated = read_documents(config, chat, "evaluate", evaluation_request, say, told)
    watched: list[Document] = []
    if config.watch is not None:
        documents, watched = hold_back(config, config.watch, chat, documents, evaluated, say, told)
    # A document in parts is as many contexts.
    samples = Pieces.of(samples_of(documents)).samples
    check_count(config, samples)
    check_metrics(config, samples, say)
    tell_of_contexts(config, samples, say)
    return Questions(documents, evaluated, watched)


def check_count(config: Config, samples: Sequence[Sample]) -> None:
    """Refuse fewer questions than a step has contexts: TRL would drop the incomplete step, and train none.

    Raises:
        DataError: giving both numbers.
    """
    wanted = config.train.contexts_per_step
    if len(samples) < wanted:
        raise DataError(
            f"{len(samples)} training questions, fewer than train.contexts_per_step = {wanted}: "
            "choose fewer contexts a step, or more documents"
        )


def context_numbers(samples: Sequence[Sample]) -> list[int]:
    """For each question the number of its context: a document, or a part of one that is compressed by itself."""
    names = [(sample.document.task, sample.document.id) for sample in samples]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [numbers[name] for name in names]


def tell_of_contexts(config: Config, samples: Sequence[Sample], say: Callable[[str], None]) -> None:
    """Say how many contexts have fewer questions than a step is to ask about each."""
    together = config.train.questions_per_context
    asked = Counter(context_numbers(samples)).values()
    if fewer := sum(count < together for count in asked):
        mean = sum(min(count, together) for count in asked) / len(asked)
        say(
            f"{fewer} of {len(asked)} contexts have fewer than train.questions_per_context = {together} questions: "
            f"a step asks {mean:.1f} about each, on average"
        )


def check_metrics(config: Config, samples: Sequence[Sample], say: Callable[[str], None]) -> None:
    """Say which training questions no metric scores, as only a judge can, and refuse a reward that pays none of them.

    Raises:
        ConfigError: no question has a metric, and every weight or the update needs one.
    """
    unscored = [sample for sample in samples if not sample.question.scored]
    if not unscored:
        return
    count = f"{len(unscored)} of {len(samples)} training questions have no metric, as only a judge can score them"
    if config.train.update == "best_of_n":
        if len(unscored) == len(samples):
            raise ConfigError(
                f"train.update = best_of_n: learns from messages whose answers score above 0, and {count}; "
                "choose train.update = grpo"
            )
        say(f"{count}: nothing is learned from their messages (train.update = best_of_n)")
        return
    paid = [name for name in PAID_WITHOUT_METRIC if getattr(config.reward, name)]
    if not paid:
        weights = {name: getattr(config.reward, name) for name in PAID_BY_METRIC}
        given = ", ".join(f"reward.{name} = {weight}" for name, weight in weights.items() if weight)
        if len(unscored) == len(samples):
            raise ConfigError(f"{given}: pays for nothing here, for {count}; give reward.information a weight")
        say(f"{count}: their messages are paid nothing ({given})")
        return
    say(f"{count}: their accuracy is not scored, and their messages are paid for {' and '.join(paid)} alone")
