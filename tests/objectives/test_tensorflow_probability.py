"""The bounds that TensorFlow Probability has too, on the same matrices. Needs `tensorflow-probability[tf]`."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from objectives.critics import jensen_shannon, nwj
from objectives.mutual_information import contrastive, reconstruction

tensorflow = pytest.importorskip("tensorflow")
bounds = pytest.importorskip("tensorflow_probability", exc_type=ImportError).vi.mutual_information


def matrix(messages: int, contexts: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores in nats with the own column ahead of the others, own columns, priors."""
    generator = torch.Generator().manual_seed(seed)
    scores = -40 + 4 * torch.randn(messages, contexts, generator=generator, dtype=torch.float64)
    own = torch.randperm(contexts, generator=generator)[:messages]
    scores[torch.arange(messages), own] += 6
    return scores, own, -40 + torch.randn(messages, generator=generator, dtype=torch.float64)


def double(values: Tensor) -> Any:
    """A TensorFlow tensor; their functions would read an array as float32."""
    return tensorflow.constant(values.numpy(), dtype=tensorflow.float64)


def mask(scores: Tensor, own: Tensor) -> Tensor:
    return torch.arange(scores.shape[1]) == own[:, None]


SHAPES = pytest.mark.parametrize(("messages", "contexts", "seed"), [(5, 5, 0), (3, 16, 1), (64, 64, 2)])


@SHAPES
def test_contrastive_is_info_nce(messages: int, contexts: int, seed: int) -> None:
    scores, own, _ = matrix(messages, contexts, seed)
    expected = float(bounds.lower_bound_info_nce(double(scores), mask(scores, own).numpy(), validate_args=True))
    assert contrastive(scores, own).mean == pytest.approx(expected, abs=1e-12)


@SHAPES
def test_nwj_is_nguyen_wainwright_jordan(messages: int, contexts: int, seed: int) -> None:
    scores, own, prior = matrix(messages, contexts, seed)
    critic = double(scores - prior[:, None])
    expected = float(bounds.lower_bound_nguyen_wainwright_jordan(critic, mask(scores, own).numpy()))
    assert nwj(scores, own, prior).mean == pytest.approx(expected, rel=1e-12, abs=1e-12)


@SHAPES
def test_jensen_shannon_is_theirs_moved_to_0_where_the_critic_knows_nothing(
    messages: int, contexts: int, seed: int
) -> None:
    scores, own, prior = matrix(messages, contexts, seed)
    critic = double(scores - prior[:, None])
    expected = float(bounds.lower_bound_jensen_shannon(critic, mask(scores, own).numpy()))
    assert jensen_shannon(scores, own, prior).mean == pytest.approx(expected + math.log(4), abs=1e-12)


@SHAPES
def test_reconstruction_is_barber_agakov(messages: int, contexts: int, seed: int) -> None:
    scores, own, _ = matrix(messages, contexts, seed)
    own_scores = scores.gather(1, own[:, None])[:, 0]
    expected = float(bounds.lower_bound_barber_agakov(double(own_scores), math.log(contexts)))
    assert reconstruction(own_scores, math.log(contexts)).mean == pytest.approx(expected, abs=1e-12)
