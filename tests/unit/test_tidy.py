"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES_MAX = 70  # what fits a screen
#: Names that say nothing of what is in the file.
BANNED_STEMS = frozenset(
    {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common", "data", "info"}
)


def sources(*folders: str, suffix: str = ".py") -> list[Path]:
    """The files of ours in these folders."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob(f"*{suffix}"))]
    return [path for path in found if not {"target", "projects", "migrations"} & set(path.parts)]


PYTHON = sources("src", "tests", "bench", "examples")
RUST = sources("native", suffix=".rs")


def name(path: Path) -> str:
    """How a file is called in a message."""
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module, wherever it stands."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def read(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


def test_a_module_says_what_it_is_for() -> None:
    trees = {name(path): ast.parse(read(path)) for path in PYTHON}
    assert [path for path, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_a_function_fits_a_screen() -> None:
    assert [*too_long_in_python(), *too_long_in_rust()] == []


def too_long_in_python() -> Iterator[str]:
    """Functions of more lines than fit a screen."""
    for path in PYTHON:
        for function in functions(ast.parse(read(path))):
            lines = (function.end_lineno or 0) - function.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{name(path)}:{function.lineno}: {function.name} has {lines} lines"


#: rustfmt puts the closing brace of a function under its first letter.
RUST_FUNCTION = re.compile(r"^( *)(?:pub(?:\(\w+\))? )?(?:const )?(?:unsafe )?fn (\w+)(?:.*\n)+?\1\}$", re.MULTILINE)


def too_long_in_rust() -> Iterator[str]:
    """The same for Rust."""
    for path in RUST:
        for found in RUST_FUNCTION.finditer(read(path)):
            lines = found[0].count("\n") + 1
            if lines > FUNCTION_LINES_MAX:
                yield f"{name(path)}: {found[2]} has {lines} lines"


def test_files_are_named_after_what_is_in_them() -> None:
    # Below compat/gunicorn the names are Gunicorn's.
    ours = [path for path in (*PYTHON, *RUST) if "compat" not in path.parts or "gunicorn" not in path.parts]
    assert [name(path) for path in ours if path.stem in BANNED_STEMS] == []


def test_no_test_sleeps() -> None:
    """It waits for something, with a deadline. Applications may sleep: they are what is waited for."""
    tests = [path for path in sources("tests") if "apps" not in path.parts]
    assert [name(path) for path in tests if sleeps(ast.parse(read(path)))] == []


def sleeps(tree: ast.AST) -> bool:
    """Whether a module calls anything of the name `sleep`."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(getattr(called, "attr", getattr(called, "id", None)) == "sleep" for called in calls)


def test_an_ignore_gives_its_reason() -> None:
    unexplained = re.compile(r"#\s*(?:type: ignore(?:\[[\w, -]+\])?|noqa(?:: [\w, ]+)?)\s*$", re.MULTILINE)
    assert [name(path) for path in PYTHON if path != Path(__file__) and unexplained.search(read(path))] == []


# -- documents -------------------------------------------------------------------------------------


def test_the_picture_of_the_architecture_is_the_tree() -> None:
    text = read(ROOT / "ARCHITECTURE.md")
    package = {path.name for path in (ROOT / "src" / "bicorn").iterdir() if (path / "__init__.py").exists()}
    crates = {path.name for path in (ROOT / "native").iterdir() if (path / "Cargo.toml").exists()}
    assert set(re.findall(r"^    (\w+)/ ", section(text, "src/bicorn/"), re.MULTILINE)) == package
    assert set(re.findall(r"^    (\w+)/ ", section(text, "native/"), re.MULTILINE)) == crates


def section(text: str, start: str) -> str:
    """The lines of an indented list below a line that begins so."""
    found = re.search(rf"^{re.escape(start)}.*\n\n((?:    .*\n)+)", text, re.MULTILINE)
    assert found, f"ARCHITECTURE.md has no list below {start!r}"
    return found[1]


TEST_NAME = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_keeps_a_guarantee_exists() -> None:
    named = TEST_NAME.findall(read(ROOT / "docs" / "guarantees.md"))
    assert len(named) >= 8
    for file, test in named:
        defined = {function.name for function in functions(ast.parse(read(ROOT / file)))}
        assert test in defined, f"docs/guarantees.md: {file} has no {test}"


LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")


def test_links_between_documents_lead_somewhere() -> None:
    documents = [*ROOT.glob("*.md"), *sources("docs", "bench", "examples", "native", suffix=".md")]
    links = [(path, link) for path in documents for link in LINK.findall(read(path))]
    assert [(name(path), link) for path, link in links if not (path.parent / link).exists()] == []


def test_test_files_have_names_of_their_own() -> None:
    # Test folders are no packages: two modules of one name would be one to the import system.
    names = [path.name for path in sources("tests") if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))
