"""The reference page, and what every declaration owes its readers."""

from __future__ import annotations

from pathlib import Path

import pytest

from bicorn.config import Settings
from bicorn.config.reference import render

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "settings.md"


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
