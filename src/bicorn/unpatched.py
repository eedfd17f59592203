"""System calls as they are, also where gevent or eventlet has patched the standard library.

Owns       the few functions that the arbiter waits, forks and reaps with.
Never      waits in a worker, where functions are patched on purpose.
Invariant  nothing here lets another greenlet run.

Programs and configuration files begin with `monkey.patch_all()`, so that preload_app loads a patched application. In
the arbiter this takes away select.epoll, hands SIGCHLD to a loop of gevent's that nobody runs, and makes eventlet's
os.read wait where it should say that nothing is there. Patching changes attributes of modules; the C modules below them
keep what they have.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module, which typeshed leaves out
import _thread
import importlib.util
import posix
import signal
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import select
else:

    def _made_anew(name: str) -> ModuleType:
        # `select` is itself the C module that is patched; another instance of it is not.
        spec = importlib.util.find_spec(name)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    select = _made_anew("select")

__all__ = ["fork", "get_ident", "read", "select", "set_handler", "waitpid", "write"]

fork: Final = posix.fork
waitpid: Final = posix.waitpid
read: Final = posix.read
write: Final = posix.write
#: Of the thread, where theirs is of the greenlet. Bound before anybody patches: the arbiter imports this first.
get_ident: Final = _thread.get_ident


def set_handler(signum: signal.Signals, handler: Callable[[int, FrameType | None], object] | signal.Handlers) -> None:
    """Install a handler of a signal, as signal.signal does."""
    # The C function knows SIG_DFL as the number only; the module's own wrapper turns the enumeration into it.
    _signal.signal(int(signum), int(handler) if isinstance(handler, signal.Handlers) else handler)
