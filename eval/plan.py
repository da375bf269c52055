"""What an evaluation can check before any weights are loaded: instructions, adapters, documents and their questions."""

from collections.abc import Callable

from configs.build import evaluation_request, instructions, read_documents
from eval.config import EvaluationConfig
from models.adapters import read_adapter
from models.loading import load_tokenizer, quiet_libraries
from models.prompts import ChatFormat


def check(config: EvaluationConfig, say: Callable[[str], None]) -> None:
    """Refuse what an evaluation would refuse later.

    Args:
        config: the evaluation's.
        say: takes what has to be said, such as what was skipped.

    Raises:
        InputError: tasks whose instructions differ, an adapter, a tokenizer or documents that cannot be read.
    """
    quiet_libraries()
    instructions(config)
    for compressor in (config.compressor, config.reference):
        if compressor is not None and compressor.adapter is not None:
            read_adapter(compressor.adapter)
    chat = ChatFormat(load_tokenizer(config.compressor.model, config.compressor.revision))
    read_documents(config, chat, "evaluate", evaluation_request, say)
