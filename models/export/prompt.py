"""The prompt that travels with an exported model: in ``prompt.json``, in a GGUF's chat template, in Ollama's Modelfile.

An adapter works under the prompt of its training alone. A device puts it together from five token sequences: ``head``,
the document, ``middle``, the question, ``tail``. The pieces are tokenised with control tokens recognised, the document
and the question with them switched off (llama.cpp's ``/tokenize`` with ``parse_special: false``), so that neither can
forge one. A chat template is rendered as text, and a runtime that then tokenises the whole of it recognises control
tokens in the document too: it is for documents that are trusted.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path

from data.writing import write_text
from models.naming import ModelError

PROMPT_FILE = "prompt.json"
"""The file of the pieces, beside an exported model."""


@dataclass(frozen=True)
class DevicePrompt:
    """The pieces of a prompt, as text.

    Attributes:
        role: ``compressor`` or ``predictor``.
        head: what stands before the document (for a predictor: before the message).
        middle: what stands between it and the question; a space comes before the question, and counts as its own.
        tail: what stands after the question, up to where the reply begins.
        tails: the same by budget in tokens, of a compressor that was trained to keep to budgets it is asked for.
        question: what a compressor was told of it in training: ``shown``, ``hidden`` (then it is empty) or ``several``.
        end: the token that ends a reply, as text.
        end_token_id: its number.
        budget_tokens: the most tokens of a message, the end token included; None for a predictor.
        max_document_tokens: of longer documents the middle is cut out; None for a predictor.
        window: the most tokens of a prompt and its reply that the model reads.
    """

    role: str
    head: str
    middle: str
    tail: str
    question: str
    end: str
    end_token_id: int
    budget_tokens: int | None
    max_document_tokens: int | None
    window: int
    tails: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``prompt.json``.

        Raises:
            OSError: the folder cannot be written.
        """
        write_text(folder / PROMPT_FILE, json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n")

    def text(self, document: str, question: str) -> str:
        """The whole prompt as text, for what trusts both."""
        return f"{self.head}{document}{self.middle} {question}{self.tail}"

    def template(self) -> str:
        """A chat template (Jinja) that writes this prompt.

        The messages of a chat, its system turns left out, are the document and then the question; a single message is
        one text that holds both as the prompt does. llama.cpp writes a system turn into the first of the others, as it
        does wherever a template has no place for one.
        """
        head, between, tail = (_literal(text) for text in (self.head, f"{self.middle} ", self.tail))
        return (
            f"{{{{- {head} -}}}}"
            "{%- set told = namespace(any=false) -%}"
            "{%- for message in messages -%}"
            "{%- if message['role'] != 'system' -%}"
            f"{{%- if told.any -%}}{{{{- {between} -}}}}{{%- endif -%}}"
            "{{- message['content'] -}}"
            "{%- set told.any = true -%}"
            "{%- endif -%}"
            "{%- endfor -%}"
            f"{{{{- {tail} -}}}}"
        )

    def modelfile(self, file: str) -> str:
        """Ollama's Modelfile for a merged GGUF: one text, document and question as in `text`, between head and tail.

        Args:
            file: the GGUF's name, beside the Modelfile.

        Raises:
            ModelError: a piece holds what a Modelfile cannot quote.
        """
        for piece in (self.head, self.tail, self.end):
            if '"""' in piece or "{{" in piece or "}}" in piece:
                raise ModelError('Ollama: the prompt holds """ or {{, which a Modelfile cannot quote')
        lines = [
            f"FROM ./{file}",
            f'TEMPLATE """{self.head}{{{{ .Prompt }}}}{self.tail}"""',
            "PARAMETER temperature 0",
            f"PARAMETER num_ctx {self.window}",
            f"PARAMETER stop {json.dumps(self.end, ensure_ascii=False)}",
        ]
        if self.budget_tokens is not None:
            lines.append(f"PARAMETER num_predict {self.budget_tokens}")
        return "\n".join(lines) + "\n"


def _literal(text: str) -> str:
    """A string as Jinja reads it."""
    return json.dumps(text, ensure_ascii=False)
