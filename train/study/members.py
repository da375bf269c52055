"""The members of a study: the runs it consists of, in the order they are done, and which needs which."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from configs.errors import ConfigError, shown
from eval.config import EvaluationConfig
from train.config import Config
from train.study.config import WARM_START, StudyConfig
from train.study.identity import Depends, depends_on


@dataclass(frozen=True)
class Member:
    """A run of a study: the warm start, a training, or an evaluation of one adapter on one set.

    Attributes:
        variant: the name of the variant, or of what training starts from.
        seed: of the training; 0 for what there is one of.
        set_name: the set of an evaluation; None for a training.
        config: of the run, but for the adapters that others make.
        depends: all that its figures depend on.
        needs: the run that has to be finished before, and leaves the compressor; None where there is none.
        warm_start: the run that leaves the predictor; None where there is none.
        starts: whether this makes or measures what training starts from.
    """

    variant: str
    seed: int
    set_name: str | None
    config: Config | EvaluationConfig
    depends: Depends
    needs: "Member | None"
    warm_start: "Member | None"
    starts: bool

    @property
    def name(self) -> str:
        """What it is called: ``train full/0``, ``squad/dev full/0``."""
        one = self.variant if self.starts else f"{self.variant}/{self.seed}"
        return f"{self.set_name or 'train'} {one}"

    @property
    def place(self) -> Path:
        """Where it belongs in a folder that has a file or a folder for every member."""
        parts = ("train",) if self.set_name is None else ("evaluate", self.set_name)
        return Path(*parts, self.variant, str(self.seed))

    @property
    def folder(self) -> Path:
        """Its run folder."""
        return self.config.folder

    def recipe(self) -> str:
        """Its recipe as YAML, with the keys that study and recipe give."""
        return yaml.safe_dump(
            self.config.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True
        )


def planned(config: StudyConfig, only: Sequence[str] = ()) -> list[Member]:
    """All members in the order they are done: seed by seed, so that a part of a study holds every variant.

    Args:
        config: the study.
        only: ``VARIANT`` or ``VARIANT/SEED`` each: these alone, with what they need; none asks for all.

    Raises:
        ConfigError: there is no such variant or seed.
    """
    _check_only(config, only)
    warmed = None if config.warm_start is None else config.warmed()
    warm = warmed and Member(
        WARM_START, 0, None, warmed, depends_on(warm_start=warmed), needs=None, warm_start=None, starts=True
    )
    members: list[Member] = []
    if _chosen(only, config.start, 0):
        members += _evaluations(config, config.start, 0, warm, warm)
    for seed in config.seeds:
        for variant in config.variants:
            if _chosen(only, variant, seed):
                trained = config.trained(variant, seed)
                depends = depends_on(warm_start=warmed, training=trained)
                run = Member(variant, seed, None, trained, depends, needs=warm, warm_start=warm, starts=False)
                members += [run, *_evaluations(config, variant, seed, run, warm)]
    return [warm, *members] if warm else members


def _evaluations(config: StudyConfig, variant: str, seed: int, run: Member | None, warm: Member | None) -> list[Member]:
    """The evaluations on all sets of what a run leaves, or of what training starts from where no run makes that."""
    starts = variant == config.start
    configs: dict[str, Any] = {"warm_start": warm and warm.config}
    if not starts:
        configs["training"] = run and run.config
    names = [name for name in config.sets if starts or variant in config.measured_on(name)]
    evaluations = {name: config.measured(name, variant, seed) for name in names}
    return [
        Member(variant, seed, name, one, depends_on(**configs, evaluation=one), run, warm, starts)
        for name, one in evaluations.items()
    ]


def _chosen(only: Sequence[str], variant: str, seed: int) -> bool:
    return not only or variant in only or f"{variant}/{seed}" in only


def _check_only(config: StudyConfig, only: Sequence[str]) -> None:
    variants = [config.start, *config.variants]
    known = {*variants, *(f"{variant}/{seed}" for variant in config.variants for seed in config.seeds)}
    for one in only:
        if one not in known:
            seeds = ", ".join(map(str, config.seeds))
            raise ConfigError(f"--only {shown(one)}: there are {', '.join(variants)}, with the seeds {seeds}")
