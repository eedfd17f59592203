"""The commands of the control interface, against what is written about them."""

from __future__ import annotations

import re
from pathlib import Path

from bicorn.arbiter import commands
from bicorn.observe import control_protocol

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "reference" / "control.md").read_text(encoding="utf-8")


def source(module: object) -> str:
    return Path(str(vars(module)["__file__"])).read_text(encoding="utf-8")


def test_every_command_is_documented_twice_for_people_and_for_programs() -> None:
    implemented = set(re.findall(r'^            "(\w+)": self\._\w+,$', source(commands), re.MULTILINE))
    assert implemented == {"status", "reload", "upgrade", "stop", "scale", "stacks"}
    for command in implemented:
        assert len(re.findall(rf"^\| `{command}[ `\[]", DOCUMENT, re.MULTILINE)) == 2, command


def test_every_code_of_an_error_is_documented() -> None:
    raised = set(re.findall(r'Refused\(\s*"([\w-]+)"', source(commands) + source(control_protocol)))
    raised |= {"reload-failed", "upgrade-failed"}
    raised.discard("bad-answer")  # The client's own.
    documented = set(re.findall(r"`([\w-]+)`", DOCUMENT[DOCUMENT.index("Codes of errors:") :].split("\n\n")[0]))
    assert documented == raised
