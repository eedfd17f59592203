"""The name that somebody probably meant.

Owns       how close two names have to be.
Never      warns or refuses: it only proposes.
Invariant  a name that is right has no proposal.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final

# Of difflib's ratio: `tiemout` is 0.86 from `timeout`, `log_level` 0.94 from `loglevel`, while ordinary names such
# as `max_workers` (0.78 from `workers`) and `threading` (0.75 from `threads`) stay below.
CLOSE: Final = 0.8

# A flag is proposed only when its name is long enough not to be an everyday word (`name`, `env`, `pid`).
FLAG_CHARACTERS_MIN: Final = 6


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that `name` was meant to be, if one is close."""
    known = list(known)
    if name in known:
        return None
    by_case = {candidate.casefold(): candidate for candidate in known}
    if name.casefold() in by_case:
        return by_case[name.casefold()]
    close = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=CLOSE)
    return close[0] if close else None


def nearest_setting(name: str, flags: Mapping[str, tuple[str, ...]]) -> str | None:
    """Find the setting that was meant: by the name of its flag (`preload` for `preload_app`), or by likeness."""
    if name in flags:
        return None
    for setting, spellings in flags.items():
        words = {spelling.lstrip("-").replace("-", "_") for spelling in spellings}
        if name.lower() in words and len(name) >= FLAG_CHARACTERS_MIN:
            return setting
    return nearest(name, flags)
