"""What is timed: each phase of a training step in our way and in the straightforward way, on the same random model."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from datasets import Dataset
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM
from trl import GRPOConfig, GRPOTrainer

from models.adapters import add_adapter
from models.fingerprint import is_base
from models.loading import load_model
from models.shared_prefix import Continuation, batched_message_log_probs, generate
from train.benchmark.cases import Case
from train.grpo.shared_prefix_trainer import SharedPrefixGRPOTrainer

VOCABULARY = 2048
"""As heavy as a real one: the projection onto it is 18% of the body's parameters in a Qwen2.5 of 1.5B (151,936 x 1,536
of 1.31 G), and 15% here (2,048 x 256 of 3.41 M); 8,192 would make it 61%."""

STOCK_BATCH = 8
"""Full sequences that the straightforward way scores at a time, as many as a micro batch of TRL holds by default."""


class Subject:
    """The model that is measured, with a LoRA adapter, and the trainer that stock TRL's update comes from.

    Attributes:
        device: ``cpu`` or ``cuda``.
        base: the model; its layers hold the adapter.
        model: the model with its adapter.
        trained: the adapter's parameters.
        projection: parameters of the projection onto the vocabulary.
        body: parameters of the rest, embeddings left out.
        vocabulary: the number of tokens there are.
        trainer: TRL's trainer with our override; stock's methods run on it as well.
    """

    def __init__(self, device: str, folder: str, base: PreTrainedModel | None = None) -> None:
        """Build adapter and trainer on a device.

        Args:
            device: ``cpu`` or ``cuda``.
            folder: the trainer's output folder.
            base: the model, on that device; a random one without it.
        """
        self.device = device
        self.base = _random_model(device) if base is None else base
        adapted = self.model = add_adapter(self.base, 16, 32, 0.0, "all-linear", seed=0)
        self.trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
        weights = [weight.numel() for name, weight in self.base.named_parameters() if is_base(name, weight)]
        embedding, head = (
            cast(nn.Linear, layer).weight
            for layer in (self.base.get_input_embeddings(), self.base.get_output_embeddings())
        )
        self.projection = head.numel()
        # Where both are one parameter, it is named once.
        self.body = sum(weights) - self.projection - (0 if head is embedding else embedding.numel())
        self.vocabulary = len(embedding)
        on_gpu = device == "cuda"
        # TRL's defaults, autocasting and checkpointing, are for GPUs: on a CPU the model's own type is what is timed.
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


def model_size(device: str) -> tuple[int, int]:
    """Width and layers of the model: as small as it can be and still be bound by computation on the device."""
    return (2048, 16) if device == "cuda" else (256, 4)


def _random_model(device: str) -> PreTrainedModel:
    """An untrained Qwen2 without an end token, so that no message ends early."""
    torch.manual_seed(0)
    width, layers = model_size(device)
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
    model = Qwen2ForCausalLM(config)
    cast(nn.Module, model).to(device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    return model


def _no_reward(completions: Sequence[Any], **_: Any) -> list[float | None]:
    """A reward function, which TRL's trainer cannot be built without."""
    return [0.0] * len(completions)


def random_tokens(
    case: Case, vocabulary: int = VOCABULARY
) -> tuple[Int[Tensor, "contexts tokens"], Int[Tensor, "messages tokens"]]:
    """Random contexts and messages, groups contiguous."""
    generator = torch.Generator().manual_seed(0)
    contexts = torch.randint(0, vocabulary, (case.contexts, case.context), generator=generator)
    return contexts, torch.randint(0, vocabulary, (case.messages, case.message), generator=generator)


def score_ours(subject: Subject, case: Case) -> None:
    """Every message under every context, contexts read once."""
    contexts, messages = random_tokens(case, subject.vocabulary)
    jobs = [[Continuation(row[-1:], message) for message in messages.tolist()] for row in contexts.tolist()]
    with subject.model.disable_adapter():
        batched_message_log_probs(subject.base, contexts[:, :-1].tolist(), jobs)


@torch.no_grad()
def score_stock(subject: Subject, case: Case) -> None:
    """Every message under every context as a full sequence, ``STOCK_BATCH`` at a time."""
    contexts, messages = (part.to(subject.device) for part in random_tokens(case, subject.vocabulary))
    with subject.model.disable_adapter():
        for context in contexts:
            for group in messages.split(STOCK_BATCH):
                ids = torch.cat([context.expand(len(group), -1), group], dim=1)
                logits = subject.base(input_ids=ids, use_cache=False, logits_to_keep=case.message + 1).logits[:, :-1]
                logits.float().log_softmax(-1).gather(-1, group[..., None])


def update_policy(subject: Subject, case: Case, trainer_class: type[GRPOTrainer]) -> None:
    """Log-probabilities of all messages and their gradient, as GRPO's loss takes them; a micro batch is a group.

    ``trainer_class`` is the trainer whose computation is timed.
    """
    contexts, messages = (part.to(subject.device) for part in random_tokens(case, subject.vocabulary))
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
    """A group of messages for every context, which is read once; all of them are decoded together."""
    contexts, _ = random_tokens(case, subject.vocabulary)
    # No token ends a message, so that both ways write the same number.
    generate(subject.model, contexts.tolist(), case.message, -1, case.group, 1.0, list(range(case.contexts)))


@torch.no_grad()
def roll_out_stock(subject: Subject, case: Case) -> None:
    """transformers' ``generate`` on prompts repeated for their group."""
    contexts, _ = random_tokens(case, subject.vocabulary)
    ids = contexts.to(subject.device).repeat_interleave(case.group, dim=0)
    options = {"max_new_tokens": case.message, "min_new_tokens": case.message, "do_sample": True, "pad_token_id": 0}
    subject.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), top_k=0, **options)


def step_ours(subject: Subject, case: Case) -> None:
    """One training step: sampling, scoring, update."""
    roll_out_ours(subject, case)
    score_ours(subject, case)
    update_policy(subject, case, SharedPrefixGRPOTrainer)


def step_stock(subject: Subject, case: Case) -> None:
    """One training step in the straightforward way: sampling, scoring, update."""
    roll_out_stock(subject, case)
    score_stock(subject, case)
    update_policy(subject, case, GRPOTrainer)


WAYS: dict[str, tuple[Callable[[Subject, Case], None], Callable[[Subject, Case], None]]] = {
    "scoring": (score_ours, score_stock),
    "update": (
        lambda subject, case: update_policy(subject, case, SharedPrefixGRPOTrainer),
        lambda subject, case: update_policy(subject, case, GRPOTrainer),
    ),
    "rollout": (roll_out_ours, roll_out_stock),
    "step": (step_ours, step_stock),
}
"""Our way and the straightforward way of each phase."""
