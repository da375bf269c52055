"""Early warning: held-out figures while a run trains, and the adapter that was best by them.

A sampled reward rises on the questions that are trained on, and can rise while the messages that will be used, greedy
ones about other documents, get worse. What is measured here is what the evaluation measures, by its code, on a few
questions that are neither trained on nor evaluated in the end.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate.utils import broadcast_object_list, gather_object
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from configs.command import is_main
from data.sample import Sample
from eval.analysis.density import summarise_one
from eval.analysis.significance import SHARE, clustered_mean, standard_error
from eval.evaluation import by_compressor
from eval.record import Origin, Record, cluster
from eval.report.facts import kept_text
from eval.report.formats import number, percent
from eval.report.training_curves import HELD_OUT
from eval.stages import evaluation_of
from models.endpoint import EndpointError
from objectives.mutual_information import Estimate
from objectives.reward import RewardWeights, combine
from train.checkpoints.random_state import random_state_kept
from train.config import Config
from train.early_warning.kept import KeptAdapter
from train.models import Models
from train.reward.components import basic_components
from train.sections.reward import RewardConfig
from train.sections.watch import Keep, WatchConfig, weights_in_the_end
from train.tracking.metrics import held_out_lines, log_held_out
from train.tracking.step_lines import StepLines

FILE = "held_out.jsonl"
"""The file of the run folder that holds every figure ever measured, by step and adapter, so that none is again."""

STAGE = "held out"
"""The stage of the records that the figures are made of."""

FIGURES = ("accuracy", "message_tokens", "information_bits", "information_ceiling_bits", "bits_per_token")
"""The figures of an evaluation that are measured here too; see `eval.analysis.density`."""

ROUNDING = 1e-9
"""By how much sums of shares are off: one wrong answer of forty is a standard error of a fortieth, and no more."""

Figures = Mapping[str, float | None]


class Kept(NamedTuple):
    """Which adapter a run leaves.

    Attributes:
        step: the step after which it was measured.
        steps: of the training.
        by: the figure by which it was chosen.
        value: that figure.
    """

    step: int
    steps: int
    by: Keep
    value: float


class Watch(TrainerCallback):
    """Measures before every so many steps, which is after those that come before it, and when all are done.

    By then the step that came before is logged and saved: what goes wrong here leaves a run that has lost nothing.
    """

    def __init__(
        self,
        config: Config,
        watch: WatchConfig,
        models: Models,
        samples: Sequence[Sample],
        gather: Callable[[list[Any]], list[Any]] = gather_object,
    ) -> None:
        """Fix what is measured.

        Args:
            config: the run's.
            watch: its section ``watch``.
            models: the compressor, and the channel that its messages are read through.
            samples: the watched questions.
            gather: joins what each process gives into one list for all.
        """
        self.config, self.watch = config, watch
        self.models, self.samples, self.gather = models, samples, gather
        self.kept = KeptAdapter(models, config.is_joint)
        evaluation = replace(evaluation_of(config), score_gold=False)
        # Information is scored under every negative: the most expensive part where nothing is paid for it.
        measured = None if pays_information(config.reward) else 0
        self.evaluation = replace(evaluation, information_questions=measured)
        self.lines = StepLines(config.folder / FILE)
        self.known: dict[tuple[int, str], Figures] = {}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Read what was measured before, lines that a kill has torn left out."""
        if is_main():
            self.lines.cut(self.config.train.steps)
            self.known = _read(self.lines.path)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Measure where it is time."""
        if state.global_step % self.watch.every == 0:
            self.take(state)

    def finish(self, state: TrainerState) -> Kept | None:
        """Measure what the last step has left, and let the adapter be the one that is kept.

        Returns:
            Which one that is; None where it is the last one without any choice.

        Raises:
            EndpointError: see `take`.
        """
        self.take(state)
        keep, lines = self.watch.keep, held_out_lines(state.log_history)
        if keep is None:
            return None
        line = best(lines, keep)
        if line is None:
            _tell(
                f"watch.keep = {keep}: there never was such a figure; the adapter of the last step is kept", aside=True
            )
            return None
        assert line["step"] == self.kept.step
        self.kept.put_back()
        kept = Kept(line["step"], self.config.train.steps, keep, line[_name(keep)])
        _tell(f"the adapter is that of {kept_text(kept._asdict())}")
        return kept

    def take(self, state: TrainerState) -> None:
        """Measure, log and tell, by all processes together; nothing where that is done for this step.

        Raises:
            EndpointError: the predictor's server failed a process; all of them raise it.
        """
        step, earlier = state.global_step, held_out_lines(state.log_history)
        if any(line["step"] == step for line in earlier):
            return
        figures = self._figures(step)
        log_held_out(self.config.folder, state, figures)
        keep = self.watch.keep
        first = None if keep is None else best(held_out_lines(state.log_history), keep)
        leads = first is not None and first["step"] == step
        if leads:
            self.kept.take(step)
        _tell(f"step {step}: held out: {told(figures)}{', the best so far' if leads else ''}")
        if warning := fallen(step, figures, earlier):
            _tell(f"warning: {warning}", aside=True)

    def _figures(self, step: int) -> Figures:
        """The figures of the adapter as it is now: those that are known, or else measured."""
        adapter = self.kept.hash
        found = [self.known.get((step, adapter)) if is_main() else None]
        broadcast_object_list(found)
        if found[0] is not None:
            return found[0]
        start = time.perf_counter()
        records = self._records()
        budget = self.config.compressor.budget_tokens
        figures = figures_of(records, self.config.reward, budget) | {_name("seconds"): time.perf_counter() - start}
        if is_main():
            self.lines.add(step, [{"adapter": adapter, **figures}])
        return figures

    def _records(self) -> list[Record]:
        """A record of every watched question, from all processes."""
        origin: Origin = {
            "stage": STAGE,
            "temperature": 0.0,
            "budget_tokens": self.config.compressor.budget_tokens,
        }
        write = by_compressor(self.models.compressor, 0.0, self.config.seed)
        own, failure = list[Record](), ""
        with random_state_kept():
            try:
                own = self.evaluation.share(self.samples, write, self.models.channel, origin)
            except EndpointError as error:
                # Raised by one process alone it would leave the others waiting for its records.
                failure = str(error)
        if failures := [text for text in self.gather([failure]) if text]:
            raise EndpointError(failures[0])
        return sorted(self.gather(own), key=lambda record: record["id"])


def pays_information(reward: RewardConfig) -> bool:
    """Whether a component of the reward is made of the information passed."""
    return bool(reward.information or reward.token_information or "information" in reward.schedules)


def figures_of(records: Sequence[Record], reward: RewardConfig, budget: int) -> dict[str, float | None]:
    """The held-out figures of greedy messages: shares, tokens, bits, and what the messages would be paid.

    Args:
        records: one a question.
        reward: the section of the configuration.
        budget: the most tokens of a message.
    """
    figures = summarise_one(records)
    accuracy = clustered_mean(
        [record["accuracy"] for record in records], [cluster(record) for record in records], limits=SHARE
    )
    values = {
        **{name: figures[name]["value"] for name in FIGURES},
        "accuracy_standard_error": standard_error(accuracy),
        "reward": mean_reward(records, reward, budget),
        "questions": float(len(records)),
    }
    return {_name(name): value for name, value in values.items()}


def mean_reward(records: Sequence[Record], reward: RewardConfig, budget: int) -> float | None:
    """What greedy messages earn by accuracy, information and length, on average, as the reward weighs these.

    As in training a question without a metric earns nothing by accuracy and length. One whose information has failed is
    left out; None where that is so of all.

    Args:
        records: one a question.
        reward: the section of the configuration; its weights as they are in the end.
        budget: the most tokens of a message.
    """
    weights = weights_in_the_end(reward)
    scored = [record for record in records if not weights["information"] or record["information_nats"] is not None]
    if not scored:
        return None
    nats, ceilings = (_tensor(scored, name) for name in ("information_nats", "information_ceiling_nats"))
    components = basic_components(
        _tensor(scored, "accuracy"),
        Estimate(nats, "lower", ceilings, torch.zeros(len(scored), dtype=torch.bool)),
        torch.tensor([record["message_tokens"] for record in scored]),
        # The message of a document in parts has as many budgets as parts.
        torch.tensor([budget * len(record["message_sentences"]) for record in scored]),
        reward,
        group_size=1,
    )
    total, _ = combine(components, RewardWeights(**weights), group_size=1)
    return total.mean().item()


def _tensor(
    records: Sequence[Record], name: Literal["accuracy", "information_nats", "information_ceiling_nats"]
) -> torch.Tensor:
    values = [record[name] for record in records]
    return torch.tensor([torch.nan if value is None else value for value in values], dtype=torch.float64)


def best(lines: Sequence[Mapping[str, Any]], keep: Keep) -> Mapping[str, Any] | None:
    """The line whose figure is the largest, of several that of the latest step; None where no line has it."""
    known = [line for line in lines if line[_name(keep)] is not None]
    return max(known, key=lambda line: (line[_name(keep)], line["step"]), default=None)


def fallen(step: int, figures: Figures, earlier: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning where the accuracy is below the best one before by more than its standard error; else None."""
    now, error = figures[_name("accuracy")], figures[_name("accuracy_standard_error")]
    lead = best(earlier, "accuracy")
    if now is None or error is None or lead is None:
        return None
    before = lead[_name("accuracy")]
    if before - now <= error + ROUNDING:
        return None
    return (
        f"step {step}: held-out accuracy has fallen to {percent(now)}, {100 * (before - now):.1f} points below the "
        f"{percent(before)} of step {lead['step']}, more than its standard error of {100 * error:.1f} points"
    )


def told(figures: Figures) -> str:
    """Held-out figures in words, without those that are missing."""
    accuracy, error, tokens, bits, ceiling, reward = (
        figures[_name(name)]
        for name in (
            "accuracy",
            "accuracy_standard_error",
            "message_tokens",
            "information_bits",
            "information_ceiling_bits",
            "reward",
        )
    )
    spread = "" if error is None else f" (standard error {100 * error:.1f} points)"
    parts = (
        None if accuracy is None else f"accuracy {percent(accuracy)}{spread}",
        None if tokens is None else f"{number(tokens)} tokens",
        None if bits is None or ceiling is None else f"{bits:.2f} of {ceiling:.2f} bits",
        None if reward is None else f"reward {reward:.3f}",
    )
    return ", ".join(part for part in parts if part)


def _name(figure: str) -> str:
    return f"{HELD_OUT}{figure}"


def _tell(text: str, aside: bool = False) -> None:
    """A line of its own on the console, once, above the bar of the training."""
    if is_main():
        tqdm.write(text, file=sys.stderr if aside else sys.stdout)


def _read(path: Path) -> dict[tuple[int, str], Figures]:
    lines = [] if not path.exists() else [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {(line.pop("step"), line.pop("adapter")): line for line in lines if "adapter" in line}
