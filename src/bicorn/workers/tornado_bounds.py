"""Requests that a tornado worker does not run: they waited for too long, are too many, or nobody waits for them.

Owns       the number of requests that run, and the reasons for which another one does not.
Never      has a rule of its own for the time: it is the reactor's, for every worker.

A loop that is held up reads late, so its requests wait in the kernel, which knows since when their last bytes are
there. Those that have been read wait for the loop to come to them, and with `threads` for a thread of the pool.

Tornado reads all requests that are there in one turn of its loop, and calls their handlers in the next one. A look at
the clock before a request's handler is called would come before the others' handlers as well, whatever they take. So
where requests may not wait for ever, they pass a turnstile: one in a turn.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from bicorn._core import Turn, judge_turn

if TYPE_CHECKING:
    from bicorn.workers.tornado_stream import ClientStream

#: As in the native loop.
WAITED_TOO_LONG: Final = "the request waited longer than queue_timeout for its turn"
TOO_MANY_AT_ONCE: Final = "limit_concurrency requests wait or run already"

#: A request that waited no longer is run without asking whether its client is still there, in nanoseconds; as in the
#: native loop.
ASK_AFTER_NS: Final = 100_000_000


class NotRun(Exception):
    """The application is not called. `why`: what the log says of an answer with 503; None: the client has gone."""

    def __init__(self, why: str | None) -> None:
        super().__init__(why)
        self.why = why


class Bounds:
    """What bounds the requests of a worker."""

    def __init__(
        self,
        queue_timeout: float = 0,
        limit_concurrency: int = 0,
        turned_away: Callable[[str, str], None] | None = None,
    ) -> None:
        """`turned_away` hears of each request that was answered 503: from which address, and why."""
        self._queue_ns = int(queue_timeout * 1e9) or None
        self._limit = limit_concurrency
        self._turned_away = turned_away
        #: Requests that wait or run.
        self.running = 0

    @property
    def are_timed(self) -> bool:
        """Whether requests may not wait for ever."""
        return self._queue_ns is not None

    def admit(self, stream: ClientStream, ready_ns: int) -> None:
        """Let a request in that was read at `ready_ns`, or raise NotRun."""
        self.judge(stream, ready_ns)
        if self._limit and self.running >= self._limit:
            raise NotRun(TOO_MANY_AT_ONCE)
        self.running += 1

    def judge(self, stream: ClientStream, ready_ns: int) -> None:
        """Raise NotRun if the request has waited for too long, or for nobody."""
        if stream.closed():
            raise NotRun(None)
        now_ns = time.monotonic_ns()
        turn = judge_turn(stream.socket.fileno(), now_ns - ready_ns, now_ns - stream.freed_ns, self._queue_ns)
        if turn == Turn.FORGET:
            raise NotRun(None)
        if turn == Turn.REFUSE:
            raise NotRun(WAITED_TOO_LONG)

    def leave(self) -> None:
        """Take note that a request that was let in has ended."""
        self.running -= 1

    def tell_turned_away(self, remote_addr: str, why: str) -> None:
        """Take note of an answer with 503."""
        if self._turned_away is not None:
            self._turned_away(remote_addr, why)


class Turnstile:
    """Calls one function in a turn of the loop, after everything that the one before it has put off."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._is_turning = False

    def enter(self, function: Callable[[], None]) -> None:
        """Call this when its turn has come; it raises nothing."""
        self._waiting.append(function)
        if not self._is_turning:
            self._is_turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._waiting.popleft()()
        self._is_turning = bool(self._waiting)
        if self._is_turning:
            asyncio.get_running_loop().call_soon(self._turn)
