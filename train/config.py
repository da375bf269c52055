"""The configuration of a training run."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Literal, Self

from pydantic import (
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from configs.as_trained import told_as_trained
from configs.checks import check_adapter, check_model, check_sources, check_target_modules
from configs.errors import ConfigError, check_all, shown
from configs.limits import GroupSize, SamplingTemperature, StepPart, Steps
from configs.sections import Recipe
from configs.tree import load
from train.sections.joint import PredictorUpdateConfig
from train.sections.policy_update import PolicyUpdateConfig, check_update
from train.sections.reward import RewardConfig, check_reward
from train.sections.starting import (
    CompressorConfig,
    PredictorWarmStartConfig,
    TrainedPredictorConfig,
    WarmStartConfig,
    as_started,
)
from train.sections.vllm import VllmConfig, check_vllm
from train.sections.watch import WatchConfig, check_watch

MOST_GENERATED = 200_000
"""The most documents that a run generates by itself: minutes of work, and gigabytes of memory."""

MOST_MESSAGES = 1 << 20
"""The most messages of a step over all processes: far more than any batch of GRPO."""


class TrainConfig(PolicyUpdateConfig):
    """Reinforcement learning of the compressor's adapter."""

    warm_start: WarmStartConfig | None = None
    """Supervised fine-tuning of the compressor before the first step; null has none."""

    warm_start_store: str | None = None
    """Folder in which finished warm starts of the compressor are kept for other runs that begin in the very same way,
    such as the variants of a study: the first makes it, the others take it. Null keeps none."""

    predictor_warm_start: PredictorWarmStartConfig | None = None
    """Supervised fine-tuning of the predictor before all else, after which it is frozen; null has none."""

    predictor_update: PredictorUpdateConfig | None = None
    """How the predictor's adapter learns along with the compressor's; null leaves it as it starts."""

    steps: Steps = 100
    """Number of optimizer steps of GRPO; 0 ends after the warm start, and measures that against the model itself."""

    contexts_per_step: StepPart = 8
    """Number of different (context, question) pairs in one step, over all processes."""

    questions_per_context: StepPart = 1
    """Number of questions that a step asks about each of its contexts, where it has as many: a context is read once for
    all of them. 1 draws every pair by itself. With fewer contexts in a step than ``information.negatives.batch`` asks
    for, others are read beside them."""

    questions_per_message: StepPart | None = None
    """Number of its document's questions, drawn anew in every step, that a message is paid for where
    ``compressor.question`` is hidden; null asks all of them."""

    group_size: GroupSize = 8
    """Number of messages sampled for each pair: the group whose members are compared with each other."""

    micro_batch_messages: PositiveInt | None = None
    """Number of messages in one forward and backward pass of one process; null takes a process's whole share at
    once."""

    learning_rate: PositiveFloat = 1e-4
    """Step size of the optimizer, after the warm-up."""

    warmup_steps: NonNegativeInt | None = None
    """Number of steps over which the learning rate rises from 0; null takes a tenth of the steps, at most 5."""

    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after the warm-up: it stays, or falls to 0 at the last step."""

    temperature: SamplingTemperature = 1.0
    """Temperature that messages are sampled at."""

    sampler: Literal["transformers", "vllm"] = "transformers"
    """Writer of the messages: the policy itself, which reads every context once, or vLLM, which needs CUDA GPUs."""

    vllm: VllmConfig = VllmConfig()
    """Settings of vLLM, where it is the sampler."""

    batch_negatives: Literal["task", "any"] = "task"
    """Documents that negatives of the batch are drawn from: those of the question's task, as at evaluation, or those of
    any task, which are mostly in the step and cost no reading."""

    task_information_every: NonNegativeInt = 1
    """Number of steps between two at which the predictor scores gold answers for the metric alone, where
    ``reward.task_information`` is 0: that costs about as much as answering; 0 does it never."""

    max_grad_norm: PositiveFloat = 1.0
    """Maximum norm of the gradient; a larger one is scaled down to it."""

    zero_stage: Literal[0, 1, 2] = 2
    """What DeepSpeed partitions among processes: nothing (0), optimizer states (1), or gradients as well (2)."""

    log_every: PositiveInt = 1
    """Number of steps between two lines of metrics."""

    save_every: PositiveInt = 50
    """Number of steps between two checkpoints; one is written at the end and on interruption as well."""

    keep_checkpoints: PositiveInt = 2
    """Number of the newest checkpoints that stay on the disk; the one of the highest reward stays besides."""

    max_skipped_updates: PositiveInt = 5
    """Number of updates in a row, skipped because a loss, a gradient or a reward was not finite, that end the run."""

    @property
    def messages_per_step(self) -> int:
        """Number of messages sampled in one step, over all processes."""
        return self.contexts_per_step * self.group_size

    @property
    def questions_read(self) -> int:
        """Number of training questions that nothing has to be done twice with."""
        warm_starts = [start.examples for start in (self.warm_start, self.predictor_warm_start) if start]
        return max(self.steps * self.contexts_per_step, *warm_starts, 0)

    @property
    def warmup(self) -> int:
        """Number of warm-up steps, as given or by default."""
        # The default: a short rise keeps the first, noisiest gradients small and takes little of a short run.
        return min(5, self.steps // 10) if self.warmup_steps is None else self.warmup_steps

    def micro_batch_size(self, world_size: int) -> int:
        """Number of messages in one pass of one process."""
        return self.micro_batch_messages or self.messages_per_step // world_size

    def gradient_accumulation_steps(self, world_size: int) -> int:
        """Number of passes of one process in one optimizer step."""
        return self.messages_per_step // (world_size * self.micro_batch_size(world_size))


class Config(Recipe):
    """Everything a training run depends on."""

    compressor: CompressorConfig
    """The model that writes messages, with the adapter that is trained."""

    predictor: TrainedPredictorConfig
    """The model that answers from messages."""

    train: TrainConfig = TrainConfig()
    """How the adapter is optimized."""

    reward: RewardConfig = RewardConfig()
    """What a message is paid for."""

    watch: WatchConfig | None = None
    """Held-out figures while it trains, of greedy messages; null, the default, measures none, and ``watch={}`` takes
    the values below."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_all(
            partial(_check_steps, self.train),
            partial(_check_predictor, self),
            partial(_check_batch, self.train),
            partial(_check_question, self),
            partial(_check_generated, self),
            partial(check_vllm, self.train.sampler, self.train.vllm, self.compressor),
            partial(check_reward, self.reward, self.compressor.budget_tokens, self.train.steps),
            partial(check_update, self.train, self.train.group_size, self.reward.token_information),
            partial(check_watch, self.watch, self.reward, self.train.steps),
        )
        return self

    @property
    def starts_from_base(self) -> bool:
        """Whether what is measured before training is the model itself, without an adapter or a warm start of its own.

        With no step of GRPO the warm start is the training.
        """
        return self.compressor.adapter is None and (self.train.warm_start is None or not self.train.steps)

    @property
    def is_joint(self) -> bool:
        """Whether the predictor learns as well."""
        return self.train.predictor_update is not None

    def check_world_size(self, world_size: int) -> None:
        """Refuse a number of processes that the batch cannot be shared among.

        Raises:
            ConfigError: contexts do not divide among the processes, or a process's messages into micro batches.
        """
        if world_size > 1 and self.train.warm_start_store is not None:
            raise ConfigError(
                f"train.warm_start_store = {shown(self.train.warm_start_store)}: is for runs of one process; give null"
            )
        contexts, micro = self.train.contexts_per_step, self.train.micro_batch_messages
        if contexts % world_size:
            raise ConfigError(
                f"train.contexts_per_step = {contexts} does not divide among {world_size} processes: "
                f"choose a multiple of {world_size}"
            )
        share = self.train.messages_per_step // world_size
        if micro is not None and share % micro:
            raise ConfigError(
                f"train.micro_batch_messages = {micro} does not divide the {share} messages of each of "
                f"{world_size} processes: choose a divisor of {share}"
            )


def load_config(path: str, overrides: Sequence[str] = ()) -> Config:
    """The configuration in a YAML file, changed by overrides, and checked: see `configs.tree.load`.

    Raises:
        ConfigError: the file, a key, a value, a combination of values, a path they name, or this machine is wrong.
    """
    config = _started(load(Config, path, overrides))
    check_all(*_file_checks(config), partial(_check_machine, config))
    return config


def _started(config: Config) -> Config:
    """The configuration with what the starting adapter was trained with in the place of keys that are left out."""
    compressor, adapter = config.compressor, config.compressor.adapter
    if adapter is None:
        return config
    tasks = told_as_trained("compressor", config.tasks, adapter)
    return config.model_copy(update={"compressor": as_started(compressor, adapter), "tasks": tasks})


def _check_predictor(config: Config) -> None:
    predictor, train = config.predictor, config.train
    for key in ("predictor_warm_start", "predictor_update"):
        if getattr(train, key) is not None and predictor.endpoint is not None:
            raise ConfigError(
                f"train.{key}: the predictor of predictor.endpoint = {shown(predictor.endpoint)} is on a server and "
                "cannot be trained from here; give null"
            )
    if predictor.max_missing and predictor.endpoint is None:
        raise ConfigError(
            f"predictor.max_missing = {predictor.max_missing}: only a server fails to answer; name one as "
            "predictor.endpoint, or drop this"
        )
    if train.predictor_update is not None and not train.steps:
        raise ConfigError("train.predictor_update: learns in train.steps, of which there are 0; give null")
    if predictor.shared_base:
        _check_shared_base(config)


def _check_shared_base(config: Config) -> None:
    predictor, compressor, key = config.predictor, config.compressor, "predictor.shared_base = True"
    if predictor.endpoint is not None:
        raise ConfigError(f"{key}: predictor.endpoint names a server, which has a base of its own; drop one")
    for name in ("model", "revision", "dtype"):
        theirs, ours = getattr(predictor, name), getattr(compressor, name)
        if theirs != ours:
            raise ConfigError(f"{key}: predictor.{name} = {shown(theirs)} and compressor.{name} = {shown(ours)}")
    train = config.train
    if predictor.adapter is None and train.predictor_warm_start is None and train.predictor_update is None:
        raise ConfigError(f"{key}: there is no adapter to put on it; name predictor.adapter, or train one")


def _check_steps(train: TrainConfig) -> None:
    if not train.steps and train.warm_start is None and train.predictor_warm_start is None:
        raise ConfigError("train.steps = 0: nothing is trained; ask for a warm start, or for steps")


def _check_batch(train: TrainConfig) -> None:
    if train.messages_per_step > MOST_MESSAGES:
        raise ConfigError(
            f"train.contexts_per_step = {train.contexts_per_step} and train.group_size = {train.group_size}: "
            f"the messages of a step are in memory together, so their product should be at most {MOST_MESSAGES:,}"
        )
    if train.questions_per_context > train.contexts_per_step:
        raise ConfigError(
            f"train.questions_per_context = {train.questions_per_context}: should be at most the "
            f"train.contexts_per_step = {train.contexts_per_step} pairs of a step"
        )
    micro, group, messages = train.micro_batch_messages, train.group_size, train.messages_per_step
    if micro is None:
        return
    key = f"train.micro_batch_messages = {micro}"
    if messages % micro:
        raise ConfigError(f"{key}: should divide contexts_per_step * group_size = {messages}")
    if micro % group and group % micro:
        raise ConfigError(f"{key}: should be a multiple or a divisor of group_size = {group}")


def _check_question(config: Config) -> None:
    """Refuse keys that have no meaning where the compressor is told the question, or where it is not."""
    train, told = config.train, config.compressor.question
    if told != "hidden" and train.questions_per_message is not None:
        raise ConfigError(
            f"train.questions_per_message = {train.questions_per_message}: is read with compressor.question = hidden "
            "alone; set that, or drop this"
        )
    above = [budget for budget in config.compressor.asked_budgets if budget > config.compressor.budget_tokens]
    if above:
        raise ConfigError(
            f"compressor.asked_budgets: {above[0]} is more than compressor.budget_tokens = "
            f"{config.compressor.budget_tokens}, the most that any message may have"
        )
    if config.compressor.asked_budgets and train.sampler == "vllm":
        raise ConfigError("compressor.asked_budgets: vLLM gives all messages of a step one limit; choose transformers")
    if told != "shown" and train.questions_per_context > 1:
        raise ConfigError(
            f"train.questions_per_context = {train.questions_per_context}: with compressor.question = {told} one "
            "message serves several questions; leave it at 1"
        )


def _check_generated(config: Config) -> None:
    pairs, tasks = config.train.questions_read, enumerate(config.tasks)
    unlimited = [number for number, task in tasks if task.embedded and task.documents is None]
    if unlimited and pairs > MOST_GENERATED:
        starts = {name: getattr(config.train, name) for name in ("warm_start", "predictor_warm_start")}
        examples = "".join(f", train.{name}.examples = {warm.examples}" for name, warm in starts.items() if warm)
        raise ConfigError(
            f"train.steps = {config.train.steps} and train.contexts_per_step = {config.train.contexts_per_step}"
            f"{examples}: {pairs:,} documents would be generated before the first step, which should be at most "
            f"{MOST_GENERATED:,}; set tasks.{unlimited[0]}.documents, which are then read several times"
        )


def _file_checks(config: Config) -> Iterator[Callable[[], None]]:
    """Checks of models, windows and sources, which take a look at the disk; each raises `ConfigError`."""
    context, budget = config.compressor.max_context_tokens, config.compressor.budget_tokens
    message = f"compressor.budget_tokens = {budget}"
    read = f"compressor.max_context_tokens = {context} and {message}" if context else message
    yield partial(check_model, "compressor.model", config.compressor.model, (context or 0) + budget, read)
    lora = config.compressor.lora
    if not isinstance(lora.target_modules, str):
        key = "compressor.lora.target_modules"
        yield partial(check_target_modules, key, config.compressor.model, lora.target_modules)
    answer = config.predictor.max_answer_tokens
    reply = f"{message} and predictor.max_answer_tokens = {answer}"
    if config.predictor.endpoint is None:
        yield partial(check_model, "predictor.model", config.predictor.model, budget + answer, reply)
    if config.predictor.adapter is not None:
        yield partial(check_adapter, "predictor.adapter", config.predictor.adapter)
    if config.scorer.model is not None:
        yield partial(check_model, "scorer.model", config.scorer.model, (context or 0) + budget, read)
    yield partial(check_sources, config.tasks)


def _check_machine(config: Config) -> None:
    """Refuse vLLM on a machine without its package or a GPU, before any model is loaded.

    Raises:
        ConfigError: the package or the GPU is missing.
    """
    if config.train.sampler != "vllm":
        return
    if find_spec("vllm") is None:
        raise ConfigError(
            "train.sampler = 'vllm': the package vllm is not installed; pip install 'trl[vllm]', or choose transformers"
        )
    import torch  # takes seconds, so only where the answer depends on it

    if not torch.cuda.is_available():
        raise ConfigError("train.sampler = 'vllm': torch finds no CUDA GPU here; choose transformers")
