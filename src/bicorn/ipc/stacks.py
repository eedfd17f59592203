"""Where a worker writes the Python stacks of its threads when the arbiter asks for them.

Owns       the two signals that ask, one file in memory for each worker, and both ends of it.
Never      lets the worker wait: what it writes goes to memory, which takes it at once.
Invariant  a dump is taken holding the interpreter's lock whenever the lock can be had.

Facts. A handler in Python runs on the main thread at the next bytecode, with the lock: it can walk every thread's
stack safely, but never runs while the main thread is inside an extension module. faulthandler's handler is C and runs
at once, whoever holds the lock; if other threads run Python meanwhile, it reads frames that change under its eyes,
which CPython accepts for a process that is going to die and we do not for one that serves.

So     a first signal asks for the handler in Python. Only a worker that does not answer within a moment, or is about to
       be ended for being stuck, gets the second one.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Final

from bicorn.ipc.tasks import greenlet_stacks, task_stacks
from bicorn.unpatched import get_ident

#: Real-time signals mean nothing to Python, to its libraries or to a person; glibc and language runtimes take theirs
#: from the low end, so ours are near the other.
ASK_SIGNAL: Final = signal.Signals.SIGRTMAX - 4  # answered in Python, with the interpreter's lock
FAULT_SIGNAL: Final = signal.Signals.SIGRTMAX - 5  # answered in C, at once
STACK_SIGNALS: Final = frozenset({ASK_SIGNAL, FAULT_SIGNAL})
#: Bytes of stacks that are read; faulthandler itself stops at 100 threads of 100 frames each.
STACK_BYTES_MAX: Final = 256 * 1024
_END: Final = b"\0"
_FORKED_IN: Final = str(Path(__file__).parents[1] / "arbiter" / "spawn.py")


class StackFile:
    """The stacks of one worker; made by the arbiter before the fork, held by both."""

    def __init__(self, fd: int | None = None) -> None:
        """Make the file, or take the one of this descriptor."""
        self._fd = os.memfd_create("bicorn-stacks") if fd is None else fd
        # Also for a worker that could not be forked: nobody buries it.
        self._close = weakref.finalize(self, os.close, self._fd)

    def fileno(self) -> int:
        """Give the descriptor, to hand it on."""
        return self._fd

    # -- in the worker -------------------------------------------------------------------------

    def arm(self) -> None:
        """Answer both signals, and leave the stacks here as well if the process dies of a fault."""
        # Its system calls are interrupted, unlike those of other signals: restarted by the kernel, a thread that waits
        # for a lock or a database would never come to a bytecode. Python repeats what was interrupted (PEP 475).
        signal.signal(ASK_SIGNAL, self._answer)
        faulthandler.register(FAULT_SIGNAL, file=self._fd, all_threads=True, chain=False)
        # With PYTHONFAULTHANDLER, or enabled by a configuration file, the user wants them on standard error.
        if not faulthandler.is_enabled():
            faulthandler.enable(file=self._fd, all_threads=True)

    def _answer(self, _signum: int, interrupted: FrameType | None) -> None:
        stacks = [*_stacks(interrupted), *task_stacks(), *map(_below_fork, greenlet_stacks())]
        text = "\n".join(stacks).encode("utf-8", "backslashreplace")
        with contextlib.suppress(OSError):
            os.write(self._fd, text[: STACK_BYTES_MAX - len(_END)] + _END)

    # -- in the arbiter ------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget what was written."""
        os.ftruncate(self._fd, 0)
        # The offset is shared: since the fork both processes have the same open file description.
        os.lseek(self._fd, 0, os.SEEK_SET)

    def is_whole(self) -> bool:
        """Whether an answer in Python has come to its end."""
        size = os.fstat(self._fd).st_size
        return size > 0 and os.pread(self._fd, 1, size - 1) == _END

    def read(self) -> str:
        """Give what has been written since clear()."""
        return _above_fork(os.pread(self._fd, STACK_BYTES_MAX, 0).rstrip(_END).decode("utf-8", "replace").strip())

    def close(self) -> None:
        """The worker is gone."""
        self._close()


def _stacks(interrupted: FrameType | None) -> Iterator[str]:
    # Not threading.enumerate(): what was interrupted may hold its lock, and gevent's hub must wait for none.
    registered: dict[int, threading.Thread] = threading._active  # type: ignore[attr-defined]  # private, without a lock
    names = {ident: thread.name for ident, thread in registered.copy().items()}
    # The signal's own thread stands on top of its stack with this very handler; what it interrupted is what counts. To
    # gevent and eventlet its name is another.
    here = get_ident()
    names[here] = "MainThread"
    for ident, newest in sorted(sys._current_frames().items(), key=lambda item: item[0] != here):
        yield f"Thread {names.get(ident, ident)} (most recent call last):"
        yield _below_fork("".join(traceback.format_stack(interrupted if ident == here else newest)).rstrip("\n"))


def _below_fork(stack: str) -> str:
    """Take from a stack, the most recent call last, what comes before the fork: the arbiter's, and the same for all."""
    _, is_there, after = stack.rpartition(f'  File "{_FORKED_IN}", ')
    _, is_followed, rest = after.partition("\n  File ")
    return f"  File {rest}" if is_there and is_followed else stack


def _above_fork(text: str) -> str:
    """Take from a dump of faulthandler's what lies below the fork; its threads are separated by empty lines."""
    threads = text.split("\n\n")
    return "\n\n".join(thread.partition(f'\n  File "{_FORKED_IN}"')[0] for thread in threads)


# -- what the kernel knows about a signal ----------------------------------------------------------


def is_caught(pid: int, signum: int) -> bool:
    """Whether the process has a handler for the signal; it would die of it otherwise."""
    return signum in _signals(_status(pid), "SigCgt")


def held_back_by(pid: int, signum: int) -> frozenset[int]:
    """Give the threads in which the signal is blocked: those that want none of it, and the one that handles it now."""
    return frozenset(tid for tid in _threads(pid) if signum in _signals(_status(pid, tid), "SigBlk"))


def is_handled(pid: int, signum: int, never_by: frozenset[int] = frozenset()) -> bool:
    """Whether a signal that was sent neither waits for its handler nor is being handled, in whichever thread.

    `never_by` are the threads that held it back before it was sent.
    """
    return signum not in _signals(_status(pid), "ShdPnd") and held_back_by(pid, signum) <= never_by


def kernel_state(pid: int) -> str:
    """Give what the kernel says the process does, such as "D (disk sleep)"; empty if it is gone."""
    return _status(pid).get("State", "")


def _signals(status: dict[str, str], field: str) -> frozenset[int]:
    """Read a mask of proc_pid_status(5): bit 0 is signal 1."""
    mask = int(status.get(field, "0"), 16)
    return frozenset(number for number in range(1, mask.bit_length() + 1) if mask >> (number - 1) & 1)


def _threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _status(pid: int, tid: int | None = None) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status" if tid is None else f"/proc/{pid}/task/{tid}/status").read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}
