"""Where values come from, and which of two wins.

Owns       the order of the layers, and the words for a place a person can go and look at.
Never      converts a value.
Invariant  a later layer wins over an earlier one; within a layer the last one given wins.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final


class Layer(enum.IntEnum):
    """The layers, in the order in which they are applied."""

    DEFAULT = 0
    ENVIRONMENT = 1  # PORT, WEB_CONCURRENCY, ...: a default that the machine gives
    FILE = 2
    GUNICORN_CMD_ARGS = 3
    BICORN_CMD_ARGS = 4
    COMMAND_LINE = 5
    CODE = 6  # Settings.replace()


@dataclass(frozen=True)
class Source:
    """The place of one value."""

    layer: Layer
    place: str
    note: str | None = None

    def __str__(self) -> str:
        """Give the place as it stands in errors and in `--print-config`."""
        return self.place if self.note is None else f"{self.place} ({self.note})"

    def noted(self, note: str | None) -> Source:
        """Give the same source with a remark on how the value came about."""
        return replace(self, note=note)


@dataclass(frozen=True)
class Given:
    """A raw value that somebody gave for a setting."""

    name: str
    raw: object
    source: Source


DEFAULT: Final = Source(Layer.DEFAULT, "default")
CODE: Final = Source(Layer.CODE, "Settings.replace()")
