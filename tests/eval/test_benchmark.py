"""The benchmark counts the tokens that are read, and both of its ways compute the same."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from eval import benchmark
from eval.benchmark import PHASES, Case, Subject, cases, draw, measure, table

SMALL = Case("scoring", context=24, message=5, group=2, contexts=3)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return Subject("cpu", str(tmp_path_factory.mktemp("subject")))


def tokens_read(subject: Subject, way: str, case: Case) -> int:
    read: list[int] = []
    embedding = subject.base.get_input_embeddings()
    handle = embedding.register_forward_hook(lambda _, inputs, __: read.append(inputs[0].numel()))
    benchmark.WAYS[case.phase][("ours", "stock").index(way)](subject, case)
    handle.remove()
    return sum(read)


def test_the_tokens_of_scoring_and_update_are_those_that_are_read(subject: Subject) -> None:
    for phase, backward in (("scoring", 1), ("update", 3)):
        case = replace(SMALL, phase=phase)
        tokens_read(subject, "ours", case)
        for way in ("ours", "stock"):
            counted = case.tokens(once=way == "ours") // backward
            # The last token of a message predicts nothing, and the last of a context is read with each message.
            slack = case.messages * (case.contexts if phase == "scoring" else 1) + case.contexts
            assert abs(tokens_read(subject, way, case) - counted) <= slack, (phase, way)


def test_a_rollout_reads_every_context_once_and_stock_once_a_message(subject: Subject) -> None:
    case = replace(SMALL, phase="rollout")
    for way in ("ours", "stock"):
        read, counted = tokens_read(subject, way, case), case.tokens(once=way == "ours")
        # What was written last is not read.
        assert counted - case.messages <= read <= counted


def test_a_row_holds_what_was_measured(subject: Subject, tmp_path: Path) -> None:
    rows = [measure(subject, replace(SMALL, phase=phase), 1, 1e11) for phase in PHASES]
    for row in rows:
        assert row.ours_s > 0 and row.ratio == pytest.approx(row.stock_s / row.ours_s)
        assert row.floor_share == pytest.approx(row.ratio * row.ours_tokens / row.stock_tokens)
    assert len(table(rows).splitlines()) == 5
    draw([row for row in rows for row in (row, replace(row, context=48))], tmp_path / "bench.png")
    assert (tmp_path / "bench.png").stat().st_size > 1000


def test_the_headline_covers_every_phase_and_the_sweep_the_asked_for_lengths() -> None:
    assert tuple(case.phase for case in cases(quick=True)) == PHASES
    contexts = {case.context for case in cases(quick=False) if case.phase == "update"}
    assert {256, 1024, 4096} <= contexts


def test_nothing_is_left_in_the_model(subject: Subject) -> None:
    assert all(parameter.grad is None for parameter in subject.trained)
    assert {name for name, p in subject.model.named_parameters() if p.requires_grad} == {
        name for name, _ in subject.model.named_parameters() if ".lora_" in name
    }
    assert torch.is_grad_enabled()
