"""Writes docs/records.md from the types in ``eval/record.py``: ``python docs/records.py > docs/records.md``."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "eval" / "record.py"


def documented(body: list[ast.stmt]) -> Iterator[tuple[ast.stmt, str]]:
    """Each statement with the string literal that follows it, which documents it; empty where none does."""
    for statement, after in zip(body, [*body[1:], None], strict=True):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        yield statement, " ".join(str(after.value.value).split()) if is_text else ""  # type: ignore[union-attr]


def fields(record: ast.ClassDef) -> Iterator[str]:
    """The rows of a record's table: field, type, meaning."""
    for statement, meaning in documented(record.body):
        if isinstance(statement, ast.AnnAssign):
            kind = ast.unparse(statement.annotation).replace("|", "\\|")
            yield f"| `{ast.unparse(statement.target)}` | `{kind}` | {meaning} |"


def page(source: str) -> str:
    """The page: the module's docstring, the version, and a table for each record."""
    tree = ast.parse(source)
    lines = ["# Records", "", ast.get_docstring(tree) or "", ""]
    for statement, meaning in documented(tree.body):
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "SCHEMA_VERSION":
            lines += [f"Schema version {ast.unparse(statement.value)}. {meaning}", ""]
    for statement in tree.body:
        if isinstance(statement, ast.ClassDef):
            bases = ", ".join(name for base in statement.bases if (name := ast.unparse(base)) != "TypedDict")
            lines += [f"## {statement.name}", "", ast.get_docstring(statement) or "", ""]
            lines += [f"Has every field of {bases}, and:", ""] if bases else []
            lines += ["| field | type | meaning |", "|---|---|---|", *fields(statement), ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(page(SOURCE.read_text(encoding="utf-8")), end="")
