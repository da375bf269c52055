"""The sections that recipes share: models, tasks, negatives, the evaluation."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, field_validator, model_validator

from configs.tree import ConfigError, Section, did_you_mean, is_list
from data.miniature.documents import SHAPES
from data.registry import TASKS
from models.loading import MINIATURE_WEIGHTS

TASK_NAMES = tuple(TASKS)


class ModelConfig(Section):
    """A language model and how to load it."""

    model: str
    """``miniature/<member>`` for an embedded model, else a folder or a model id on the hub."""

    revision: str | None = None
    """Branch, tag or commit on the hub; null takes the default branch."""

    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """The type to compute in; auto is the one the weights are stored in."""


class PredictorConfig(ModelConfig):
    """The model that answers from the message alone; frozen."""

    endpoint: str | None = None
    """Address of an OpenAI-compatible server, ``http://.../v1``; null answers in this process."""

    tokenizer: str | None = None
    """Of the model behind the endpoint, as for ``model``: needed for the log-probabilities of gold answers."""

    api_key_variable: str | None = None
    """The environment variable that holds the server's key, where it asks for one."""

    max_answer_tokens: PositiveInt = 16
    """The most tokens an answer may have."""


class ScorerConfig(Section):
    """The frozen model whose log-probabilities measure the information a message passes."""

    model: str | None = None
    """As for the compressor; null takes the compressor's base without its adapter, which costs no second model."""

    revision: str | None = None
    """Branch, tag or commit on the hub; null takes the default branch."""

    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """The type to compute in; auto is the one the weights are stored in. Unused where model is null."""


class TaskConfig(Section):
    """Documents with questions; in YAML the bare name will do."""

    name: str
    """A shape of the embedded suite (``miniature/notes``, ...), or a published task (``qasper``)."""

    source: str | None = None
    """A local file or folder in the task's published layout; null takes the hub. The embedded suite has none."""

    split: str = "train"
    """The part of the source to train on."""

    eval_source: str | None = None
    """Where the evaluation reads; null is the same source."""

    eval_split: str = "test"
    """The part of the source to evaluate on."""

    documents: PositiveInt | None = None
    """Documents to train on; null takes all, and of the embedded suite as many as the steps ask for."""

    questions_per_document: PositiveInt | None = None
    """Questions asked of each training document; null asks all."""

    variant: str | None = None
    """The protocol, of a task that has several (LongHealth's 1, 2, 3; how FinanceBench's contexts are cut); null takes
    the first."""

    context_tokens: PositiveInt | None = None
    """How long contexts are made that a task puts together from parts; null takes the task's default."""

    facts: PositiveInt | None = None
    """Facts a generated document holds, which sets its length; null is the suite's default. Embedded suite only."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASK_NAMES:
            raise ValueError(f"no such task{did_you_mean(name, TASK_NAMES)}; there are {', '.join(TASK_NAMES)}")
        return name

    @property
    def embedded(self) -> bool:
        """Whether the documents are generated instead of read."""
        return self.name in SHAPES


class NegativesConfig(Section):
    """How many contexts of each kind a message is compared with beside its own, where there are as many."""

    counterfactual: NonNegativeInt = 3
    """The same document with only the answer-bearing facts changed; the embedded suite makes them."""

    same_document: NonNegativeInt = 0
    """The same document with a part removed: the evidence where it is known, else a random quarter."""

    neighbour: NonNegativeInt = 0
    """Other documents of the same patient, company, paper or user."""

    batch: NonNegativeInt = 4
    """Other contexts of the same step; in the evaluation other documents of the task."""


class InformationConfig(Section):
    """The estimate of I(X;Z given Q), the information passed."""

    estimator: Literal["contrastive"] = "contrastive"
    """A lower bound with the ceiling log N; the leave-one-out upper bound is reported beside it."""

    negatives: NegativesConfig = NegativesConfig()
    """What the own context is told from."""


class EvalConfig(Section):
    """The evaluation on held-out documents, before and after training."""

    documents: PositiveInt | None = 20
    """Documents of each task; null takes all of a published split."""

    questions_per_document: PositiveInt | None = 4
    """Questions asked of each document; null asks all."""

    batch_size: PositiveInt = 16
    """Questions evaluated together."""

    temperature: NonNegativeFloat = 1.0
    """Of the evaluated messages: 1 samples what was trained, 0 takes the most likely tokens."""

    greedy: bool = False
    """Evaluate the most likely messages as well, beside those sampled: each stage once more, in the same time."""


class TrackingConfig(Section):
    """Where metrics go beside the run folder."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """offline writes W&B's files into the run folder and needs no account."""

    project: str = "shorthand"
    """The project in W&B."""


class Recipe(Section):
    """What training and evaluation have in common."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """Names the run; where the file has none, the file's own name."""

    run_folder: str = "runs/{name}"
    """Where the run writes; ``{name}`` stands for the name."""

    seed: NonNegativeInt = 0
    """The same seed repeats the run."""

    predictor: PredictorConfig
    """The model that answers from messages."""

    scorer: ScorerConfig = ScorerConfig()
    """The model that measures information."""

    tasks: Annotated[tuple[TaskConfig, ...], Field(strict=False, min_length=1)]
    """What is trained and evaluated on, in equal parts."""

    information: InformationConfig = InformationConfig()
    """How information is measured."""

    eval: EvalConfig = EvalConfig()
    """Evaluation."""

    tracking: TrackingConfig = TrackingConfig()
    """Logging."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _bare_names(cls, tasks: Any) -> Any:
        return [{"name": task} if isinstance(task, str) else task for task in tasks] if is_list(tasks) else tasks

    @field_validator("run_folder")
    @classmethod
    def _only_the_name_is_filled_in(cls, template: str) -> str:
        if not template or re.search(r"[{}]", template.replace("{name}", "")):
            raise ValueError("should be a folder, in which {name} alone is filled in")
        return template

    @model_validator(mode="after")
    def _tasks_and_negatives_fit(self) -> Self:
        _check_tasks(self.tasks)
        _check_negatives(self)
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.run_folder.replace("{name}", self.name))


def _check_tasks(tasks: Sequence[TaskConfig]) -> None:
    names = [task.name for task in tasks]
    for number, task in enumerate(tasks):
        key = f"tasks.{number}"
        if task.name in names[:number]:
            raise ValueError(f"{key}.name = {task.name!r}: is there twice, and results go by name; keep one")
        if task.embedded and (task.source or task.eval_source):
            given = "source" if task.source else "eval_source"
            value = getattr(task, given)
            raise ValueError(f"{key}.{given} = {value!r}: {task.name} is generated and reads nothing; leave it out")
        if not task.embedded and task.facts:
            raise ValueError(f"{key}.facts = {task.facts}: sets the length of generated documents; leave it out")
        variants = TASKS[task.name].variants
        if task.variant is not None and task.variant not in variants:
            there = f"there are {', '.join(variants)}" if variants else "leave it out"
            raise ValueError(f"{key}.variant = {task.variant!r}: {task.name} has no such protocol; {there}")


def _check_negatives(recipe: Recipe) -> None:
    negatives = recipe.information.negatives
    if not any(negatives.model_dump().values()):
        raise ValueError(
            f"information.negatives = {negatives.model_dump()}: "
            "the contrastive bound is 0 for every message without negatives; ask for at least one"
        )
    made = [task.name for task in recipe.tasks if not task.embedded]
    if made and not negatives.same_document + negatives.batch:
        raise ValueError(
            f"information.negatives = {negatives.model_dump()}: {made[0]} has no counterfactual versions and not every "
            "document has a neighbour; ask for same_document or batch"
        )


def check_sources(tasks: Sequence[TaskConfig]) -> None:
    """Refuse sources that are not on the disk.

    Raises:
        ConfigError: naming the first one.
    """
    for number, task in enumerate(tasks):
        for key, source in (("source", task.source), ("eval_source", task.eval_source)):
            if source is not None and not Path(source).expanduser().exists():
                raise ConfigError(f"tasks.{number}.{key} = {source!r}: no such file or folder")


def check_model(key: str, model: str, tokens: int, named: str) -> None:
    """Refuse a model that is not there, or whose window is too small for ``tokens``, the sum of what ``named`` says."""
    folder = _model_folder(key, model)
    if folder is None:
        return
    try:
        window = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("max_position_embeddings")
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{key} = {model!r}: the folder has no readable config.json ({error})") from None
    if isinstance(window, int) and tokens >= window:
        raise ConfigError(
            f"{named}: {tokens} tokens leave no room in the window of {window} of {key} = {model!r}; choose fewer"
        )


def _model_folder(key: str, model: str) -> Path | None:
    """The folder of an embedded or local model, None for a model on the hub."""
    if model.startswith("miniature/"):
        members = sorted(f"miniature/{file.parent.name}" for file in MINIATURE_WEIGHTS.glob("*/config.json"))
        if model not in members:
            family = ", ".join(members) or "none"
            hint = did_you_mean(model, members)
            raise ConfigError(f"{key} = {model!r}: no such embedded model{hint}; there are {family}")
        return MINIATURE_WEIGHTS / model.removeprefix("miniature/")
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    hub_id = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model)
    if hub_id is None or (len(folder.parts) > 1 and folder.parent.is_dir()):
        raise ConfigError(f"{key} = {model!r}: no such folder, and not a model id on the hub (owner/name)")
    return None
