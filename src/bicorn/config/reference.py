"""The settings reference, made from the declarations: `python -m bicorn.config.reference > docs/reference/settings.md`.

Owns       the form of docs/reference/settings.md.
Never      says anything about a setting that its declaration does not say.
Invariant  a pure function of the declarations; a test compares the file with it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from bicorn.config.setting import Setting
from bicorn.config.settings import Settings

HEAD = """\
# Settings

<!-- Made by `python -m bicorn.config.reference`; change the declarations in src/bicorn/config/options instead. -->

Every setting can stand in a configuration file as `name = value`; those with a flag also on the command line and in
`GUNICORN_CMD_ARGS` and `BICORN_CMD_ARGS`. A later place wins over an earlier one: default, environment variable of
the setting, configuration file, `GUNICORN_CMD_ARGS`, `BICORN_CMD_ARGS`, command line. `bicorn --print-config`
prints every value and where it came from.
"""


def render() -> str:
    """Give the whole page."""
    declarations = Settings.declarations().values()
    sections = (_section(name, list(settings)) for name, settings in groupby(declarations, key=lambda s: s.section))
    return "\n".join([HEAD, *sections])


def _section(name: str, settings: list[Setting[Any]]) -> str:
    title = f"## {name} (Bicorn's own)\n" if settings[0].ours else f"## {name}\n"
    return "\n".join([title, *map(_entry, settings)])


def _entry(setting: Setting[Any]) -> str:
    return "\n".join([f"### `{setting.name}`\n", setting.doc + "\n", *_facts(setting), ""])


def _facts(setting: Setting[Any]) -> Iterator[str]:
    yield "- flag: " + (", ".join(f"`{flag}`" for flag in setting.cli) or "none; configuration file only")
    yield f"- value: {setting.kind.name}" + (f", in {setting.unit}" if setting.unit else "")
    yield f"- default: {_default(setting)}"
    if setting.precedent:
        yield f"- for comparison: {setting.precedent}"
    if setting.absent:
        yield f"- **not there**: asks for {setting.absent.feature}, {setting.absent.verdict}"


def _default(setting: Setting[Any]) -> str:
    if setting.default_text:
        return setting.default_text
    default = setting.default()
    if callable(default):
        return "a function that does nothing" if setting.name not in ("pre_request", "ssl_context") else "see above"
    return f"`{default!r}`"


if __name__ == "__main__":
    sys.stdout.write(render())
