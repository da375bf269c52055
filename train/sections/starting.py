"""The keys of where training starts: the adapters that are trained, those they start from, and the warm starts."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from configs.as_trained import as_trained
from configs.checks import check_adapter
from configs.errors import ConfigError, shown
from configs.limits import Documents, Rank, Scale, StepPart, at_most
from configs.sections import PredictorConfig, WriterConfig
from configs.tree import Section
from models.adapter_settings import read_lora_fields
from models.naming import ModelError

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole."""


class LoraConfig(Section):
    """The low-rank adapter that is trained."""

    rank: Rank = 16
    """Rank of the update of each adapted matrix."""

    alpha: Scale = 32
    """Numerator of the update's scale, alpha / rank."""

    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that an input of the adapter is dropped during training."""

    target_modules: str | Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = "all-linear"
    """Modules that are adapted: ``all-linear``, or a list of module names."""

    @field_validator("target_modules")
    @classmethod
    def _one_word_is_all_linear(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if isinstance(value, str) and value != "all-linear":
            raise ValueError("should be 'all-linear' or a list of module names, such as [q_proj, v_proj]")
        return value


class CompressorConfig(WriterConfig):
    """The model that reads the context and writes the message, with the adapter that is trained."""

    adapter: str | None = None
    """A folder with an adapter in PEFT's format, such as a run's ``compressor``, whose weights training starts from;
    null starts from the model itself. What it was trained with is taken where ``lora.rank``, ``lora.alpha``,
    ``lora.target_modules``, ``budget_tokens``, ``max_context_tokens``, ``dtype``, ``revision`` and the ``instruction``
    of a task are left out; of these, other values of the first three are refused and of the others said."""

    lora: LoraConfig = LoraConfig()
    """The adapter that is trained; the base model stays as it is."""


class TrainedPredictorConfig(PredictorConfig):
    """The model that answers from the message alone, with the adapter that is trained, where one is."""

    lora: LoraConfig = LoraConfig()
    """The adapter that ``train.predictor_warm_start`` and ``train.predictor_update`` train; without them it is not
    read. It starts from ``adapter``, where that is given, which must be of this shape."""

    max_missing: Share = 0.0
    """Share of a process's answers of a step that a server may fail to give, with all tries: these are missing, which
    neither rewards nor punishes their messages, and counted (``server/missing``). Where more fail, the run saves a
    checkpoint and ends. A refusal, of a key or a request, ends it at once."""

    shared_base: bool = False
    """Whether the predictor is a second adapter on the compressor's model, which is in memory once for both; it needs
    the compressor's ``model``, ``revision`` and ``dtype``, and an adapter of its own."""


class FineTuningConfig(Section):
    """Supervised fine-tuning of an adapter by maximum likelihood."""

    examples: Documents = 640
    """Number of training questions to learn from; where there are fewer, all of them."""

    batch_size: StepPart = 8
    """Number of examples in one step, over all processes; its loss is the mean over their tokens."""

    learning_rate: PositiveFloat = 5e-4
    """Step size of the first step, which falls to 0 in a line."""

    epochs: Annotated[PositiveInt, at_most(1_000, "an adapter knows its examples by heart long before")] = 1
    """Number of passes over the examples."""

    questions_per_context: StepPart = 1
    """Number of questions about one context that lie together in a batch, which reads the context once for them: more
    make a batch faster, and less varied."""


Targets = Literal["evidence", "clause", "answer"]
"""What a warm start of the compressor teaches it to write."""


class WarmStartConfig(FineTuningConfig):
    """Supervised fine-tuning of the compressor's adapter before GRPO, under the prompts of the rollout."""

    targets: Targets = "evidence"
    """What the compressor learns to write: the sentences of the document that the answer rests on; of such a sentence
    the words around the answer, as many as a random draw says, others in every pass, so that a group has messages of
    every length to compare; or the shortest gold answer itself, which is a rival of all compression rather than a
    start."""


class PredictorWarmStartConfig(FineTuningConfig):
    """Supervised fine-tuning of an adapter of the predictor, on gold answers from the sentences that they rest on."""

    examples: Documents = 1600
    """Number of training questions to learn from; where there are fewer, all of them."""

    batch_size: StepPart = 16
    """Number of examples in one step, over all processes; its loss is the mean over their tokens."""

    whole_contexts: Share = 0.0
    """Share of the examples that are answered from the whole context instead, so that the predictor can be measured
    with the full text as well."""

    empty: Share = 0.05
    """Share of the examples whose message is empty and whose answer is ``Unanswerable``. With 0 the predictor goes on
    guessing without a message, which shows what it knows by heart."""

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if self.whole_contexts + self.empty > 1:
            raise ValueError("whole_contexts and empty are shares of the same examples: together at most 1")
        return self


def as_started(compressor: CompressorConfig, adapter: str) -> CompressorConfig:
    """The compressor with what the adapter it starts from was trained with in the place of keys that are left out.

    Raises:
        ConfigError: there is no such adapter, or it has another rank or scale than it is to be trained with.
    """
    key, lora = f"compressor.adapter = {shown(adapter)}", compressor.lora
    check_adapter("compressor.adapter", adapter)
    try:
        fields = read_lora_fields(adapter)
    except ModelError as error:
        raise ConfigError(f"compressor.adapter: {error}") from None
    if not fields.lora_alpha.is_integer():
        raise ConfigError(f"{key}: has lora_alpha = {fields.lora_alpha:g}, and only a whole number is trained")
    trained: dict[str, Any] = {"rank": fields.r, "alpha": int(fields.lora_alpha)}
    for name, value in trained.items():
        given = getattr(lora, name)
        if name in lora.model_fields_set and given != value:
            raise ConfigError(f"compressor.lora.{name} = {given}: {key} has {value}; give that, or leave it out")
    modules = fields.target_modules
    # A pattern, and whatever else stands there, is left to the tensors, which tell what was adapted.
    if isinstance(modules, list) and modules and all(isinstance(module, str) for module in modules):
        trained["target_modules"] = tuple(sorted(modules))
    left_out = {name: value for name, value in trained.items() if name not in lora.model_fields_set}
    changed = as_trained("compressor", compressor, adapter)
    return changed.model_copy(update={"lora": lora.model_copy(update=left_out)})
