"""What reading every context once saves: ``make bench``, or ``python -m eval.benchmark --out runs/bench``.

Times scoring, the policy update, rollouts and the whole step beside the straightforward way (stock TRL GRPO,
transformers' ``generate``, scoring of full sequences with only the needed logits kept): one process, warm, alternating,
medians. Where there is a CUDA GPU it is measured as well, with a larger model.
"""

import argparse
import ctypes
import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from jaxtyping import Int
from matplotlib.figure import Figure
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from models.generation import generate
from models.loading import load_model
from models.shared_prefix import Continuation, batched_message_log_probs
from train.shared_prefix_trainer import SharedPrefixGRPOTrainer

VOCABULARY = 8192
PHASES = ("scoring", "update", "rollout", "step")


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        phase: one of ``PHASES``.
        context: tokens of each context, the question included.
        message: tokens of each message.
        group: messages of each context.
        contexts: contexts of a batch; each message is scored under every one of them, its own and the negatives.
    """

    phase: str
    context: int
    message: int
    group: int
    contexts: int

    @property
    def messages(self) -> int:
        """Messages of a batch."""
        return self.group * self.contexts

    def tokens(self, once: bool) -> int:
        """Tokens that go through the model: each context read once, or once for every message."""
        prefix, tail = self.contexts * self.context, self.messages * self.message
        sampling = prefix + tail if once else self.messages * (self.context + self.message)
        scoring = prefix + self.contexts * tail if once else self.contexts * sampling
        return {"rollout": sampling, "update": 3 * sampling, "scoring": scoring}.get(self.phase, 4 * sampling + scoring)


@dataclass(frozen=True)
class Row:
    """What one case showed: seconds, megabytes above what was held before, and how close to the floor we are.

    ``floor_share`` is the measured ratio over the ratio of the tokens; ``matmul_share`` is our rate of multiplications
    with parameters (attention left out) over the machine's own rate.
    """

    phase: str
    context: int
    message: int
    group: int
    contexts: int
    device: str
    ours_s: float
    stock_s: float
    ratio: float
    floor_share: float
    ours_tokens: int
    stock_tokens: int
    ours_peak_mb: float | None
    stock_peak_mb: float | None
    matmul_share: float


class Subject:
    """The model that is measured, with a LoRA adapter, and the trainer that stock TRL's update comes from."""

    def __init__(self, device: str, folder: str) -> None:
        """A random model, big enough to be bound by computation: four layers of 256 on a CPU."""
        self.device = device
        on_gpu = device == "cuda"
        torch.manual_seed(0)
        width, layers = (2048, 16) if on_gpu else (256, 4)
        config = Qwen2Config(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // 64,
            num_key_value_heads=width // 64,
            max_position_embeddings=1 << 17,
            eos_token_id=None,
            bos_token_id=None,
        )
        self.base: PreTrainedModel = Qwen2ForCausalLM(config)
        self.base.to(device=device, dtype=torch.bfloat16 if on_gpu else torch.float32)  # type: ignore[call-arg]
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        adapted = get_peft_model(self.base, lora)
        assert isinstance(adapted, PeftModel)
        self.model = adapted
        self.trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        self.parameters = sum(
            p.numel() for n, p in self.base.named_parameters() if "embed" not in n and "lora" not in n
        )
        # TRL's defaults, bfloat16 and checkpointing, are for GPUs: a CPU computes the former many times slower.
        arguments = GRPOConfig(
            output_dir=folder,
            report_to=[],
            use_cpu=not on_gpu,
            bf16=on_gpu,
            gradient_checkpointing=on_gpu,
            per_device_train_batch_size=8,
        )
        self.trainer = SharedPrefixGRPOTrainer(
            model=adapted,
            reward_funcs=[_no_reward],
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": ["-"]}),
            processing_class=load_model("miniature/qwen2-small")[1],
        )

    def synchronise(self) -> None:
        """Wait for what the device still computes."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def _no_reward(completions: Sequence[Any], **_: Any) -> list[float | None]:
    return [0.0] * len(completions)


def tensors(case: Case) -> tuple[Int[Tensor, "contexts tokens"], Int[Tensor, "messages tokens"]]:
    """Random contexts and messages, groups contiguous."""
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randint(0, VOCABULARY, (case.contexts, case.context), generator=generator)
    return contexts, torch.randint(0, VOCABULARY, (case.messages, case.message), generator=generator)


def score_ours(subject: Subject, case: Case) -> None:
    """Every message under every context, contexts read once."""
    contexts, messages = tensors(case)
    jobs = [[Continuation(row[-1:], message) for message in messages.tolist()] for row in contexts.tolist()]
    with subject.model.disable_adapter():
        batched_message_log_probs(subject.base, contexts[:, :-1].tolist(), jobs)


@torch.no_grad()
def score_stock(subject: Subject, case: Case) -> None:
    """Every message under every context as a full sequence, in batches of its group."""
    contexts, messages = (part.to(subject.device) for part in tensors(case))
    with subject.model.disable_adapter():
        for context in contexts:
            for group in messages.split(8):
                ids = torch.cat([context.expand(len(group), -1), group], dim=1)
                logits = subject.base(input_ids=ids, use_cache=False, logits_to_keep=case.message + 1).logits[:, :-1]
                logits.float().log_softmax(-1).gather(-1, group[..., None])


def update(subject: Subject, case: Case, trainer_class: type[GRPOTrainer]) -> None:
    """Log-probabilities of all messages and their gradient, as GRPO's loss takes them; a micro batch is a group."""
    contexts, messages = (part.to(subject.device) for part in tensors(case))
    subject.model.train()
    for context, group in zip(contexts, messages.split(case.group), strict=True):
        ids = torch.cat([context.expand(len(group), -1), group], dim=1)
        log_probs, _, _ = trainer_class._get_per_token_logps_and_entropies(
            subject.trainer, subject.model, ids, torch.ones_like(ids), case.message, compute_entropy=True
        )
        log_probs.sum().backward()
    for parameter in subject.trained:
        parameter.grad = None
    subject.model.eval()


def roll_out_ours(subject: Subject, case: Case) -> None:
    """A group of messages for every context: read once, then decoded together."""
    contexts, _ = tensors(case)
    # No token ends a message, so that both ways write the same number.
    generate(subject.model, contexts.tolist(), case.message, -1, case.group, 1.0, list(range(case.contexts)))  # type: ignore[arg-type]


@torch.no_grad()
def roll_out_stock(subject: Subject, case: Case) -> None:
    """transformers' ``generate`` on prompts repeated for their group."""
    contexts, _ = tensors(case)
    ids = contexts.to(subject.device).repeat_interleave(case.group, dim=0)
    options = {"max_new_tokens": case.message, "min_new_tokens": case.message, "do_sample": True, "pad_token_id": 0}
    subject.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), top_k=0, **options)


def step_ours(subject: Subject, case: Case) -> None:
    """One training step: sampling, scoring, update."""
    roll_out_ours(subject, case)
    score_ours(subject, case)
    update(subject, case, SharedPrefixGRPOTrainer)


def step_stock(subject: Subject, case: Case) -> None:
    """The same in the straightforward way."""
    roll_out_stock(subject, case)
    score_stock(subject, case)
    update(subject, case, GRPOTrainer)


WAYS: dict[str, tuple[Callable[[Subject, Case], None], Callable[[Subject, Case], None]]] = {
    "scoring": (score_ours, score_stock),
    "update": (
        lambda subject, case: update(subject, case, SharedPrefixGRPOTrainer),
        lambda subject, case: update(subject, case, GRPOTrainer),
    ),
    "rollout": (roll_out_ours, roll_out_stock),
    "step": (step_ours, step_stock),
}


def cases(quick: bool) -> list[Case]:
    """What is measured: the headline at a context of 1,024, then one size varied at a time."""
    headline = [
        Case("scoring", 1024, 48, 4, 16),
        Case("update", 1024, 48, 8, 2),
        Case("rollout", 1024, 48, 8, 2),
        Case("step", 1024, 48, 8, 4),
    ]
    if quick:
        return headline
    return [
        *headline,
        *(Case("scoring", context, 48, 4, 8) for context in (256, 512, 1024, 2048, 4096)),
        *(Case("scoring", 1024, 48, 4, contexts) for contexts in (2, 4)),
        *(Case("scoring", 1024, message, 4, 8) for message in (16, 128)),
        *(Case("update", context, 48, 8, 1) for context in (256, 512, 1024, 2048, 4096)),
        *(Case("update", 1024, 48, group, 1) for group in (2, 4, 16)),
        *(Case("update", 1024, message, 8, 1) for message in (16, 128)),
        *(Case("rollout", context, 48, 8, 1) for context in (256, 1024, 4096)),
        *(Case("rollout", 1024, 48, group, 1) for group in (2, 16)),
        Case("step", 4096, 48, 8, 2),
    ]


def measure(subject: Subject, case: Case, repeats: int, matmul_rate: float) -> Row:
    """Both ways in turn, after one call of each that is not counted but for the memory it takes."""
    ours, stock = WAYS[case.phase]
    ours_peak = peak_megabytes(subject, lambda: ours(subject, case))
    stock_peak = peak_megabytes(subject, lambda: stock(subject, case))
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, times in zip((ours, stock), seconds, strict=True):
            start = time.perf_counter()
            way(subject, case)
            subject.synchronise()
            times.append(time.perf_counter() - start)
    ours_s, stock_s = (statistics.median(times) for times in seconds)
    ours_tokens, stock_tokens = case.tokens(once=True), case.tokens(once=False)
    return Row(
        **asdict(case),
        device=subject.device,
        ours_s=ours_s,
        stock_s=stock_s,
        ratio=stock_s / ours_s,
        floor_share=(stock_s / ours_s) / (stock_tokens / ours_tokens),
        ours_tokens=ours_tokens,
        stock_tokens=stock_tokens,
        ours_peak_mb=ours_peak,
        stock_peak_mb=stock_peak,
        matmul_share=2 * subject.parameters * ours_tokens / ours_s / matmul_rate,
    )


def peak_megabytes(subject: Subject, way: Callable[[], None]) -> float | None:
    """The most memory a call holds above what was held before it; None where the system does not say."""
    gc.collect()
    if subject.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        way()
        return None
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    # 5 sets the high-water mark back to what is resident now (man 5 proc).
    reset.write_text("5")
    before = _status_megabytes("VmRSS")
    way()
    return _status_megabytes("VmHWM") - before


def _status_megabytes(field: str) -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024 / 1e6


def matmul_flops(device: str) -> float:
    """The machine's own rate of multiply-adds times two a second: the best of several square products."""
    size, dtype = (8192, torch.bfloat16) if device == "cuda" else (1024, torch.float32)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        torch.mm(left, right)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - start))
    return best


def draw(rows: Sequence[Row], path: Path) -> None:
    """How the cost of one phase grows with the length of the context, both axes logarithmic."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, phase in zip(figure.subplots(1, 3), PHASES[:3], strict=True):
        chosen = [row for row in rows if row.phase == phase]
        varied = {(row.message, row.group, row.contexts) for row in chosen}
        best = max(varied, key=lambda key: sum((row.message, row.group, row.contexts) == key for row in chosen))
        line = sorted((r for r in chosen if (r.message, r.group, r.contexts) == best), key=lambda row: row.context)
        contexts = [row.context for row in line]
        axis.loglog(contexts, [row.stock_s for row in line], "s--", color="tab:gray", label="straightforward")
        axis.loglog(contexts, [row.ours_s for row in line], "o-", color="tab:blue", label="context read once")
        floor = [row.stock_s * row.ours_tokens / row.stock_tokens for row in line]
        axis.loglog(contexts, floor, ":", color="tab:green", label="what the token counts allow")
        axis.set(title=f"{phase}: {best[1]} messages of {best[0]}, {best[2]} contexts", xlabel="context, tokens")
        axis.set_xticks(contexts, [str(context) for context in contexts])
        axis.title.set_fontsize(9)
    figure.axes[0].set_ylabel("seconds")
    figure.axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(path)


def table(rows: Sequence[Row]) -> str:
    """The rows as text."""
    columns = ("phase", "context", "message", "group", "contexts", "device", "tokens", "stock's", "ours, s", "stock, s")
    head = [*columns, "ratio", "of the floor", "MB", "stock MB", "of matmul"]
    lines = ["  ".join(f"{name:>12}" for name in head)]
    for row in rows:
        cells = [row.phase, row.context, row.message, row.group, row.contexts, row.device]
        cells += [row.ours_tokens, row.stock_tokens, f"{row.ours_s:.3f}", f"{row.stock_s:.3f}", f"{row.ratio:.2f}"]
        peaks = [_megabytes(row.ours_peak_mb), _megabytes(row.stock_peak_mb)]
        cells += [f"{row.floor_share:.0%}", *peaks, f"{row.matmul_share:.0%}"]
        lines.append("  ".join(f"{cell!s:>12}" for cell in cells))
    return "\n".join(lines)


def _megabytes(peak: float | None) -> str:
    return "unknown" if peak is None else f"{peak:.0f}"


def main() -> None:
    """Parse the command line, measure, print, write ``bench.json`` and ``bench.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder for bench.json and bench.png")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls of each way")
    parser.add_argument("--quick", action="store_true", help="the headline cases alone")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        with tempfile.TemporaryDirectory() as folder:
            subject = Subject(device, folder)
        rate = matmul_flops(device)
        print(f"{device}: {torch.get_num_threads()} threads, {rate / 1e9:.0f} GFLOP/s in a square product")
        for case in tqdm(cases(arguments.quick), desc=device, unit="case"):
            rows.append(measure(subject, case, arguments.repeats, rate))
            (arguments.out / "bench.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    print(table(rows))
    if not arguments.quick:
        draw([row for row in rows if row.device == rows[-1].device], arguments.out / "bench.png")


if __name__ == "__main__":
    main()
