"""The engine's functions as others use them: a model is shown to agree with its plain passes before the first use."""

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakSet

from peft import PeftModel
from transformers import PreTrainedModel

from models.shared_prefix import generation, scoring
from models.shared_prefix.agreement import check_agreement
from models.shared_prefix.attention import share_prefixes

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_agreeing_models: "WeakSet[PreTrainedModel]" = WeakSet()
_agreeing_configs: set[str] = set()


def require_agreement(model: PreTrainedModel | PeftModel) -> None:
    """Compare a model's shared prefixes with its plain passes, once for each configuration and type.

    Raises:
        ModelError: they differ, or cannot be computed.
    """
    plain = share_prefixes(model)
    if plain in _agreeing_models:
        return
    key = f"{type(plain).__name__} {plain.dtype} {plain.config.to_json_string(use_diff=False)}"
    if key not in _agreeing_configs:
        check_agreement(plain)
        _agreeing_configs.add(key)
    _agreeing_models.add(plain)


def _checked(
    function: Callable[Concatenate[PreTrainedModel | PeftModel, Arguments], Result],
) -> Callable[Concatenate[PreTrainedModel | PeftModel, Arguments], Result]:
    @functools.wraps(function)
    def checked(model: PreTrainedModel | PeftModel, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        require_agreement(model)
        return function(model, *args, **kwargs)

    return checked


generate = _checked(generation.generate)
token_scores = _checked(scoring.token_scores)
batched_message_log_probs = _checked(scoring.batched_message_log_probs)
