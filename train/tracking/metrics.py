"""One place logs: every metric of a step goes to ``metrics.jsonl`` in the run folder and, through Trainer, to W&B."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import wandb
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerState, TrainingArguments

from configs.tree import ConfigError
from data.errors import one_line
from eval.report.page import report_tables
from eval.report.results import Results, Summary
from eval.report.training_curves import is_watched
from train.config import Config
from train.tracking.step_lines import StepLines

Logs = Mapping[str, Any]

METRICS_FILE = "metrics.jsonl"
REPORT_FILES = (
    "report.html",
    "results.json",
    "samples.jsonl",
    "samples.greedy.jsonl",
    "messages.jsonl",
    "tables.md",
    "tables.tex",
)
"""Files of the run folder that W&B keeps with the run, where they are, so that the report can be read without it."""

SHOWN = {
    "reward": "reward {:.2f}",
    "information_bits": "{:.2f} bits",
    "message_tokens": "{:.1f} tokens",
    "bits_per_token": "{:.3f} bits/token",
}
"""Metrics beside the progress bar: those that tell at a glance whether training works."""


def start_wandb(config: Config, folder: Path) -> list[str]:
    """Start a W&B run, unless it is disabled; Trainer's ``report_to``. Offline it writes to the run folder alone.

    Raises:
        ConfigError: W&B does not start: a wrong setting in the environment, no account, a folder that it cannot write.
    """
    if config.tracking.wandb == "disabled":
        return []
    os.environ.setdefault("WANDB_SILENT", "true")
    try:
        if "LOCAL_RANK" in os.environ and "WANDB_SERVICE" not in os.environ:
            os.environ["WANDB_SERVICE"] = start_service()
        wandb.init(
            mode=config.tracking.wandb,
            project=config.tracking.project,
            name=config.name,
            dir=str(folder),
            config=config.model_dump(mode="json"),
        )
    # Its settings, which the environment sets as well, are checked by pydantic, whose errors are a ValueError.
    except (wandb.Error, OSError, ValueError, subprocess.SubprocessError) as error:
        raise ConfigError(
            f"tracking.wandb = {config.tracking.wandb!r}: W&B does not start ({one_line(error)}); "
            "mend that (WANDB_MODE, wandb login), or choose tracking.wandb=disabled"
        ) from error
    return ["wandb"]


def start_service() -> str:
    """Start W&B's process where DeepSpeed's launcher does not find it; its address.

    On Ctrl-C the launcher ends every descendant at once; the first metric logged after that would be an error, and end
    training before its checkpoint.
    """
    # It ends by itself after a minute without a run: nobody else ends it.
    command = [sys.executable, "-m", "wandb", "beta", "core", "start", "--idle-timeout", "60s"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def log_results(results: Results, name: str, folder: Path) -> None:
    """Log the overall figures of both stages, the report's tables and its files to the open W&B run, and end it."""
    if wandb.run is None:
        return
    wandb.run.summary.update(_overall(results))
    if "greedy" in results:
        wandb.run.summary.update(_overall(results["greedy"], "greedy/"))
    tables = {
        f"report/{table.name}": wandb.Table(columns=list(table.columns), data=[list(line) for line in table.lines])
        for table in report_tables(results)
    }
    wandb.log(tables)
    artifact = wandb.Artifact(f"{name}-report", type="report")
    for file in REPORT_FILES:
        if (folder / file).is_file():
            artifact.add_file(str(folder / file))
    wandb.log_artifact(artifact)
    wandb.finish()


def _overall(results: Summary, prefix: str = "") -> dict[str, float | None]:
    return {
        f"{prefix}{stage}/{name}": figure["value"]
        for stage, figures in cast(dict[str, dict[str, Any]], results["overall"]).items()
        for name, figure in figures.items()
        if isinstance(figure, dict)
    }


HELD_OUT = "held_out/"
"""What the names of figures begin with that are measured on held-out questions while a run trains."""


def log_held_out(folder: Path, state: TrainerState, figures: Mapping[str, float | None]) -> None:
    """Add a line of held-out figures to what a checkpoint remembers, to ``metrics.jsonl`` and to W&B.

    Trainer's own way would put its metrics of the step under way into the line, and then lack them in their own.

    Args:
        folder: the run folder.
        state: Trainer's, the same in every process; it knows the step.
        figures: by names that begin with ``HELD_OUT``; None is missing.
    """
    line = {"step": state.global_step, **figures}
    state.log_history.append(cast(Any, line))
    if state.is_world_process_zero:
        StepLines(folder / METRICS_FILE).add(state.global_step, [figures])
        if wandb.run is not None:
            shown = {name: value for name, value in figures.items() if value is not None}
            wandb.log({**shown, "train/global_step": state.global_step})


def held_out_lines(log_history: Sequence[Logs]) -> list[dict[str, Any]]:
    """The lines of held-out figures among what Trainer has logged, each with its step."""
    return [dict(line) for line in log_history if is_watched(line)]


class MetricsFile(TrainerCallback):
    """Appends a line for each logged step; a resumed run has the lines up to the checkpoint it goes on from."""

    def __init__(self, folder: Path) -> None:
        """Write to ``metrics.jsonl`` in ``folder``."""
        self.lines = StepLines(folder / METRICS_FILE)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Keep the lines up to the step that training goes on from, as the checkpoint has them."""
        if state.is_world_process_zero:
            lines = [(log, _line(log)) for log in cast(list[Logs], state.log_history)]
            logged = [(int(log["step"]), line) for log, line in lines if line is not None]
            self.lines.restore(state.global_step, logged)

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, logs: Logs, **__: Any) -> None:
        """Append one line of plain numbers."""
        if state.is_world_process_zero and "reward" in logs:
            self.lines.add(state.global_step, [_numbers(logs)])


def _line(logs: Logs) -> dict[str, float | None] | None:
    """The line that was written of something logged; None where none was."""
    if is_watched(logs):
        return {name: value for name, value in logs.items() if name != "step"}
    return _numbers(logs) if "reward" in logs else None


def _numbers(logs: Logs) -> dict[str, float | None]:
    """The numbers of a step, its duration first."""
    numbers = {name: value for name, value in logs.items() if isinstance(value, int | float | None) and name != "step"}
    return {"seconds": logs.get("step_time"), **numbers}


class ProgressBar(TrainerCallback):
    """A bar with time left and the reward, bits, tokens and density of the last step."""

    def __init__(self) -> None:
        """The bar opens with the training."""
        self.bar: tqdm | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Open the bar at the step training starts from."""
        if state.is_world_process_zero:
            self.bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", dynamic_ncols=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, *_: Any, **__: Any) -> None:
        """Move the bar to the step just finished."""
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: TrainingArguments, state: TrainerState, *_: Any, logs: Logs, **__: Any) -> None:
        """Show the figures of the step beside the bar."""
        if self.bar is not None:
            shown = [text.format(logs[name]) for name, text in SHOWN.items() if logs.get(name) is not None]
            self.bar.set_postfix_str(", ".join(shown))

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()
