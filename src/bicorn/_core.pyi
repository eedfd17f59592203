"""The native half, as Python sees it; `make check` compares this file with the module (mypy.stubtest)."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Protocol, final

from typing_extensions import Self

__all__ = [
    "AccessLog",
    "AsgiServer",
    "Deadline",
    "EmptyInput",
    "FileWrapper",
    "GreenJob",
    "GreenLoop",
    "Handover",
    "Line",
    "Lines",
    "Scoreboard",
    "Slot",
    "SyncLoop",
    "ThreadLoop",
    "Turn",
    "WsgiHead",
    "__version__",
    "compile_access_format",
    "judge_turn",
]

__version__: Final[str]

def compile_access_format(format: str) -> None:
    """Raise ValueError for a format that needs Python's own `%`."""

def judge_turn(fd: int, waited_ns: int, since_answer_ns: int, queue_ns: int | None) -> Turn:
    """Judge a request whose turn has come by what the kernel knows of its socket; None: it may wait for ever."""

class _File(Protocol):
    def read(self, size: int, /) -> bytes: ...

@final
class Scoreboard:
    """Shared counters, one row a worker; made by the arbiter before it forks."""

    def __new__(cls, slots: int) -> Self: ...
    def __len__(self) -> int: ...
    def slot(self, index: int) -> Slot: ...

@final
class Slot:
    """One worker's row: written by the worker that holds it, read by everybody."""

    state: int
    pid: int
    loop_lag_us: int
    connections: int

    @property
    def index(self) -> int: ...
    @property
    def heartbeat_ns(self) -> int: ...
    def take(self) -> None: ...
    def beat(self) -> None: ...
    def take_over(self, capacity: int) -> None: ...
    def has_sibling(self, state: int) -> bool: ...
    def siblings(self, state: int) -> tuple[int, int]: ...
    def enter_request(self, method: str, target: str, ready_ns: int) -> int: ...
    def leave_request(self, started_ns: int, status: int) -> None: ...
    def show_oldest(self, started_ns: int, method: str, target: str) -> None: ...
    # Any: counters are int, `request` and `oldest` are str, histograms list[int].
    def snapshot(self) -> dict[str, Any]: ...

@final
class Handover:
    """The queue of connections that change workers, for loops that are Python's: (in, out) and the listeners' names."""

    def __new__(cls, fds: tuple[int, int], listeners: Sequence[str]) -> Self: ...
    def fileno(self) -> int: ...
    def put(self, fd: int, served: bool, listener: int, address: tuple[str, int] | None) -> bool: ...
    def take(self) -> tuple[int, bool, int] | None: ...

@final
class Lines:
    """The connections of an event loop of Python's. At SIGABRT they are given up, whoever holds the interpreter."""

    def __new__(cls, server: str, handover: tuple[int, int] | None, listeners: Sequence[str]) -> Self: ...
    def enter(self, fd: int, listener: int) -> Line:
        """A connection was made on the listener with this index: it is between two requests."""

    def give_up(self) -> None:
        """The worker is about to die: answer what has no answer yet, and leave idle connections behind."""

@final
class Line:
    """One connection, for a loop that reads and writes in Python."""

    def rest(self) -> None:
        """It is between two requests, and nothing of the next one is here."""

    def begin(self) -> None:
        """Bytes of a request have come."""

    def leave_alone(self) -> None:
        """It is something else now, such as a WebSocket."""

    def set_bodiless(self, is_bodiless: bool) -> None:
        """Its request is one to HEAD, or not."""

    def reset(self) -> None:
        """All that was written came before the answer that is awaited."""

    def may_write(self) -> bool:
        """Whether bytes may be written; from the first time on, nobody else writes any."""

    def leave(self) -> None:
        """Its descriptor is about to be closed."""

@final
class Turn:
    """What becomes of a request whose turn has come."""

    RUN: ClassVar[Turn]
    REFUSE: ClassVar[Turn]
    FORGET: ClassVar[Turn]

@final
class AccessLog:
    """The access log of one worker, formatted and written natively, in batches."""

    def __new__(
        cls,
        format: str,
        fd: int,
        path: str | os.PathLike[str] | None,
        flush_interval_ms: int,
        now: Callable[[], str],
        user_of: Callable[[str], str | None],
    ) -> Self: ...
    def reopen(self) -> None: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    def take_failure(self) -> str | None: ...

@final
class AsgiServer:
    """The HTTP side of one `asgi` worker; what `worker` is told through, see bicorn.workers.asgi."""

    def __new__(
        cls,
        app: Callable[..., Any],  # Any: what an ASGI application gives is awaited, not looked at.
        worker: object,
        event_loop: object,
        slot: Slot | None,
        lines: Lines,
        template: Mapping[str, Any],  # Any: a scope.
        state: Mapping[str, Any],  # Any: what the application's lifespan put there.
        options: Mapping[str, Any],  # Any: values of settings.
        access: AccessLog | None = None,
    ) -> Self: ...
    def protocol(self, listener: int, served: bool) -> Any:  # Any: an asyncio.Protocol by its methods.
        """Give the protocol of a connection; `served`: another worker has answered a request on it."""

    def give_idle_away(self, queue: Handover, most: int | None = None) -> None:
        """Put the connections that are between two requests into the queue, as far as it takes them."""

    def tick(self) -> None:
        """Look at every connection's patience; to be called every now and then."""

    def close_idle(self, most: int) -> None:
        """Close up to so many connections that wait for their next request, for their descriptors."""

    def drain(self) -> None:
        """End connections as they become idle; call worker.drained() when none and no application is left."""

    def close_websockets(self, code: int) -> None:
        """Close every WebSocket with this code, also those accepted later; each ends when its client closes it, too."""

    def close(self) -> None:
        """Let go of the loop: it is about to end."""

    @property
    def connections(self) -> int: ...
    @property
    def running(self) -> int: ...

@final
class WsgiHead:
    """Status and fields of a WSGI response, checked: ValueError or TypeError for what cannot go on the wire."""

    def __new__(cls, server: str, status: str, headers: Iterable[tuple[str, str]]) -> Self: ...

@final
class Deadline:
    """`bicorn.deadline`: when the request that the calling thread runs has to be done; never unless `watched`."""

    def __new__(cls, watched: bool = True) -> Self: ...
    def __reduce__(self) -> tuple[type[Self], tuple[bool]]: ...
    @property
    def at(self) -> float | None:
        """When `timeout` is over for it, in seconds of time.monotonic(); None if it never is."""

    def remaining(self) -> float | None:
        """Give the seconds that are left, less than 0 if it is too late; None if there is no end."""

    def extend(self, seconds: float) -> None:
        """Move the deadline that much further away."""

@final
class EmptyInput:
    """`wsgi.input` of a request without a body."""

    def __new__(cls) -> Self: ...
    def __iter__(self) -> Self: ...
    def __next__(self) -> bytes: ...
    def read(self, size: int | None = None) -> bytes: ...
    def read1(self, size: int | None = None) -> bytes: ...
    def readline(self, size: int | None = None) -> bytes: ...
    def readlines(self, hint: int | None = None) -> list[bytes]: ...
    def readinto(self, buffer: bytearray | memoryview) -> int: ...
    def tell(self) -> int: ...
    def seek(self, offset: int, whence: int = 0) -> int: ...
    def readable(self) -> bool: ...
    def seekable(self) -> bool: ...
    def writable(self) -> bool: ...
    def flush(self) -> None: ...
    def close(self) -> None: ...
    @property
    def closed(self) -> bool: ...

@final
class FileWrapper:
    """`wsgi.file_wrapper`: an iterable over a file, which the server may replace by sendfile(2)."""

    def __new__(cls, filelike: _File, blksize: int = 8192) -> Self: ...
    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def __getitem__(self, key: int, /) -> bytes: ...
    # `close` is there if the file has one; a stub cannot say so.
    @property
    def filelike(self) -> _File: ...
    @property
    def blksize(self) -> int: ...

@final
class GreenLoop:
    """The loop of one worker whose requests run in greenlets; `worker` is told as in bicorn.workers.native."""

    def __new__(
        cls,
        app: Callable[..., Any] | None,  # Any: what a WSGI application gives is checked when it does.
        worker: object,
        slot: Slot | None,
        listeners: Sequence[Mapping[str, Any]],  # Any: fd: int, template: dict (an environ), nameless: bool.
        options: Mapping[str, Any],  # Any: values of settings.
        access: AccessLog | None = None,
        wake_fd: int | None = None,
        lifeline_fd: int | None = None,
    ) -> Self: ...
    def fileno(self) -> int:
        """Give the descriptor that is readable when there is something to do."""

    def step(self) -> tuple[list[GreenJob], float | None]:
        """Do what there is to do; never blocks.

        Gives the jobs that have come of it, and the seconds after which to step again even if the descriptor is silent:
        none when the loop has ended. Raises what ended it early.
        """

    def drain(self) -> None:
        """Accept nothing new, finish what is there, then end. Safe in a signal handler."""

    def retire(self) -> None:
        """Accept nothing more, not even what waits already: a successor will. Safe in a signal handler."""

    def begin_abort(self) -> None:
        """The worker is about to die: answer what has no answer yet, and leave idle connections behind."""

    def stop(self) -> None:
        """End at once. Safe in a signal handler."""

@final
class GreenJob:
    """A request, or the next part of an answer; to be called once."""

    @property
    def home(self) -> int | None:
        """The number of the greenlet that began the answer and has to go on with it; none for a new request."""

    def __call__(self, home: int) -> bool:
        """Run it in this greenlet, whose number is `home`.

        True when the reader is slow and the application has more to give: step() then gives another job with this
        number, to be called here.
        """

@final
class SyncLoop:
    """The loop of one `sync` worker; what `worker` is told through, see bicorn.workers.native."""

    def __new__(
        cls,
        app: Callable[..., Any] | None,  # Any: what a WSGI application gives is checked when it does.
        worker: object,
        slot: Slot | None,
        listeners: Sequence[Mapping[str, Any]],  # Any: fd: int, template: dict (an environ), nameless: bool.
        options: Mapping[str, Any],  # Any: values of settings.
        timeout: float,
        access: AccessLog | None = None,
        wake_fd: int | None = None,
        lifeline_fd: int | None = None,
    ) -> Self: ...
    def run(self) -> None:
        """Serve until drained or stopped; raise what ended it otherwise."""

    def drain(self) -> None:
        """Accept nothing new, finish what is there, then return from run(). Safe in a signal handler."""

    def retire(self) -> None:
        """Accept nothing more, not even what waits already: a successor will. Safe in a signal handler."""

    def begin_abort(self) -> None:
        """The request that runs is about to be broken off because it takes too long: its client is answered 504."""

    def stop(self) -> None:
        """Return from run() at once. Safe in a signal handler."""

@final
class ThreadLoop:
    """The loop of one `gthread` worker; what `worker` is told through, see bicorn.workers.native."""

    def __new__(
        cls,
        app: Callable[..., Any] | None,  # Any: what a WSGI application gives is checked when it does.
        worker: object,
        slot: Slot | None,
        listeners: Sequence[Mapping[str, Any]],  # Any: fd: int, template: dict (an environ), nameless: bool.
        options: Mapping[str, Any],  # Any: values of settings.
        threads: int,
        timeout: float,  # seconds a request may take; 0 for as long as it likes
        access: AccessLog | None = None,
        wake_fd: int | None = None,
        lifeline_fd: int | None = None,
    ) -> Self: ...
    def work(self, thread: int) -> None:
        """Serve in the calling thread, the one with this number, until the loop has ended."""

    def watch(self) -> None:
        """Watch over the threads until the loop has ended; raise what ended it early."""

    def drain(self) -> None:
        """Accept nothing new, finish what is there, then end. Safe in a signal handler."""

    def retire(self) -> None:
        """Accept nothing more, not even what waits already: a successor will. Safe in a signal handler."""

    def begin_abort(self) -> None:
        """The worker is about to die: answer what has no answer yet, and leave idle connections behind."""

    def stop(self) -> None:
        """End at once. Safe in a signal handler."""
