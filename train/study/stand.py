"""Where a study stands: which of its members are done, and what lies there that is not theirs any more."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.run_folder import is_finished
from data.errors import DataError
from data.writing import write_text
from train.study.figures import Figures, figures_path, usable_figures
from train.study.identity import told
from train.study.members import Member

NOTES = "made_of"
"""The folder, below the study's, with a note for every run folder of a training that says what is trained there."""


@dataclass(frozen=True)
class Stand:
    """How far the members of a study are.

    Attributes:
        figures: of the evaluations that are done, by the member's name.
        trained: names of the trainings that are finished.
        stale: why what lies in the place of a member is not used, by the member's name.
    """

    figures: dict[str, Figures]
    trained: set[str]
    stale: dict[str, str]

    def is_done(self, member: Member) -> bool:
        """Whether nothing is left to do for a member."""
        return member.name in (self.trained if member.set_name is None else self.figures)


def stand_of(pages: Path, study: Path, members: Iterable[Member]) -> Stand:
    """How far members are.

    Args:
        pages: the folder with their figures.
        study: the folder with their run folders.
        members: of the study.

    Raises:
        OSError: a file cannot be read.
    """
    stand = Stand({}, set(), {})
    for member in members:
        try:
            if member.set_name is not None:
                stand.figures[member.name] = usable_figures(figures_path(pages, member), member)
            elif is_trained(study, member):
                stand.trained.add(member.name)
        except FileNotFoundError:
            continue
        except DataError as error:
            stand.stale[member.name] = f"{error}; it is not used"
    return stand


def is_trained(study: Path, member: Member) -> bool:
    """Whether the run folder of a training holds its finished run.

    Raises:
        DataError: it holds something else.
    """
    if not member.folder.is_dir():
        return False
    note = _note(study, member)
    if not note.is_file():
        raise DataError(f"{member.folder}: was not made by this study; move it away")
    try:
        differences = member.depends.differences(json.loads(note.read_text(encoding="utf-8")))
    except (ValueError, AttributeError) as error:
        raise DataError(f"{note}: is damaged; remove it and {member.folder}") from error
    if differences:
        raise DataError(f"{member.folder}: is stale, for {told(differences)}; move it away, or name the study anew")
    return is_finished(member.folder)


def note_start(study: Path, member: Member) -> None:
    """Note what a training is made of, before its run folder is there.

    Raises:
        OSError: the note cannot be written.
    """
    note = _note(study, member)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_text(note, json.dumps(member.depends.keys, indent=1) + "\n")


def wanted(members: Sequence[Member], stand: Stand) -> list[Member]:
    """The members that are left to do: evaluations without figures, and the trainings that they need."""
    left = [member for member in members if member.set_name is not None and not stand.is_done(member)]
    names = {member.name for member in left}
    for member in left:
        needed = member.needs
        while needed is not None and not stand.is_done(needed):
            names.add(needed.name)
            needed = needed.needs
    return [member for member in members if member.name in names]


def plan_lines(members: Sequence[Member], stand: Stand) -> list[str]:
    """A line for every member: done, to do, or not needed any more; and for what is not used."""
    left = {member.name for member in wanted(members, stand)}
    state = {True: "to do", False: "not needed"}
    lines = [
        f"{'done' if stand.is_done(member) else state[member.name in left]:<11} {member.name}" for member in members
    ]
    return [*lines, *stand.stale.values()]


def _note(study: Path, member: Member) -> Path:
    return (study / NOTES / member.place).with_suffix(".json")
