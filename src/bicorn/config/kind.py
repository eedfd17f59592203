"""What kind of value a setting holds: how it is read from Python, from text, and how it is named in an error.

Owns       `Kind`, and `Invalid`, which a parser raises.
Never      knows a setting's name or where a value came from: `Setting` and `load` add those to the message.
Invariant  a parser gives back a value of its type or raises `Invalid`; nothing else leaves it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Action = Literal["store", "append", "store_true", "store_const"]


class Invalid(ValueError):
    """A value was refused; the text says what is wrong with it, when `Kind.allowed` alone would not."""


@dataclass(frozen=True)
class Kind(Generic[T]):
    """One type of value: its parser, its words for people, and its shape on the command line."""

    name: str
    """What the reference calls it: "whole number", "list of strings"."""

    allowed: str
    """Ends the sentence "it has to be ..."."""

    parse: Callable[[object], T]
    """From what a configuration file or `from_text` gave to the value itself."""

    metavar: str | None = None
    action: Action = "store"
    from_text: Callable[[str], object] = str
    """Applied by argparse to the text of a flag; its failure is a usage error (exit code 2)."""

    values: Literal["one", "optional"] = "one"
    """"optional": the flag may stand alone, and then means `alone`."""

    alone: object = None
    """What a flag means that has no value: `store_const`, or "optional" without its value."""

    none_is_default: bool = False
    """`name = None` in a configuration file means "as if it were not there"."""

    annotate: Callable[[object], str | None] = lambda raw: None
    """What people should know about how a raw value became the value, for `--print-config`."""
