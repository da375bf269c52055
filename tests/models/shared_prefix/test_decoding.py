"""Rows that share prefixes have the hidden states of their sequences read one by one."""

from collections.abc import Sequence

import pytest
import torch
from transformers import PreTrainedModel

from models.shared_prefix.decoding import Decoding, TailLayer
from tests.models.tiny import ARCHITECTURES, SIZE, tiny_model

PREFIX_LENGTHS = (40, 33, 7)
PREFIX_OF_ROW = [0, 0, 1, 2]
SUFFIX_LENGTHS = (3, 1, 6, 2)


def tokens(length: int, seed: int) -> list[int]:
    return torch.randint(4, SIZE["vocab_size"], (length,), generator=torch.Generator().manual_seed(seed)).tolist()


def hidden_after(model: PreTrainedModel, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """The hidden states of the last tokens of whole sequences, each read by itself."""
    passes = [model.base_model(input_ids=torch.tensor([list(ids)]), use_cache=False) for ids in sequences]
    return torch.stack([output.last_hidden_state[0, -1] for output in passes])


@pytest.mark.parametrize("lengths", [PREFIX_LENGTHS, (40, 40, 40)], ids=["padded prefixes", "prefixes of one length"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_hidden_states_are_those_of_whole_sequences_while_rows_come_and_go(
    architecture: str, lengths: tuple[int, ...]
) -> None:
    model = tiny_model(architecture)
    prefixes = [tokens(length, seed) for seed, length in enumerate(lengths)]
    suffixes = [tokens(length, 10 + seed) for seed, length in enumerate(SUFFIX_LENGTHS)]
    decoding = Decoding(model, prefixes, tail_columns=max(SUFFIX_LENGTHS) + 3)
    hidden = decoding.begin(PREFIX_OF_ROW, suffixes)
    sequences = [[*prefixes[prefix], *suffix] for prefix, suffix in zip(PREFIX_OF_ROW, suffixes, strict=True)]
    torch.testing.assert_close(hidden, hidden_after(model, sequences), atol=1e-4, rtol=0)
    # Rows are repeated, then all rows of two prefixes leave, so that one prefix alone is held.
    for step, rows in enumerate(([0, 0, 1, 2, 3, 3], [0, 2, 3, 4], [3])):
        decoding.select(torch.tensor(rows))
        sequences = [[*sequences[row], 5 + step + row] for row in rows]
        hidden = decoding.step(torch.tensor([sequence[-1] for sequence in sequences]))
        torch.testing.assert_close(hidden, hidden_after(model, sequences), atol=1e-4, rtol=0)
    assert len(decoding.prefix_lengths) == 1


@torch.no_grad()
def test_a_prefix_is_read_and_held_once_for_all_its_rows() -> None:
    model = tiny_model("llama")
    read: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    decoding = Decoding(model, [tokens(50, 0)], tail_columns=3)
    decoding.begin([0] * 8, [[5]] * 8)
    decoding.step(torch.full((8,), 6))
    assert read == [50, 8, 8]
    assert all(keys.shape[0] == 1 for keys, _ in decoding.prefix)


def test_a_tail_keeps_what_was_added_and_selects_rows() -> None:
    tail = TailLayer(capacity=5)
    first, second = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 1, 4)
    tail.update(first, -first)
    keys, values = tail.update(second, -second)
    assert torch.equal(keys, torch.cat([first, second], dim=2)) and torch.equal(values, -keys)
    assert (tail.get_seq_length(), tail.get_max_length()) == (4, 5)
    assert tail.get_mask_sizes(1) == (5, 0)
    tail.select(torch.tensor([1, 1, 0]))
    added = torch.zeros(3, 1, 1, 4)
    assert torch.equal(tail.update(added, added)[0], torch.cat([keys[[1, 1, 0]], added], dim=2))
