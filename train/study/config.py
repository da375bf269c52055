"""The configuration of a study: seeds and variants of a recipe, what they start from, and what they are measured on."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import Field, StringConstraints, model_validator

from configs.checks import check_sources
from configs.errors import ConfigError, check_all, shown
from configs.limits import Seed
from configs.sections import PredictorConfig, Recipe, RunName
from configs.tree import Section, load, parse
from eval.config import BaselineConfig, EvaluatedConfig, EvaluationConfig
from train.config import Config

WARM_START, STARTING_ADAPTER, UNTRAINED = "warm-start", "starting-adapter", "untrained"
"""What results call where training starts, by what that is; and the model without an adapter."""

Settings = dict[str, Any]
"""Overrides by their dotted keys, as on the command line: ``{reward.information: 0}``."""

SetName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$", max_length=200)
]
"""A name that is a path of folders on every file system."""


class StudyConfig(Section):
    """Everything a study depends on."""

    name: RunName
    """Name of the study; a file without one gives its own name."""

    run_folder: Annotated[str, Field(min_length=1)] = "runs/{name}"
    """Folder that the study writes to, the run folders of its members below; ``{name}`` stands for the name."""

    pages: str | None = None
    """Folder of ``results.json``, of the page of tables ``results.md``, and of ``members/``, the figures of every
    evaluation as small files; null takes the study's own."""

    recipe: str
    """Recipe of the training runs, a file as given or in ``configs/``. The evaluations take their models, tasks and
    negatives from it."""

    settings: Settings = Field(default_factory=dict)
    """Overrides of the recipe, for trainings and evaluations alike: dotted keys as on the command line, where the value
    of a section takes the place of the whole section."""

    training: Settings = Field(
        default_factory=lambda: {"eval.documents": 2, "eval.questions_per_document": 2, "eval.greedy": False}
    )
    """Further overrides for the training runs. What a run measures of itself is not read here, so by default that is
    little."""

    warm_start: Settings | None = Field(default_factory=lambda: {"train.steps": 0})
    """Further overrides for the run that makes the warm start, once for all seeds and variants; null has none, so that
    they start as the recipe says."""

    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)] = (0, 1, 2)
    """Seeds of the training runs; the evaluations have the recipe's, and so the same questions."""

    variants: Annotated[dict[RunName, Settings | None], Field(min_length=1)]
    """Overrides of the training run of each variant, by its name; null has none. The others are compared with the
    first."""

    evaluation: Settings = Field(default_factory=dict)
    """Overrides of the evaluations on all sets: ``{eval.temperature: 0, baselines: [...]}``. Baselines are measured
    once a set, beside what training starts from."""

    sets: Annotated[dict[SetName, Settings | None], Field(min_length=1)]
    """Sets of questions that every adapter is measured on, by name: overrides of the evaluation on each, such as
    ``{tasks.0.eval_source: squad/dev.json}``."""

    articles: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Sets whose documents are parts of an article, a meeting or a friendship, by their ids up to a last ``-NN``:
    intervals resample these. In the other sets they resample documents."""

    transfer: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """Sets that the first variant alone is measured on, beside what training starts from: those that nothing was
    trained on, where ablations would cost much and say little."""

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        check_all(partial(_check_names, self), partial(self.recipe_with, "recipe"))
        check_all(
            *([] if self.warm_start is None else [self.warmed]),
            *(partial(self.trained, variant, self.seeds[0]) for variant in self.variants),
        )
        check_all(*(partial(_check_set, self, name) for name in self.sets))
        return self

    @property
    def folder(self) -> Path:
        """The study's folder, the name filled in, and ``~`` as the user's home."""
        return Path(os.path.expanduser(self.run_folder.replace("{name}", self.name)))

    @property
    def pages_folder(self) -> Path:
        """The folder of results, page and members."""
        return self.folder if self.pages is None else Path(os.path.expanduser(self.pages))

    def measured_on(self, name: str) -> tuple[str, ...]:
        """The variants that are measured on a set."""
        return tuple(self.variants)[:1] if name in self.transfer else tuple(self.variants)

    @property
    def start(self) -> str:
        """What results call the compressor that training starts from."""
        if self.warm_start is not None:
            return WARM_START
        return UNTRAINED if self.recipe_with("recipe").compressor.adapter is None else STARTING_ADAPTER

    def recipe_with(self, key: str, *settings: Settings | None) -> Config:
        """The recipe with the study's settings and further ones.

        Args:
            key: the key of the further settings, for messages.
            settings: each overrides what stands before it.

        Raises:
            ConfigError: the recipe with these settings cannot be run.
        """
        given = [line for part in (self.settings, *settings) for line in overrides(part)]
        return _named(key, lambda: load(Config, self.recipe, given))

    def warmed(self) -> Config:
        """The run that makes the warm start."""
        return self.recipe_with("warm_start", self.training, self.warm_start, self._place("train", WARM_START))

    def trained(self, variant: str, seed: int) -> Config:
        """A training run, but for the adapters of the warm start."""
        start = {} if self.warm_start is None else {"train.warm_start": None, "train.predictor_warm_start": None}
        place = self._place("train", variant, str(seed))
        return self.recipe_with(
            f"variants.{variant}", self.training, start, {"seed": seed}, self.variants[variant], place
        )

    def measured(self, name: str, variant: str, seed: int) -> EvaluationConfig:
        """The evaluation of a variant, or of what training starts from, on a set, but for the adapters.

        Raises:
            ConfigError: the settings of the set cannot be run.
        """
        started = variant == self.start
        compressor = (self.recipe_with("recipe") if started else self.trained(variant, seed)).compressor
        recipe = self.recipe_with("recipe").model_dump(mode="json", exclude_unset=True)
        tree = {key: value for key, value in recipe.items() if key in Recipe.model_fields}
        # What the recipe asks for beyond an evaluation's own keys belongs to training.
        tree["predictor"] = _shared(recipe["predictor"], PredictorConfig)
        tree["compressor"] = _shared(compressor.model_dump(mode="json", exclude_unset=True), EvaluatedConfig)
        tree["eval"] = {**tree.get("eval", {}), "greedy": False}
        own = {} if started else {"alone": True, "baselines": []}
        settings = (self.evaluation, self.sets[name], own, self._place("evaluate", name, variant, str(seed)))
        given = [line for part in settings for line in overrides(part)]
        config = _named(f"sets.{name}", lambda: parse(EvaluationConfig, tree, given))
        if started and config.reference is None and any(_is_reference(config, one) for one in config.baselines):
            return config.model_copy(update={"alone": True})
        return config

    def _place(self, *parts: str) -> Settings:
        """Name and folder of a member of the study."""
        return {
            "name": "-".join([self.name, *parts[1:]]).replace("/", "-"),
            "run_folder": str(self.folder.joinpath(*parts)),
        }


def load_config(path: str, changes: Sequence[str] = ()) -> StudyConfig:
    """The configuration in a YAML file, changed by overrides, and checked: see `configs.tree.load`.

    Raises:
        ConfigError: the file, a key, a value, a combination of values or the recipe is wrong.
    """
    return load(StudyConfig, path, changes)


def check_files(config: StudyConfig) -> None:
    """Refuse sources that are not on the disk; nothing of the kind is needed to write results of what is done.

    Raises:
        ConfigError: naming each of them.
    """
    sources = {"recipe": config.recipe_with("recipe").tasks}
    sources |= {f"sets.{name}": config.measured(name, config.start, 0).tasks for name in config.sets}
    check_all(*(partial(_named, key, partial(check_sources, tasks)) for key, tasks in sources.items()))


def overrides(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as a command line has them; JSON is YAML on one line."""
    return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]


def _shared(tree: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key in section.model_fields}


def _is_reference(config: EvaluationConfig, baseline: BaselineConfig) -> bool:
    """Whether a baseline holds the very messages that the reference, the model without an adapter, would write."""
    greedy, whole = config.eval.temperature == 0, baseline.budgets is None or "compressor" in baseline.budgets
    return baseline.name == "untrained" and whole and (baseline.decoding == "greedy") == greedy


def _named(key: str, make: Callable[[], Any]) -> Any:
    """What ``make`` gives; its refusal begins with the key of the study that it comes from."""
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(*(f"{key}: {mistake}" for mistake in error.mistakes)) from None


def _check_names(config: StudyConfig) -> None:
    taken = {WARM_START, STARTING_ADAPTER, UNTRAINED, *get_args(BaselineConfig.model_fields["name"].annotation)}
    for name in config.variants:
        if name in taken:
            raise ConfigError(f"variants.{name}: results have another line of that name; choose another name")
    for key, values in (("seeds", config.seeds), ("articles", config.articles), ("transfer", config.transfer)):
        if len(set(values)) < len(values):
            raise ConfigError(f"{key} = {list(values)}: has the same twice; keep one")
    for key, names in (("articles", config.articles), ("transfer", config.transfer)):
        for name in names:
            if name not in config.sets:
                raise ConfigError(f"{key} = {shown(name)}: is no set; there are {', '.join(config.sets)}")


def _check_set(config: StudyConfig, name: str) -> None:
    evaluation = config.measured(name, config.start, 0)
    if evaluation.eval.greedy:
        raise ConfigError(
            f"sets.{name}: eval.greedy = true: a set has one temperature; give eval.temperature = 0 for greedy messages"
        )
    for key in {**config.evaluation, **(config.sets[name] or {})}:
        if key.partition(".")[0] in ("alone", "reference"):
            raise ConfigError(f"sets.{name}: {key}: what is held against what, a study says by itself; leave it out")
