"""Checkpoints: whole or absent, and every damage named."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest

from train.checkpoints.checkpoint import (
    CHECKPOINTS,
    MANIFEST,
    PARTIAL,
    checkpoints_in,
    drop_old,
    find_checkpoint,
    partial_folder,
    publish,
    put_back,
)


def write(run_folder: Path, step: int, reward: float | None = None) -> Path:
    """A checkpoint as Trainer and DeepSpeed lay it out, with files of random bytes."""
    checkpoints = run_folder / CHECKPOINTS
    written = partial_folder(checkpoints, create=True) / f"checkpoint-{step}"
    (written / f"global_step{step}").mkdir(parents=True)
    for name in (
        "adapter_model.safetensors",
        "optimizer.pt",
        f"global_step{step}/model_states.pt",
        "training_args.bin",
    ):
        (written / name).write_bytes(random.Random(f"{name}/{step}").randbytes(300))
    (written / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return publish(written, checkpoints, reward)


def damaged(folder: Path, generator: random.Random) -> str:
    """Damage one file of a checkpoint: a bit, a cut, or the whole file; what was done."""
    path = generator.choice(sorted(path for path in folder.rglob("*") if path.is_file()))
    content = bytearray(path.read_bytes())
    kind = generator.choice(("bit", "cut", "missing", "more"))
    if kind == "bit":
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
    elif kind == "cut":
        del content[generator.randrange(len(content)) :]
    elif kind == "more":
        content += b" "
    path.unlink()
    if kind != "missing":
        path.write_bytes(content)
    return f"{kind} of {path.relative_to(folder)}"


def test_each_of_two_hundred_damages_is_named_and_the_checkpoint_before_is_taken(tmp_path: Path) -> None:
    generator = random.Random(0)
    run = tmp_path / "run"
    whole = write(run, 1)
    newest = write(run, 2)
    shutil.copytree(newest, tmp_path / "kept")
    for _ in range(200):
        done = damaged(newest, generator)
        found = find_checkpoint(run)
        assert found.newest and found.newest.path == whole, done
        assert len(found.damaged) == 1 and found.damaged[0].startswith(f"{newest}: "), done
        shutil.rmtree(newest)
        shutil.copytree(tmp_path / "kept", newest)
    assert find_checkpoint(run) == ((newest, 2), [])


def test_what_was_planted_makes_a_checkpoint_damaged(tmp_path: Path) -> None:
    newest = write(tmp_path, 1)
    (newest / "pytorch_model.bin").write_bytes(b"planted")
    assert find_checkpoint(tmp_path).damaged == [f"{newest}: pytorch_model.bin was not written with it"]
    (newest / "pytorch_model.bin").unlink()
    (newest / "optimizer.pt").rename(tmp_path / "elsewhere")
    (newest / "optimizer.pt").symlink_to(tmp_path / "elsewhere")
    assert find_checkpoint(tmp_path).damaged == [f"{newest}: optimizer.pt is no regular file"]


def test_a_folder_that_was_not_written_to_its_end_is_no_checkpoint(tmp_path: Path) -> None:
    whole = write(tmp_path, 1)
    half = tmp_path / CHECKPOINTS / "checkpoint-2"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half")
    (tmp_path / CHECKPOINTS / PARTIAL / "checkpoint-3").mkdir(parents=True)
    found = find_checkpoint(tmp_path)
    assert found.newest and found.newest.path == whole
    assert found.damaged == [f"{half}: it has no {MANIFEST}, so it was not written to its end"]
    # The step is taken again, and its checkpoint replaces what lies there.
    assert write(tmp_path, 2) == half and not (tmp_path / CHECKPOINTS / PARTIAL).exists()
    assert find_checkpoint(tmp_path).newest == (half, 2)


def test_nothing_that_could_run_is_left_in_a_checkpoint(tmp_path: Path) -> None:
    assert not (write(tmp_path, 1) / "training_args.bin").exists()


def test_the_newest_stay_and_the_best_of_those_before(tmp_path: Path) -> None:
    for step, reward in ((1, 0.5), (2, 0.9), (3, 0.7), (4, None), (10, 0.8)):
        write(tmp_path, step, reward)
        drop_old(tmp_path / CHECKPOINTS, kept=2, step=step)
    assert [checkpoint.step for checkpoint in checkpoints_in(tmp_path / CHECKPOINTS)] == [2, 4, 10]


def test_a_damaged_checkpoint_of_a_later_step_takes_no_good_ones_place(tmp_path: Path) -> None:
    checkpoints = tmp_path / CHECKPOINTS
    write(tmp_path, 50)
    (write(tmp_path, 100, reward=0.9) / "optimizer.pt").write_bytes(b"damaged")
    # Training goes on from step 50 and saves again.
    written = write(tmp_path, 60)
    drop_old(checkpoints, kept=1, step=60)
    assert [checkpoint.path for checkpoint in checkpoints_in(checkpoints)] == [written]


def test_a_kill_while_one_folder_takes_the_place_of_another_leaves_one_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path, 1)
    before = (first / "optimizer.pt").read_bytes()
    (first / "optimizer.pt").write_bytes(b"an older state")
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.parent.name == PARTIAL:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, 1)
    assert not first.exists()
    monkeypatch.undo()
    put_back(tmp_path / CHECKPOINTS)
    assert (first / "optimizer.pt").read_bytes() == b"an older state"
    assert (write(tmp_path, 1) / "optimizer.pt").read_bytes() == before
    put_back(tmp_path / CHECKPOINTS)
    assert find_checkpoint(tmp_path) == ((first, 1), [])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    newest = write(tmp_path, 1)
    (newest / "optimizer.pt").chmod(0)
    assert find_checkpoint(tmp_path).damaged == [f"{newest}: optimizer.pt cannot be read (Permission denied)"]
