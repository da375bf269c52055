"""The configuration of a sweep: which compressors meet which predictors, on what, and what measures information."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from configs.as_trained import as_trained, told_as_trained
from configs.checks import check_adapter, check_model, check_sources
from configs.errors import ConfigError, check_all
from configs.sections import (
    EvalConfig,
    InformationConfig,
    ModelConfig,
    PredictorConfig,
    RunName,
    ScorerConfig,
    TaskConfig,
    Tasks,
)
from configs.tree import Section, load, refusal
from eval.config import EvaluatedConfig, EvaluationConfig, JudgeConfig, check_compressor

Name = Annotated[str, Field(min_length=1)]


class SweptCompressor(EvaluatedConfig):
    """A compressor of the grid."""

    name: Name | None = None
    """What tables and figures call it; null is the last part of ``model``."""

    family: Name
    """Models of one family differ in size alone, as far as the sweep is concerned."""

    @property
    def called(self) -> str:
        """Its name, unique among the compressors."""
        return self.name or _last_part(self.model)


class SweptPredictor(PredictorConfig):
    """A predictor of the grid."""

    name: Name | None = None
    """What tables and figures call it; null is the last part of ``model``."""

    family: Name
    """Models of one family differ in size alone, as far as the sweep is concerned."""

    parameters: PositiveInt | None = None
    """Number of parameters of a model on a server; null leaves it out of what depends on size."""

    @property
    def called(self) -> str:
        """Its name, unique among the predictors."""
        return self.name or _last_part(self.model)


class SweptScorer(ModelConfig):
    """The frozen model that measures the information every compressor passes; the same for all, or nothing compares."""


class SweepConfig(Section):
    """Everything a sweep depends on."""

    name: RunName
    """Names the sweep; where the file has none, the file's own name."""

    run_folder: str = "runs/{name}"
    """Where the sweep writes; ``{name}`` stands for the name."""

    seed: NonNegativeInt = 0
    """Draws documents and negatives: the same for the whole grid."""

    seeds: Annotated[tuple[NonNegativeInt, ...], Field(strict=False, min_length=1)] = (0,)
    """Each samples every message once; the study has five."""

    compressors: Annotated[tuple[SweptCompressor, ...], Field(strict=False, min_length=1)]
    """What writes messages."""

    sentences: Annotated[tuple[PositiveInt | None, ...], Field(strict=False, min_length=1)] = (None,)
    """Exact numbers of sentences every compressor is asked for, as an axis of the grid; null asks for none."""

    predictors: Annotated[tuple[SweptPredictor, ...], Field(strict=False, min_length=1)]
    """What answers from them."""

    control: Name | None = None
    """Name of a model that the largest is known to beat: a sweep that does not show that can show nothing else either.
    It is left out of what scaling brings. null has no such control."""

    scorer: SweptScorer
    """Measures the information of every message."""

    second_scorer: SweptScorer | None = None
    """Measures it again: what only one of them sees is no information."""

    tasks: Tasks
    """What is asked."""

    information: InformationConfig = InformationConfig()
    """How information is measured."""

    eval: EvalConfig = EvalConfig()
    """How many documents and questions, and the temperature of the messages."""

    judge: JudgeConfig | None = None
    """Grades the answers that no metric can; null leaves their accuracy missing, and counts them."""

    @model_validator(mode="after")
    def _grid_fits(self) -> Self:
        _check_distinct(self)
        _check_messages(self)
        try:
            self.recipe()
        except ValidationError as error:
            raise refusal(error, EvaluationConfig) from None
        return self

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.recipe().folder

    @property
    def measured(self) -> list[SweptCompressor]:
        """Every compressor at every number of sentences, under a name that says so."""
        return [_asked(one, count) for count in self.sentences for one in self.compressors]

    def recipe(self) -> EvaluationConfig:
        """The evaluation of its first compressor with its first predictor: what documents are drawn by."""
        first = self.compressors[0].model_dump(exclude={"name", "family"})
        predictor = self.predictors[0].model_dump(exclude={"name", "family", "parameters"})
        return EvaluationConfig(
            name=self.name,
            run_folder=self.run_folder,
            seed=self.seed,
            compressor=EvaluatedConfig(**first),
            predictor=PredictorConfig(**predictor),
            scorer=ScorerConfig(**self.scorer.model_dump()),
            tasks=self.tasks,
            information=self.information,
            eval=self.eval,
            judge=self.judge,
        )


def load_config(path: str, overrides: Sequence[str] = ()) -> SweepConfig:
    """The configuration in a YAML file, changed by overrides, and checked: see `configs.tree.load`.

    Raises:
        ConfigError: the file, a key, a value, a combination of values, or a path they name is wrong.
    """
    config = load(SweepConfig, path, overrides)
    compressors = (
        as_trained(f"compressors.{number}", one, one.adapter) for number, one in enumerate(config.compressors)
    )
    config = config.model_copy(update={"compressors": tuple(compressors), "tasks": _told_as_trained(config)})
    check_all(*(partial(_check_shown, number, one) for number, one in enumerate(config.compressors)))
    check_all(*_file_checks(config))
    return config


def _told_as_trained(config: SweepConfig) -> tuple[TaskConfig, ...]:
    """The tasks with the instruction that the adapters were trained with, where their own is left out.

    Raises:
        ConfigError: adapters were trained with different ones, and the tasks leave open which it is to be.
    """
    told = [
        (f"compressors.{number}", told_as_trained(f"compressors.{number}", config.tasks, one.adapter))
        for number, one in enumerate(config.compressors)
        if one.adapter is not None
    ]
    for key, tasks in told[1:]:
        if tasks != told[0][1]:
            raise ConfigError(
                f"{key}.adapter: was trained with another instruction than that of {told[0][0]}, and a sweep tells all "
                "the same; give tasks.0.instruction"
            )
    return told[0][1] if told else config.tasks


def _check_shown(number: int, compressor: SweptCompressor) -> None:
    if compressor.question != "shown":
        raise ConfigError(
            f"compressors.{number}.question = {compressor.question}: a sweep tells every compressor the question; "
            "measure this one with eval.run"
        )


def _file_checks(config: SweepConfig) -> Iterator[Callable[[], None]]:
    """Checks of models, windows, adapters and sources, which take a look at the disk; each raises `ConfigError`."""
    budget = max(one.budget_tokens for one in config.compressors)
    for number, one in enumerate(config.compressors):
        yield partial(check_compressor, f"compressors.{number}", one)
    for number, one in enumerate(config.predictors):
        if one.adapter is not None:
            yield partial(check_adapter, f"predictors.{number}.adapter", one.adapter)
        if one.endpoint is None:
            named = f"the largest budget_tokens = {budget} and predictors.{number}.max_answer_tokens"
            tokens = budget + one.max_answer_tokens
            reason = f"{named} = {one.max_answer_tokens}"
            yield partial(check_model, f"predictors.{number}.model", one.model, tokens, reason)
    for key, scorer in (("scorer", config.scorer), ("second_scorer", config.second_scorer)):
        if scorer is not None:
            yield partial(check_model, f"{key}.model", scorer.model, budget, f"the largest budget_tokens = {budget}")
    yield partial(check_sources, config.tasks)


def _check_distinct(config: SweepConfig) -> None:
    for key, ones in (("compressors", config.compressors), ("predictors", config.predictors)):
        names = [one.called for one in ones]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ValueError(
                    f"{key}.{number}.name = {name!r}: is there twice, and results go by name; give another"
                )
    compressors = [one.called for one in config.compressors]
    if config.control is not None and config.control not in compressors:
        raise ValueError(f"control = {config.control!r}: is no compressor; there are {', '.join(compressors)}")
    for key, names in (("compressors", compressors), ("predictors", [one.called for one in config.predictors])):
        if names == [config.control]:
            raise ValueError(f"control = {config.control!r}: is all there is of {key}; give others to compare")
    for number, one in enumerate(config.predictors):
        if one.parameters is not None and one.endpoint is None:
            raise ValueError(
                f"predictors.{number}.parameters = {one.parameters}: counted in a local model; leave it out"
            )
    for key in ("seeds", "sentences"):
        values = list(getattr(config, key))
        if len(set(values)) < len(values):
            raise ValueError(f"{key} = {values}: the same value twice measures the same messages twice; keep one")


def _check_messages(config: SweepConfig) -> None:
    if config.eval.temperature == 0 and len(config.seeds) > 1:
        raise ValueError(
            f"seeds = {list(config.seeds)}: at eval.temperature = 0 every seed writes the same messages; keep one"
        )
    if config.eval.greedy:
        raise ValueError(
            "eval.greedy = true: a sweep has one temperature; set eval.temperature = 0 for greedy messages"
        )
    if config.eval.information_questions is not None:
        raise ValueError(
            f"eval.information_questions = {config.eval.information_questions}: a sweep measures the information of "
            "every message; leave it out"
        )
    for number, one in enumerate(config.compressors):
        if one.sentences is not None and config.sentences != (None,):
            raise ValueError(
                f"compressors.{number}.sentences = {one.sentences}: the axis sentences = {list(config.sentences)} "
                "asks every compressor for its numbers; keep one of the two"
            )


def _asked(compressor: SweptCompressor, sentences: int | None) -> SweptCompressor:
    if sentences is None:
        return compressor
    return compressor.model_copy(update={"name": f"{compressor.called}, {sentences} sentences", "sentences": sentences})


def _last_part(model: str) -> str:
    return model.rstrip("/").rpartition("/")[2]
