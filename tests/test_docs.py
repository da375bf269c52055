"""Pages that are made from the code are up to date, and pages name only what is there."""

import importlib.util
import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PAGES = [*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")]


def test_the_page_of_records_is_made_from_their_types() -> None:
    specification = importlib.util.spec_from_file_location("records", PROJECT / "docs" / "records.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    expected = module.page(module.SOURCE.read_text(encoding="utf-8"))
    assert (PROJECT / "docs" / "records.md").read_text(encoding="utf-8") == expected, "make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(
        r"`((?:train|models|objectives|data|eval|configs|tests|docs)/[\w/.]+\.\w+)`", page.read_text("utf-8")
    )
    assert [name for name in named if not (PROJECT / name).exists()] == []
