"""Shared-prefix log-probabilities equal the plain computation, on every kind of attention, and read prefixes once."""

import random
from collections.abc import Iterator, Sequence
from typing import Any, cast

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel

from models.naming import ModelError
from models.shared_prefix import Continuation, batched_message_log_probs, scoring, token_scores
from tests.models.plain_pass import full_sequence_log_probs
from tests.models.tiny import ARCHITECTURES, SIZE, tiny_model

VOCABULARY = SIZE["vocab_size"]


def tokens(generator: random.Random, length: int) -> list[int]:
    return [generator.randrange(VOCABULARY) for _ in range(length)]


def message_log_probs(
    model: PreTrainedModel, prefix: Sequence[int], continuations: Sequence[Continuation], **options: Any
) -> list[torch.Tensor]:
    """Log-probabilities after a single prefix."""
    return batched_message_log_probs(model, [prefix], [continuations], **options)[0]


def make_jobs() -> tuple[list[list[int]], list[list[Continuation]]]:
    """Prefixes shorter and longer than the window, with one to four continuations of uneven length."""
    generator = random.Random(0)
    prefixes = [tokens(generator, length) for length in (40, 40, 37, 9, 55, 12)]
    continuations = [
        [Continuation(tokens(generator, generator.randint(1, 5)), tokens(generator, generator.randint(1, 9)))] * repeats
        + [Continuation(tokens(generator, 3), tokens(generator, 6)), Continuation(tokens(generator, 1), [5])]
        for repeats in (1, 2, 1, 1, 0, 1)
    ]
    shared = tokens(generator, 4)
    continuations[1] = [Continuation(shared + list(suffix), message) for suffix, message in continuations[1]]
    continuations[2] = [Continuation(shared, message) for _, message in continuations[2]]
    return prefixes, continuations


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("max_tokens", "max_logits"), [(8192, 1 << 27), (150, 1 << 27), (8192, 10 * VOCABULARY), (1, 1)]
)
def test_log_probs_equal_one_pass_over_each_whole_sequence(architecture: str, max_tokens: int, max_logits: int) -> None:
    model = tiny_model(architecture)
    prefixes, continuations = make_jobs()
    scored = batched_message_log_probs(model, prefixes, continuations, max_tokens, max_logits)
    for prefix, group, rows in zip(prefixes, continuations, scored, strict=True):
        assert len(rows) == len(group)
        for (suffix, message), row in zip(group, rows, strict=True):
            with torch.no_grad():
                expected = full_sequence_log_probs(model, [*prefix, *suffix, *message], len(message))
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def lora(model: PreTrainedModel) -> PeftModel:
    """A random adapter on every linear layer, both of its matrices at work."""
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.2)
    assert isinstance(adapted, PeftModel)
    return adapted


def gradients(model: PeftModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("max_tokens", "max_logits", "checkpointing", "only"),
    [
        (8192, 1 << 27, False, None),
        (150, 10 * VOCABULARY, False, None),
        (8192, 1 << 27, True, None),
        (8192, 1 << 27, False, 1),
    ],
)
def test_gradients_equal_those_of_one_pass_over_each_whole_sequence(
    architecture: str, max_tokens: int, max_logits: int, checkpointing: bool, only: int | None
) -> None:
    model = lora(tiny_model(architecture))
    if checkpointing:
        model.train()
        cast(Any, model).gradient_checkpointing_enable({"use_reentrant": False})
    prefixes, continuations = make_jobs()
    if only is not None:
        prefixes, continuations = prefixes[only : only + 1], [continuations[only][:1]]
    generator = torch.Generator().manual_seed(0)
    weights = [[torch.randn(len(m), generator=generator) for _, m in group] for group in continuations]
    scored = token_scores(model, prefixes, continuations, 1.3, max_tokens, max_logits)
    shared, plain = torch.zeros(()), torch.zeros(())
    for prefix, group, group_weights, rows in zip(prefixes, continuations, weights, scored, strict=True):
        for (suffix, message), weight, scores in zip(group, group_weights, rows, strict=True):
            ids = torch.tensor([[*prefix, *suffix, *message]])
            log_probs = (model(ids, use_cache=False).logits[0] / 1.3).log_softmax(-1)[-len(message) - 1 : -1]
            shared = shared + (weight * scores.log_probs).sum()
            plain = plain + (weight * log_probs.gather(1, ids[0, -len(message) :, None])[:, 0]).sum()
            entropies = -(log_probs.exp() * log_probs).sum(-1)
            torch.testing.assert_close(scores.entropies, entropies, atol=1e-4, rtol=0)
    expected = gradients(model, plain)
    for name, gradient in gradients(model, shared).items():
        assert (gradient - expected[name]).norm() <= 1e-3 * expected[name].norm(), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("max_tokens", [8192, 150])
def test_versions_of_one_document_are_read_as_branches_of_what_they_have_in_common(
    architecture: str, max_tokens: int
) -> None:
    model, generator = tiny_model(architecture), random.Random(3)
    document = tokens(generator, 60)
    changed = [[*document[:at], 0, *document[at + 1 :]] for at in (40, 40, 45)]
    prefixes = [document, changed[0][:-1], *changed, tokens(generator, 50), document[:50]]
    suffixes = [tokens(generator, 3) for _ in range(3)]
    continuations = [[Continuation(suffix, tokens(generator, 5)) for suffix in suffixes] for _ in prefixes]
    scored = batched_message_log_probs(model, prefixes, continuations, max_tokens)
    for prefix, group, rows in zip(prefixes, continuations, scored, strict=True):
        for (suffix, message), row in zip(group, rows, strict=True):
            with torch.no_grad():
                expected = full_sequence_log_probs(model, [*prefix, *suffix, *message], len(message))
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def test_what_prefixes_have_in_common_is_read_once() -> None:
    model = tiny_model("llama")
    prefixes = [[5] * 50 + [version] * 10 for version in (1, 2, 3)]
    continuations = [[Continuation([7], [8, 9]), Continuation([6], [8])] for _ in prefixes]
    message_log_probs(model, prefixes[0], continuations[0])
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    batched_message_log_probs(model, prefixes, continuations)
    # Of the messages all but the last token, of the questions every one.
    assert read == [50 + 3 * (10 + 1 + 1 + 1)]


def test_a_prefix_as_long_as_the_budget_is_still_read_for_many_messages() -> None:
    model, prefix = tiny_model("llama"), [5] * 60
    continuations = [Continuation([7], [8, 9, 10, version]) for version in range(30)]
    message_log_probs(model, prefix, continuations[:1])
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    message_log_probs(model, prefix, continuations, max_tokens_per_pass=60)
    assert read == [61 + 20 * 3, 61 + 10 * 3]


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_more_messages_than_the_prefix_is_long_are_attended_to_in_pieces(architecture: str) -> None:
    model, generator = tiny_model(architecture), random.Random(2)
    prefix = tokens(generator, 40)
    group = [Continuation(tokens(generator, 2), tokens(generator, generator.randint(1, 20))) for _ in range(60)]
    assert sum(len(message) for _, message in group) > 2 * 256
    for (suffix, message), row in zip(group, message_log_probs(model, prefix, group), strict=True):
        with torch.no_grad():
            expected = full_sequence_log_probs(model, [*prefix, *suffix, *message], len(message))
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=0)


def test_one_prefix_alone_gives_what_it_gives_among_others() -> None:
    model = tiny_model("mistral")
    prefixes, continuations = make_jobs()
    together = batched_message_log_probs(model, prefixes, continuations)[3]
    alone = message_log_probs(model, prefixes[3], continuations[3])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=0)


def test_a_prefix_is_read_once_and_messages_alone_are_projected() -> None:
    model = tiny_model("llama")
    prefix, suffix, messages = [3] * 30, [7, 8, 9], [[1] * 10, [2] * 4, [4]]
    continuations = [Continuation(suffix, message) for message in messages]
    # The first call to a model checks its projection.
    message_log_probs(model, prefix, continuations)
    read, projected = [], []
    embedding, projection = model.get_input_embeddings(), model.get_output_embeddings()
    assert projection is not None
    embedding.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    projection.register_forward_hook(lambda _, inputs, __: projected.append(inputs[0].shape[:-1].numel()))
    message_log_probs(model, prefix, continuations)
    # The last token of a message predicts nothing.
    assert read == [30 + 3 + 9 + 3 + 0]
    assert projected == [10 + 4 + 1]


def test_scores_are_float32_and_carry_no_gradient() -> None:
    model = tiny_model("qwen2").bfloat16()
    (row,) = message_log_probs(model, [1, 2, 3], [Continuation([4], [5, 6])])
    assert row.dtype == torch.float32
    assert not row.requires_grad


def test_a_prefix_without_continuations_is_not_read() -> None:
    model = tiny_model("qwen2")
    assert batched_message_log_probs(model, [[1, 2], [3]], [[], [Continuation([4], [5])]])[0] == []


@pytest.mark.parametrize(
    ("prefix", "continuation", "reason"),
    [
        ([1], Continuation([], [2]), "at least one suffix token"),
        ([1], Continuation([2], []), "one message token"),
        ([], Continuation([1], [2]), "prefix 0 is empty"),
    ],
)
def test_what_cannot_be_scored_is_named(prefix: list[int], continuation: Continuation, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        message_log_probs(tiny_model("qwen2"), prefix, [continuation])


def test_a_model_that_ignores_the_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would read all messages of a context as one long sequence.
    monkeypatch.setattr(scoring, "share_prefixes", lambda model: model)
    with pytest.raises(ModelError, match="qwen2 does not attend through transformers' attention interface"):
        scoring.batched_message_log_probs(tiny_model("qwen2"), [[1, 2]], [[Continuation([3], [4])]])


def test_gradients_are_the_same_bits_whenever_two_threads_compute_them(two_threads: None) -> None:
    """The states that messages of a group start from get gradients of all of them, added in one order."""
    model = lora(tiny_model("qwen2"))
    generator = random.Random(0)
    prefix, suffix = tokens(generator, 30), tokens(generator, 3)
    continuations = [Continuation(suffix, tokens(generator, 24)) for _ in range(96)]

    def once() -> list[bytes]:
        scores = token_scores(model, [prefix], [continuations])[0]
        loss = torch.cat([message.log_probs for message in scores]).sum()
        return [gradient.numpy().tobytes() for gradient in gradients(model, loss).values()]

    expected = once()
    assert all(once() == expected for _ in range(8))


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
