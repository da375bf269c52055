"""The floors of the house: who may import whom, read from the code itself."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]

FLOORS: dict[str, set[str]] = {
    "objectives": set(),
    "data": {"objectives"},
    "models": {"objectives", "data"},
    "configs": {"objectives", "data", "models"},
    "eval": {"objectives", "data", "models", "configs"},
    "train": {"objectives", "data", "models", "configs", "eval"},
}
"""Each package, and the packages below it, which it may import beside itself."""

MAX_LINES = 400
"""Lines of a file. What is longer has two subjects; lists of words are data and do not count."""

MAX_FUNCTION_LINES = 60
"""Lines of a function: what fits on a screen is read in one go."""

WORD_LISTS = "data/miniature/"
"""Where files consist of word lists."""


def sources(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((PROJECT / package).rglob("*.py"))]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> Iterator[str]:
    """Modules of the project that a file imports anywhere, also inside functions and for type checkers alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import does not say where it goes"
            assert node.module is not None
            for alias in node.names:
                below = PROJECT.joinpath(*node.module.split("."), alias.name)
                is_module = below.is_dir() or below.with_suffix(".py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module


def violations(floors: dict[str, set[str]], imports: dict[str, set[str]]) -> list[str]:
    """Imports that go up: ``imports`` holds the modules that each module imports."""
    return [
        f"{module} imports {imported}: {module.split('.')[0]} may import {', '.join(sorted(allowed)) or 'nothing'}"
        for module, names in imports.items()
        for imported in sorted(names)
        if (allowed := floors[module.split(".")[0]]) is not None
        and imported.split(".")[0] in floors.keys() | {"tests"}
        and imported.split(".")[0] not in {module.split(".")[0], *allowed}
    ]


def circle(imports: dict[str, set[str]]) -> list[str]:
    """A circle of modules, each importing the next; empty where there is none."""
    finished: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in finished:
            return []
        for imported in sorted(imports.get(module, ())):
            if found := visit(imported, [*path, module]):
                return found
        finished.add(module)
        return []

    return next((found for module in sorted(imports) if (found := visit(module, []))), [])


@pytest.fixture(scope="module")
def imports() -> dict[str, set[str]]:
    return {module_name(path): set(imported_modules(path)) for path in sources(*FLOORS)}


def test_no_module_imports_one_of_a_floor_above(imports: dict[str, set[str]]) -> None:
    assert violations(FLOORS, imports) == []


def test_no_modules_import_each_other_in_a_circle(imports: dict[str, set[str]]) -> None:
    assert circle(imports) == []


def test_a_wrong_import_and_a_circle_are_found() -> None:
    wrong = {"data.reading": {"models.loading"}, "objectives.length": {"tests.records"}, "train.run": {"eval.record"}}
    assert [line.split(":")[0] for line in violations(FLOORS, wrong)] == [
        "data.reading imports models.loading",
        "objectives.length imports tests.records",
    ]
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_command_is_imported_as_a_library(imports: dict[str, set[str]]) -> None:
    commands = {module for module in imports if module.endswith("__main__")} | {"train.run", "eval.run"}
    assert {module: names & commands for module, names in imports.items() if names & commands} == {}


def test_files_and_functions_are_short() -> None:
    long = []
    for path in sources(*FLOORS, "tests"):
        text, name = path.read_text(encoding="utf-8"), str(path.relative_to(PROJECT))
        if len(text.splitlines()) > MAX_LINES and not name.startswith(WORD_LISTS):
            long.append(f"{name}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                lines = node.end_lineno - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}:{node.lineno} {node.name}: {lines} lines")
    assert long == []
