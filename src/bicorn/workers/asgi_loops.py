"""Which event loop the `asgi` worker runs.

Owns       the meaning of `asgi_loop`.
Never      sets a policy: only the worker's own loop is of the chosen kind.
"""

from __future__ import annotations

import asyncio
import importlib.util

from bicorn.errors import ConfigError
from bicorn.extras import install_command


def chosen_loop(named: str) -> str:
    """Give the kind of loop that a value of `asgi_loop` means here: "asyncio" or "uvloop"."""
    if named != "auto":
        return named
    return "uvloop" if importlib.util.find_spec("uvloop") is not None else "asyncio"


def new_event_loop(kind: str) -> asyncio.AbstractEventLoop:
    """Make a loop of this kind and make it this thread's."""
    if kind == "uvloop":
        try:
            import uvloop
        except ImportError:
            raise ConfigError(
                f"asgi_loop = 'uvloop': the package uvloop is not installed: {install_command('uvloop')}"
            ) from None
        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    return loop
