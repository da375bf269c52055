"""Malformed inputs drawn by a seed: configurations, overrides, records, adapters, model folders, replies of servers."""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eval.run import main as evaluate
from models.adapters import add_adapter, save_adapter
from models.compress import main as compress
from models.loading import load_model
from tests.eval.small_evaluation import small
from tests.local_server import Answer, chat
from tests.models.damaged_folders import DAMAGES, whole_folder
from train.run import main as train

Command = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Malformed:
    """A command line with something wrong in it, or in what it names.

    Attributes:
        kind: what is malformed.
        command: the command's own ``main``.
        arguments: of the command.
        replies: of a server, in whose place ``{server}`` stands in the arguments; empty where none is asked.
    """

    kind: str
    command: Command
    arguments: list[str]
    replies: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Bench:
    """What inputs are made from, once: a whole model and an adapter of it, below a folder for what is damaged."""

    folder: Path
    model: Path
    adapter: Path

    @classmethod
    def at(cls, folder: Path) -> "Bench":
        """A bench in an empty folder."""
        model = whole_folder(folder / "whole" / "model")
        plain, tokenizer = load_model(str(model))
        adapter = folder / "whole" / "adapter"
        save_adapter(add_adapter(plain, 2, 4, 0.0, "all-linear", 0), tokenizer, adapter, str(model))
        (folder / "document.txt").write_text("The iron of the patient was 71, and the zinc 8.")
        return cls(folder, model, adapter)

    def copy(self, whole: Path) -> Path:
        """A copy to be damaged, in the place of the one before."""
        shutil.rmtree(self.folder / "damaged", ignore_errors=True)
        return Path(shutil.copytree(whole, self.folder / "damaged"))


SCALARS: tuple[str, ...] = (
    "null", "true", "0", "-1", "1", "7", "3.5", "-0.0", "1e-400", "1e400", ".inf", "-.inf", ".nan", "''",
    "abc", "~", "'~nouser/x'", "/dev/null", "/proc/self/mem", "..", "'a\\0b'", '"a\\0b"', '"\\ud800"', "ü",
    "日本語", "\u202e", "\x07", "2020-13-45", "2020-12-24", "1:30", "0x" + "f" * 5000, "9" * 5000, "9" * 30,
    "-" + "9" * 30, str(2** 63), str(2** 64), "!!int abc", "!!float abc", "!!bool abc", "!!timestamp abc",
    "!!binary abc", "!!python/name:os.system ''", "*alias", "&a [*a]", "&a {b: *a}", "[]", "{}", "[[]]",
    "[1, 2, 3]", "{a: 1}", "[null]", "{1: 2}", "[" * 2000, "{a: " * 500, "[" * 1500 + "]" * 1500, "x" * 5000,
    "' '", "miniature/nope", "owner/name/more", "http://", "hub:", "a: b", "- a", ": ", "%", "@", "`", "|",
    "> ", "? ", "!", "&", "*", "{", "}", "[", "]", "'", '"', "#", "\t", "1_000", "1,000", "0o17",
)  # fmt: skip
"""Values that are wrong in most places."""

KEYS: tuple[str, ...] = (
    "name", "run_folder", "seed", "predictor", "predictor.model", "predictor.endpoint", "predictor.tokenizer",
    "tasks", "predictor.max_answer_tokens", "predictor.dtype", "predictor.revision", "scorer", "scorer.model",
    "tasks.0", "eval", "tasks.0.name", "tasks.0.source", "tasks.0.split", "tasks.0.documents", "tasks.0.facts",
    "tasks.0.variant", "tasks.9", "tasks.0.columns", "tasks.0.metric", "tasks.0.eval_split", "tasks.1.facts",
    "information.negatives", "compressor", "information.negatives.batch",
    "information.negatives.counterfactual", "information.estimator", "compressor.model", "eval.documents",
    "eval.questions_per_document", "eval.batch_size", "eval.temperature", "eval.greedy", "tracking",
    "compressor.budget_tokens", "compressor.max_context_tokens", "compressor.dtype", "compressor.revision",
    "nope", "", "tasks.0.context_tokens", "tasks.0.instruction", "tracking.wandb", "tracking.project",
    "a.b.c.d", ".", "seed.x",
)  # fmt: skip

TRAINING_KEYS: tuple[str, ...] = (
    "train", "train.steps", "train.contexts_per_step", "train.group_size", "train.micro_batch_messages",
    "train.beta", "train.learning_rate", "train.warmup_steps", "train.temperature", "train.epsilon",
    "train.loss_type", "train.sampler", "train.vllm", "train.vllm.mode", "train.max_grad_norm",
    "train.zero_stage", "train.log_every", "train.save_every", "compressor.lora", "compressor.lora.rank",
    "compressor.lora.alpha", "compressor.lora.dropout", "reward.accuracy", "compressor.lora.target_modules",
    "reward", "reward.information", "reward.length", "reward.length_gate",
)  # fmt: skip

EVALUATION_KEYS: tuple[str, ...] = (
    "compressor.adapter", "compressor.sentences", "reference", "reference.model", "second_scorer",
    "second_scorer.model", "baselines", "baselines.0.name", "baselines.0.budgets", "judge", "judge.endpoint",
    "diagnostics",
)  # fmt: skip

FIELDS: tuple[Any, ...] = (None, 3, "", [], {}, [None], {"text": 3}, "\ud800", True, "a" * 10**5)
"""Values of fields that are wrong in most records."""

TRAINED = ["--config", "mi_rl.yaml", "--dry-run"]
EVALUATED = ["--config", "evaluation.yaml", "compressor.adapter=null", "--dry-run"]


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes of a file as a disk, a transfer or an editor leaves them."""
    place = rng.randrange(len(content) + 1)
    return rng.choice(
        [
            lambda: content[:place],
            lambda: content[place:],
            lambda: content[:place] + bytes(rng.randrange(256) for _ in range(8)) + content[place + 8 :],
            lambda: content[:place] + rng.choice(SCALARS).encode("utf-8", "replace") + content[place:],
            lambda: content.decode("utf-8", "replace").encode("utf-16"),
            lambda: b"\xef\xbb\xbf" + content,
            lambda: content.replace(b'"', b"'"),
            lambda: content.replace(b":", b""),
            lambda: content + content,
            lambda: b"",
            lambda: bytes(1000),
        ]
    )()


def override(bench: Bench, rng: random.Random) -> Malformed:
    command, arguments, more = rng.choice([(train, TRAINED, TRAINING_KEYS), (evaluate, EVALUATED, EVALUATION_KEYS)])
    given = [f"{rng.choice(KEYS + more)}={rng.choice(SCALARS)}" for _ in range(rng.choice((1, 1, 2)))]
    return Malformed("override", command, [*arguments, *(text for text in given if not text.startswith("-"))])


def configuration(bench: Bench, rng: random.Random) -> Malformed:
    recipe = rng.choice(["mi_rl.yaml", "evaluation.yaml", "qasper.yaml"])
    content = (Path(__file__).parents[1] / "configs" / recipe).read_bytes()
    file = bench.folder / "damaged.yaml"
    file.write_bytes(damaged_bytes(content, rng))
    command = evaluate if recipe == "evaluation.yaml" else train
    return Malformed("configuration", command, ["--config", str(file), "--dry-run"])


def record(bench: Bench, rng: random.Random) -> Malformed:
    lines: list[Any] = []
    for number in range(12):
        line: dict[str, Any] = {"context": f"Zinc {number}.", "question": "Zinc?", "answers": [str(number)]}
        for name in rng.sample(["context", "question", "answers", "options", "evidence", "id", "document", "split"], 2):
            if rng.random() < 0.15:
                line[name] = rng.choice(FIELDS)
        lines.append(line if rng.random() < 0.95 else rng.choice(FIELDS))
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    file = bench.folder / f"own{rng.choice(['.jsonl', '.json', '.csv', '.parquet', '.txt', ''])}"
    file.write_bytes(damaged_bytes(content, rng) if rng.random() < 0.6 else content)
    source = f"tasks=[{{name: {rng.choice(['records', 'qasper', 'longhealth', 'wildchat'])}, source: '{file}'}}]"
    return Malformed("record", train, [*TRAINED, source, "information.negatives={batch: 1}"])


def _compressed(bench: Bench, folder: Path, *more: str) -> list[str]:
    return [
        str(folder),
        "--document",
        str(bench.folder / "document.txt"),
        "--question",
        "Zinc?",
        "--budget",
        "3",
        *more,
    ]


def adapter(bench: Bench, rng: random.Random) -> Malformed:
    folder = bench.copy(bench.adapter)
    file = folder / rng.choice(["adapter_config.json", "adapter_config.json", "adapter_model.safetensors"])
    if file.suffix == ".json" and rng.random() < 0.7:
        fields = json.loads(file.read_text())
        fields[rng.choice(sorted(fields))] = rng.choice([None, -1, 0, 10**12, "x", [], {}, 0.5, True, "a/b", [None]])
        file.write_text(json.dumps(fields))
    else:
        file.write_bytes(damaged_bytes(file.read_bytes(), rng))
    return Malformed("adapter", compress, _compressed(bench, folder, *rng.choice([[], ["--model", str(bench.model)]])))


def model_folder(bench: Bench, rng: random.Random) -> Malformed:
    folder = bench.copy(bench.model)
    if rng.random() < 0.3:
        DAMAGES[rng.choice(sorted(DAMAGES))](folder)
        return Malformed("model folder", compress, _compressed(bench, folder))
    file = folder / rng.choice(
        ["config.json", "config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    )
    if file.name == "config.json" and rng.random() < 0.7:
        fields = json.loads(file.read_text())
        fields[rng.choice(sorted(fields))] = rng.choice([None, -1, 0, 3, 10**12, "x", [], {}, 0.5, True, [None]])
        file.write_text(json.dumps(fields))
    else:
        file.write_bytes(damaged_bytes(file.read_bytes(), rng))
    return Malformed("model folder", compress, _compressed(bench, folder))


def reply(bench: Bench, rng: random.Random) -> Malformed:
    whole = json.dumps(chat("71"))
    bodies: list[Any] = [
        "", "null", "[]", "{}", "3", "<html>busy</html>", whole[: rng.randrange(len(whole))], {"choices": []},
        {"choices": None}, {"choices": [{}]}, {"choices": [{"message": None}]}, chat(None), {"error": None},
        {"error": {"message": 3}}, {"choices": [{"message": {"content": 3}}]}, "[" * 5000, chat("\ud800"),
        {"choices": [{"message": {"content": ["a"]}}]}, chat("x" * 10**5),
        damaged_bytes(whole.encode(), rng).decode("latin-1"),
    ]  # fmt: skip
    replies = [Answer(rng.choice(bodies), rng.choice([200, 200, 200, 200, 400, 401, 404, 429, 500])) for _ in range(6)]
    server = "predictor={endpoint: '{server}', model: m, max_answer_tokens: 3, retries: 0, timeout_seconds: 2}"
    arguments = small(bench.folder / "run", server, f"compressor.model={bench.model}", "eval.questions_per_document=1")
    return Malformed("reply", evaluate, arguments, replies)


MAKERS = (override,) * 12 + (configuration,) * 4 + (record,) * 6 + (adapter,) * 3 + (model_folder,) * 4 + (reply,)
"""What makes an input, as often as it is made: of 300, 120 overrides and 10 servers."""
