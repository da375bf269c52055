"""A compressor on another OpenAI-compatible server, whose chat template is not ours.

Text that looks like a control token of a common chat format is spelled apart before it is sent, for the server would
read it as the token. What is spelled apart is counted in the reply.
"""

import re
import threading
from typing import Any

from models.endpoint import Completion, Endpoint, EndpointError, Sampling
from models.prompts import predictor_text
from models.serve.backend import Choice, Task, Watch, Written

CONTROL = re.compile(
    r"""
      <[|｜][^<>\s]{0,64}?[|｜]>                               # <|im_end|>, <|eot_id|>, <｜User｜> and their like
    | </?(?:s|bos|eos|pad|unk|start_of_turn|end_of_turn|start_of_image|think|tool_call|tool_response)>
    | \[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|IMG|THINK|ARGS)\]
    | <</?SYS>>
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""Control tokens of ChatML, Llama 2 to 4, Mistral, Gemma, Phi, DeepSeek, Qwen and gpt-oss."""

CHECK_SECONDS = 0.1
"""How often the watch is looked at while the server is waited for."""


class UpstreamBackend:
    """A model on a server; whether it keeps to a budget is checked."""

    def __init__(
        self, endpoint: Endpoint, budget_tokens: int, window: int, instruction: str = "", hidden: bool = False
    ) -> None:
        """Fix the server.

        Args:
            endpoint: the server and its model.
            budget_tokens: the budget where a request names none.
            window: tokens that the model reads; budgets have to leave room in it.
            instruction: trusted text after the question.
            hidden: whether it is told no question.
        """
        self.endpoint, self.budget_tokens, self.window = endpoint, budget_tokens, window
        self.instruction, self.hidden = instruction, hidden
        self.most_budget_tokens = window - 1

    def describe(self) -> dict[str, Any]:
        """Names and limits."""
        return {"backend": "upstream", "window": self.window}

    def write(self, task: Task, watch: Watch) -> Written:
        """Messages of a document, one after the other and each as one piece: see `Backend.write`.

        Raises:
            Abandoned, Overdue: as the watch says. The request to the server then goes on by itself until its time-out.
            EndpointError: the server fails, refuses the request, or does not keep to the budget or count its tokens.
        """
        (document, found), (question, more) = neutralised(task.document), neutralised(task.question)
        text = predictor_text(document, question, (), self.instruction)
        choices, read = [], 0
        for number in range(task.n):
            sampling = Sampling(task.budget_tokens, task.temperature, task.seed + number if task.temperature else None)
            completion = self._complete(text, sampling, watch)
            read = completion.tokens_read or 0
            message = completion.text.strip()
            watch.say(number, message)
            choices.append(Choice(message, completion.tokens or 0, completion.finish_reason != "length"))
        return Written(tuple(choices), read, None, found + more)

    def _complete(self, text: str, sampling: Sampling, watch: Watch) -> Completion:
        completion: Completion = _waited(
            lambda: self.endpoint.complete([{"role": "user", "content": text}], sampling), watch
        )
        if completion.tokens is None or completion.tokens_read is None:
            raise EndpointError(f"{self.endpoint.name}: it does not count its tokens, so that no budget can be held")
        if completion.tokens > sampling.max_tokens:
            raise EndpointError(
                f"{self.endpoint.name}: wrote {completion.tokens} tokens where {sampling.max_tokens} were allowed"
            )
        return completion


def neutralised(text: str) -> tuple[str, int]:
    """A text whose control tokens have a space after their first character, and how many there were."""
    total = 0
    while True:
        text, found = CONTROL.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        if not found:
            return text, total
        total += found


def _waited(work: Any, watch: Watch) -> Any:
    """What a blocking call gives; the wait ends as the watch says, the call itself later."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.extend((work(), None))
        except Exception as error:  # raised again where it is waited for
            outcome.extend((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        watch.check()
        thread.join(CHECK_SECONDS)
    result, error = outcome
    if error is not None:
        raise error
    return result
