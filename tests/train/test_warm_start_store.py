"""Runs that begin in the very same way share a warm start, and no others do."""

import threading
from pathlib import Path
from typing import Any

import pytest

from configs.errors import ConfigError
from models.fingerprint import is_trainable, parameter_hash
from tests.train.test_warm_start import prepared
from train.run_folder import WARM_START
from train.warm_start import job as module
from train.warm_start.fine_tuning import fine_tune
from train.warm_start.job import warm_start
from train.warm_start.store import held


def test_what_begins_alike_is_learned_once_and_what_does_not_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    learned: list[str] = []

    def counted(*arguments: Any) -> list[float]:
        learned.append("once")
        return fine_tune(*arguments)

    monkeypatch.setattr(module, "fine_tune", counted)
    store = f"train.warm_start_store={tmp_path / 'store'}"
    hashes = {}
    for name, change, times in (
        ("first", "reward.information=1", 1),
        ("other reward", "reward.information=0", 1),
        ("other seed", "seed=3", 2),
        ("other rate", "train.warm_start={examples: 8, batch_size: 4, epochs: 2, learning_rate: 1.0e-3}", 3),
        ("other clipping", "train.max_grad_norm=0.1", 4),
        ("other questions", "tasks=[{name: miniature/notes, facts: 5}]", 5),
        ("other dropout", "compressor.lora.dropout=0.5", 6),
        ("other scale", "compressor.lora.alpha=8", 7),
    ):
        config, models, samples = prepared(tmp_path / name, store, change)
        summary = warm_start(config, models, samples)
        assert len(learned) == times and summary["steps"] == 4 and (config.folder / WARM_START).is_dir(), name
        hashes[name] = parameter_hash(models.adapted, is_trainable)
    assert hashes["first"] == hashes["other reward"] and len(set(hashes.values())) == 7
    assert "another run began in the same way" in capsys.readouterr().out
    # A damaged one is named, and made again.
    for weights in (tmp_path / "store").rglob("adapter_model.safetensors"):
        weights.write_bytes(b"damaged")
    config, models, samples = prepared(tmp_path / "again", store, "reward.information=1")
    warm_start(config, models, samples)
    assert len(learned) == 8 and parameter_hash(models.adapted, is_trainable) == hashes["first"]
    assert "the warm start is done again" in capsys.readouterr().err


def test_who_makes_the_same_one_waits(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with held(tmp_path / "store", "name"):
            order.append("second")

    waiting = threading.Thread(target=second)
    with held(tmp_path / "store", "name"), held(tmp_path / "store", "another"):
        waiting.start()
        waiting.join(0.3)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]


def test_several_processes_are_refused_a_store(tmp_path: Path) -> None:
    config, _, _ = prepared(tmp_path, f"train.warm_start_store={tmp_path}")
    config.check_world_size(1)
    with pytest.raises(ConfigError, match="for runs of one process"):
        config.check_world_size(2)
