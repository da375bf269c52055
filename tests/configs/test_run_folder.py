"""One owner a run folder: the lock, the marker, what --fresh may drop and what a new configuration may replace."""

import subprocess
import sys
from pathlib import Path

import pytest

from configs.errors import ConfigError
from configs.run_folder import LOCK, MARKER, is_finished, mark_finished, owned
from configs.tree import PROJECT

HOLDER = """
import sys
from pathlib import Path
from configs.run_folder import owned
with owned(Path(sys.argv[1]), "train", "a: 1", "a: 1"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start(folder: Path, config: str = "a: 1", fresh: bool = False, works: bool = True, command: str = "train") -> None:
    """Open a run folder as a command does, and leave it."""
    with owned(folder, command, config, config, fresh, lambda _: works):
        pass


def test_a_folder_in_use_is_refused_and_free_after_a_kill(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    for fresh in (False, True):
        with pytest.raises(ConfigError, match=rf"process {holder.pid} on .* is at work in it"):
            start(folder, fresh=fresh)
    holder.kill()
    holder.communicate()
    start(folder)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("content", ["config.yaml", "thesis.tex", "results.json", ".hidden", MARKER])
def test_a_foreign_folder_is_left_as_it_is(content: str, fresh: bool, tmp_path: Path) -> None:
    (tmp_path / content).write_text('{"title": "my site"}')
    with pytest.raises(ConfigError, match=r"so it is not taken for a run's"):
        start(tmp_path, fresh=fresh)
    assert [path.name for path in tmp_path.iterdir()] == [content]


def test_fresh_drops_everything_but_what_links_point_to(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.tex").write_text("dear")
    start(folder)
    mark_finished(folder)
    (folder / "link").symlink_to(elsewhere)
    (folder / "records").mkdir()
    (folder / "records" / "0.jsonl").write_text("{}\n")
    start(folder, "a: 2", fresh=True)
    assert {path.name for path in folder.iterdir()} == {LOCK, MARKER, "config.yaml"}
    assert (folder / "config.yaml").read_text() == "a: 2" and not is_finished(folder)
    assert (elsewhere / "thesis.tex").read_text() == "dear"


def test_a_drop_that_was_cut_short_is_finished_by_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(folder)
    (folder / "results.json").write_text("{}")
    marker = (folder / MARKER).read_text()
    (folder / MARKER).write_text(marker.replace('"finished": false', '"dropping": true'))
    start(folder)
    assert not (folder / "results.json").exists()


def test_another_configuration_is_refused_once_something_was_computed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(folder)
    start(folder, "a: 2", works=False)
    assert (folder / "config.yaml").read_text() == "a: 2"
    with pytest.raises(ConfigError, match=r"holds a run of another configuration; choose another name"):
        start(folder, "a: 3")
    start(folder, "a: 2")


def test_a_damaged_or_linked_config_is_written_again_and_the_run_goes_on(tmp_path: Path) -> None:
    folder, other = tmp_path / "run", tmp_path / "other.yaml"
    start(folder)
    for content in ("", "a: 5"):
        (folder / "config.yaml").write_text(content)
        start(folder)
        assert (folder / "config.yaml").read_text() == "a: 1"
    other.write_text("a: 9")
    (folder / "config.yaml").unlink()
    (folder / "config.yaml").symlink_to(other)
    start(folder)
    assert other.read_text() == "a: 9" and not (folder / "config.yaml").is_symlink()


def test_a_folder_of_another_command_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(folder)
    with pytest.raises(ConfigError, match=r"belongs to train, not to evaluate"):
        start(folder, command="evaluate")


def test_what_a_kill_left_half_written_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    start(folder)
    (folder / ".results.json.17.partial").write_text("{")
    start(folder)
    assert not list(folder.glob(".*.partial"))


def test_a_kill_in_the_first_moment_leaves_a_folder_that_can_be_started(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / f".{MARKER}.17.partial").write_text("{")
    start(folder)
    assert (folder / MARKER).is_file() and not list(folder.glob(".*.partial"))
