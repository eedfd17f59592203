"""What a command does when whoever read its output has enough, as `head` has after ten lines.

Owns       the exit code for that.
Never      says a word: nothing went wrong.
"""

from __future__ import annotations

import os
import sys
from typing import Final

EXIT_CLOSED_PIPE: Final = 141  # 128 + SIGPIPE


def leave_closed_pipe() -> int:
    """Leave the rest of the output to nobody; give the exit code. To be called when a BrokenPipeError was caught."""
    with open(os.devnull, "w") as nobody:
        os.dup2(nobody.fileno(), sys.stdout.fileno())  # The interpreter flushes at its end, and would complain.
    return EXIT_CLOSED_PIPE
