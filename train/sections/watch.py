"""The keys of early warning: held-out figures while a run trains, and which adapter it leaves by them."""

from typing import Literal

from pydantic import PositiveInt

from configs.errors import ConfigError
from configs.limits import Documents
from configs.tree import Section
from train.sections.reward import Component, RewardConfig

Keep = Literal["accuracy", "reward"]
"""The figure by which an adapter is kept."""


class WatchConfig(Section):
    """Greedy messages about a few held-out questions while a run trains, before the first and after the last step too.

    The documents are neither trained on nor those of the final evaluation. Of the embedded suite they are the
    evaluation's split under a seed that no run can have; of a published task they are documents of the training source,
    which training then lacks, with all others of their groups.
    """

    every: PositiveInt = 10
    """Number of steps between two measurements."""

    documents: Documents = 4
    """Number of watched documents of each task. Those of a published task are held back from training, and with them
    all that share their patient, company or user."""

    questions_per_document: Documents = 2
    """Number of questions asked of each watched document."""

    keep: Keep | None = None
    """Figure whose best measurement, the later of equal ones, names the adapter that the run leaves: accuracy, or the
    reward for accuracy, information and length; null leaves that of the last step."""


WATCHED_COMPONENTS: tuple[Component, ...] = ("accuracy", "information", "length")
"""The components of the reward of a watched message: those that every message has."""


def weights_in_the_end(reward: RewardConfig) -> dict[Component, float]:
    """What they weigh once all courses are run; a multiplier counts as it starts.

    One measure for all steps, so that the watched rewards of two of them compare.
    """
    ends: dict[Component, float] = {name: schedule.to for name, schedule in reward.schedules.items()}
    return {name: ends[name] if name in ends else getattr(reward, name) for name in WATCHED_COMPONENTS}


def check_watch(watch: WatchConfig | None, reward: RewardConfig, steps: int) -> None:
    """Refuse to watch no training, and to keep an adapter by a figure that is the same for all.

    Args:
        watch: the section.
        reward: the section ``reward``.
        steps: of the training.

    Raises:
        ConfigError: there is nothing to watch, or none of the components that the watched reward consists of has a
            weight.
    """
    if watch is not None and not steps:
        raise ConfigError("watch: measures between the train.steps, of which there are 0; give null")
    if watch is None or watch.keep != "reward":
        return
    if not any(weights_in_the_end(reward).values()):
        raise ConfigError(
            "watch.keep = 'reward': is made of reward.accuracy, reward.information and reward.length, which all weigh "
            "0; give one of them a weight, or choose accuracy"
        )
