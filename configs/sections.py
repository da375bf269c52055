"""The sections that recipes share: models, tasks, negatives, the evaluation."""

import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    field_validator,
    model_validator,
)

from configs.errors import ConfigError, check_all, shown
from configs.limits import Columns, Documents, Seed, StepPart, Temperature, Tokens
from configs.servers import ServerConfig
from configs.tree import Section
from data.errors import did_you_mean
from data.registry import TASKS

TASK_NAMES = tuple(TASKS)

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=200)]
"""A name that is one folder on every file system."""

Dtype = Literal["float32", "bfloat16", "float16", "auto"]
"""A floating-point type of torch by name; auto is bfloat16 where the machine multiplies it in hardware."""


class ModelConfig(Section):
    """A language model and how to load it."""

    model: str
    """``miniature/<member>`` for an embedded model, else a folder, a model id on the hub (owner/name), or a GGUF file:
    ``path/to/model.gguf``, or ``package:file.gguf`` for one inside an installed Python package. A GGUF file is unpacked
    once, into ``$SHORTHAND_CACHE`` or else ``~/.cache/shorthand``."""

    revision: str | None = None
    """Branch, tag or commit on the hub; null takes the default branch."""

    dtype: Dtype = "float32"
    """Floating-point type of the model and its computation; auto takes bfloat16 on a GPU that supports it and on a CPU
    with AMX or AVX-512 BF16, elsewhere float32. A LoRA adapter's parameters and log-probabilities are float32."""


class WriterConfig(ModelConfig):
    """A language model that reads a context and writes a message, and the limits of both."""

    max_context_tokens: Tokens | None = None
    """Maximum tokens of a context; a longer one loses its middle, and is counted. null takes what the model's window
    has room for."""

    budget_tokens: Tokens = 64
    """Maximum tokens of a message, its end token included."""

    asked_budgets: Annotated[tuple[Tokens, ...], Field(strict=False)] = ()
    """Budgets that the compressor learns to keep to when its prompt asks for them, such as [8, 16, 32, 64], none above
    ``budget_tokens``: training draws one for every group of messages, cuts what is longer, and pays for length by it;
    ``budget_tokens`` is what is asked for elsewhere. Empty tells it none."""

    question: Literal["shown", "hidden", "several"] = "shown"
    """What the compressor is told: the question; none, so that one message has to serve all of the document's
    questions; or several at once, so that it has to serve these. In training a message is paid for the mean over the
    questions that it serves."""

    questions_together: StepPart = 4
    """Number of a document's questions that the compressor is told at once, where ``question`` is several."""


class PredictorConfig(ServerConfig, ModelConfig):
    """The frozen model that answers from the message alone."""

    endpoint: str | None = None
    """Address of an OpenAI-compatible server, ``http://.../v1``; null runs the predictor in this process."""

    tokenizer: str | None = None
    """Tokenizer of the model that the endpoint serves, named as a model is. Without it the log-probabilities of gold
    answers are missing."""

    max_answer_tokens: Tokens = 16
    """Maximum tokens of an answer."""

    adapter: str | None = None
    """A folder with an adapter of the predictor in PEFT's format, such as a run's ``predictor``; null is the model
    itself. A predictor on a server has its adapter there."""

    @model_validator(mode="after")
    def _adapter_is_local(self) -> Self:
        if self.adapter is not None and self.endpoint is not None:
            raise ValueError("adapter belongs to a predictor in this process, and endpoint names a server; drop one")
        return self


class ScorerConfig(Section):
    """The frozen model whose log-probabilities measure the information a message passes."""

    model: str | None = None
    """Model of the scorer, named as the compressor's is; null takes the compressor's base without its adapter, which
    costs no second model."""

    revision: str | None = None
    """Branch, tag or commit on the hub; null takes the default branch."""

    dtype: Dtype = "float32"
    """Floating-point type of the computation, auto as for the compressor. Unused where model is null."""


class TaskConfig(Section):
    """A task: documents with questions. In YAML the bare name will do."""

    name: str
    """Name of the task: a shape of the embedded suite (``miniature/notes``, ...) or a published task (``qasper``)."""

    source: str | None = None
    """File or folder of the documents in the task's published layout; null reads them from the hub. The embedded suite
    generates its documents and has no source."""

    split: str = "train"
    """Part of the source that is trained on."""

    eval_source: str | None = None
    """File or folder that the evaluation reads; null takes ``source``."""

    eval_split: str = "test"
    """Part of the source that is evaluated on."""

    documents: Documents | None = None
    """Number of documents to train on; null takes all of a published task, and of the embedded suite as many as the
    steps ask for."""

    questions_per_document: Documents | None = None
    """Number of questions asked of each training document; null asks all of a published task, and one of each document
    of the embedded suite."""

    variant: str | None = None
    """Protocol of a task that has several (LongHealth's 1, 2, 3; how FinanceBench's contexts are cut); null takes the
    first."""

    context_tokens: Tokens | None = None
    """Length, in tokens, of contexts that a task puts together from parts; null takes the task's default."""

    facts: Documents | None = None
    """Number of facts in a generated document, which sets its length; null takes the suite's default. Embedded suite
    only."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Names of fields in the source, where they are not those of a record: ``{context: passage, answers: reply}``. Task
    ``records`` only."""

    metric: str | None = None
    """Metric that scores answers (qasper_f1, exact, contains, numeric, multiple_choice); null takes multiple_choice
    where a record has options, else qasper_f1. Task ``records`` only."""

    instruction: str | None = None
    """Text that tells the compressor what to write; null takes the task's own."""

    answer_instruction: str | None = None
    """Text that tells the predictor how to answer; null takes the task's own."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASK_NAMES:
            raise ValueError(f"no such task{did_you_mean(name, TASK_NAMES)}; there are {', '.join(TASK_NAMES)}")
        return name

    @property
    def embedded(self) -> bool:
        """Whether the documents are generated instead of read."""
        return TASKS[self.name].generated


def _bare_names_as_sections(tasks: Any) -> Any:
    if not isinstance(tasks, list | tuple):
        return tasks
    return [{"name": task} if isinstance(task, str) else task for task in tasks]


Tasks = Annotated[tuple[TaskConfig, ...], BeforeValidator(_bare_names_as_sections), Field(strict=False, min_length=1)]
"""At least one task; a bare name in the list is a task of that name with defaults."""


class NegativesConfig(Section):
    """How many contexts of each kind a message is compared with beside its own; fewer where there are not so many."""

    counterfactual: Columns = 3
    """Copies of the document with only the answer-bearing facts changed; the embedded suite makes them."""

    same_document: Columns = 0
    """Copies of the document with a part removed: the evidence where it is known, else a random quarter."""

    twins: Columns = 0
    """Copies of the document about the question: the evidence removed, or replaced by another document's, or a name, a
    number or a date in it exchanged for another of its type. Made by rules for any task."""

    neighbour: Columns = 0
    """Other documents of the same patient, company, paper or user."""

    batch: Columns = 4
    """Other contexts of the same training step; in the evaluation, other documents of the task."""


class InformationConfig(Section):
    """How I(X;Z given Q), the information passed, is estimated."""

    estimator: Literal["contrastive"] = "contrastive"
    """Estimator of the information: the contrastive lower bound, whose ceiling is log N for N contexts. The
    leave-one-out upper bound is reported beside it."""

    negatives: NegativesConfig = NegativesConfig()
    """Contexts that a message has to tell its own context from."""

    evidence: Literal["in_place", "last"] = "in_place"
    """Where the scorer reads the sentences that the answer rests on: where each document has them, or after the rest of
    it, in the own context and in all negatives alike. Last, a twin costs the scorer these sentences instead of all that
    follows them. Counterfactual versions are made in place, and go with that alone."""

    context_words: Annotated[int, Field(ge=1)] | None = None
    """Words of each document that the scorer reads before evidence that it reads last, those around the evidence in the
    document; null takes all. For long documents, and for those that fill ``max_context_tokens``: a context that is cut
    there shares only what stands before its middle."""

    twins_per_step: Annotated[int, Field(ge=1)] | None = None
    """Number of ``negatives.twins`` that a training step compares with, others in every step; null takes all. The
    evaluation takes all."""


class EvalConfig(Section):
    """How held-out documents are evaluated."""

    documents: Documents | None = 20
    """Number of documents of each task; null takes all of a published split."""

    questions_per_document: Documents | None = 4
    """Number of questions asked of each document; null asks all."""

    information_questions: NonNegativeInt | None = None
    """Number of questions of each task whose messages' information is measured, drawn by the seed; null measures all.
    Scoring a message under all of its contexts may cost ten times what writing and answering do."""

    batch_size: StepPart = 16
    """Number of questions evaluated together."""

    temperature: Temperature = 1.0
    """Temperature of the evaluated messages: 1 samples them as training does, 0 takes the most likely tokens."""

    greedy: bool = False
    """Whether the most likely messages are evaluated as well, beside the sampled ones; doubles the time."""


class TrackingConfig(Section):
    """Where metrics go, beside the run folder."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """Mode of Weights & Biases: offline writes its files into the run folder and needs no account."""

    project: str = "shorthand"
    """Project in Weights & Biases."""

    show_messages_every: NonNegativeInt = 10
    """Steps of training after which messages are shown on the console and in Weights & Biases; 0 shows none. All are in
    ``messages.jsonl`` of the run folder."""


class Recipe(Section):
    """What training and evaluation have in common."""

    name: RunName
    """Name of the run; a file without one gives its own name."""

    run_folder: str = "runs/{name}"
    """Folder that the run writes to; ``{name}`` stands for the name."""

    seed: Seed = 0
    """Seed of everything that is drawn: the same seed repeats the run."""

    predictor: PredictorConfig
    """The model that answers from messages."""

    scorer: ScorerConfig = ScorerConfig()
    """The model that measures information."""

    tasks: Tasks
    """Tasks that are trained and evaluated on, in equal parts."""

    information: InformationConfig = InformationConfig()
    """How information is measured."""

    eval: EvalConfig = EvalConfig()
    """How held-out documents are evaluated."""

    tracking: TrackingConfig = TrackingConfig()
    """Where metrics go, beside the run folder."""

    @field_validator("run_folder")
    @classmethod
    def _only_the_name_is_filled_in(cls, template: str) -> str:
        if not template or re.search(r"[{}]", template.replace("{name}", "")):
            raise ValueError("should be a folder, in which {name} alone is filled in")
        if not template.isprintable():
            raise ValueError("should be a folder whose name has no control characters")
        return template

    @model_validator(mode="after")
    def _tasks_and_negatives_fit(self) -> Self:
        tasks = [partial(_check_task, f"tasks.{number}", task) for number, task in enumerate(self.tasks)]
        check_all(partial(_check_names, self.tasks), *tasks, partial(_check_negatives, self))
        return self

    @property
    def folder(self) -> Path:
        """The run folder, the name filled in, and ``~`` as the user's home."""
        return Path(os.path.expanduser(self.run_folder.replace("{name}", self.name)))


def _check_names(tasks: Sequence[TaskConfig]) -> None:
    names = [task.name for task in tasks]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(f"tasks.{number}.name = {name!r}: is there twice, and results go by name; keep one")


def _check_task(key: str, task: TaskConfig) -> None:
    if task.embedded and (task.source or task.eval_source):
        given = "source" if task.source else "eval_source"
        value = shown(getattr(task, given))
        raise ConfigError(f"{key}.{given} = {value}: {task.name} is generated and reads nothing; leave it out")
    if not task.embedded and task.facts:
        raise ConfigError(f"{key}.facts = {task.facts}: sets the length of generated documents; leave it out")
    variants = TASKS[task.name].variants
    if task.variant is not None and task.variant not in variants:
        remedy = f"there are {', '.join(variants)}" if variants else "leave it out"
        raise ConfigError(f"{key}.variant = {shown(task.variant)}: {task.name} has no such protocol; {remedy}")


def _check_negatives(recipe: Recipe) -> None:
    negatives = recipe.information.negatives
    if not any(negatives.model_dump().values()):
        raise ConfigError(
            f"information.negatives = {negatives.model_dump()}: "
            "the contrastive bound is 0 for every message without negatives; ask for at least one"
        )
    _check_scoring(recipe.information)
    published = [task.name for task in recipe.tasks if not task.embedded]
    if published and not negatives.same_document + negatives.batch + negatives.twins:
        raise ConfigError(
            f"information.negatives = {negatives.model_dump()}: {published[0]} has no counterfactual versions and not "
            "every document has a neighbour; ask for twins, same_document or batch"
        )


def _check_scoring(information: InformationConfig) -> None:
    negatives, step = information.negatives, information.twins_per_step
    if information.evidence == "last" and negatives.counterfactual:
        raise ConfigError(
            f"information.evidence = 'last': the {negatives.counterfactual} counterfactual versions of "
            "information.negatives have their evidence in place, by which they would be told from the rest; set "
            "information.negatives.counterfactual to 0, or take in_place"
        )
    if information.context_words is not None and information.evidence != "last":
        raise ConfigError(
            f"information.context_words = {information.context_words}: documents are cut around evidence that is "
            "read last alone; set information.evidence to last, or drop this"
        )
    if step is not None and step > negatives.twins:
        raise ConfigError(
            f"information.twins_per_step = {step}: there are information.negatives.twins = {negatives.twins} to draw "
            "them from; choose no more, or null"
        )
