"""Being the parent of workers that another process forked.

Owns       the attribute of this process that makes orphans below it its own children (prctl(2)).
Never      reaps: the arbiter's loop does.
Invariant  none; it is one system call that Python has no name for.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36  # linux/prctl.h


def become_subreaper() -> None:
    """Adopt whatever process below this one loses its parent. Raises OSError where the kernel does not let us."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(number)}")
