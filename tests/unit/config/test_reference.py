"""The reference page, and what every declaration owes its readers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bicorn.config import Settings
from bicorn.config.reference import render

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGE = DOCS / "reference" / "settings.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), (
        "run: python -m bicorn.config.reference > docs/reference/settings.md"
    )


@pytest.mark.parametrize("name", Settings.declarations())
def test_a_declaration_says_what_it_is_about(name: str) -> None:
    declaration = Settings.declarations()[name]
    assert declaration.doc.endswith(".")
    assert declaration.section
    if declaration.ours:
        assert declaration.unit or declaration.kind.name.startswith(("bool", "string", "one of"))
        assert declaration.precedent
        flag = name.replace("_", "-")
        assert declaration.flag == ("--no-" if declaration.kind.name == "bool" else "--") + flag


def test_the_differences_list_every_setting_of_our_own() -> None:
    text = (DOCS / "differences.md").read_text(encoding="utf-8")
    section = text.partition("### Settings that only Bicorn has")[2].partition("\n## ")[0]
    listed = {name for line in section.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)}
    assert listed == {name for name, setting in Settings.declarations().items() if setting.ours}


def test_every_page_can_be_found() -> None:
    pages = {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    linked = set(re.findall(r"\(([\w/-]+\.md)\)", (DOCS / "index.md").read_text(encoding="utf-8")))
    assert {page for page in pages if not page.startswith("adr/")} == linked | {"index.md"}
