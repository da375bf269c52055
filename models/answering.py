"""The predictor that a command is given by name: a model as it is, or with an adapter that teaches it to answer."""

from models.adapters import load_adapter, merge_adapter, read_adapter
from models.loading import context_window, load_model
from models.naming import ModelError, names_adapter
from models.predictor import UNLIMITED, LocalPredictor


def load_predictor(name: str, instruction: str, answer_tokens: int, device: str = "cpu") -> LocalPredictor:
    """The model that answers from messages, in this process.

    Args:
        name: a model as `load_model` takes it, or an adapter's folder, whose base is the one that it names.
        instruction: trusted text after the question; an adapter has its own.
        answer_tokens: the most tokens of an answer.
        device: where it runs.

    Raises:
        ModelError: it cannot be loaded, or the adapter is a compressor's.
    """
    if not names_adapter(name):
        model, tokenizer = load_model(name, device=device)
    else:
        stored = read_adapter(name)
        if not stored.base:
            raise ModelError(f"predictor {name!r}: the adapter does not name its base model")
        if stored.settings is not None and stored.settings.role != "predictor":
            raise ModelError(f"predictor {name!r}: the adapter makes a {stored.settings.role} of its model")
        plain, tokenizer = load_model(stored.base, device=device)
        model = merge_adapter(load_adapter(plain, stored, stored.base))
        instruction = stored.settings.answer_instruction if stored.settings is not None else instruction
    return LocalPredictor(model, tokenizer, answer_tokens, context_window(model.config) or UNLIMITED, instruction)
