"""The native half, as Python sees it; `make check` compares this file with the module (mypy.stubtest)."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol, final

from typing_extensions import Self

__all__ = [
    "AccessLog",
    "EmptyInput",
    "FileWrapper",
    "Scoreboard",
    "Slot",
    "SyncLoop",
    "__version__",
    "compile_access_format",
]

__version__: Final[str]

def compile_access_format(format: str) -> None:
    """Raise ValueError for a format that needs Python's own `%`."""

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

    @property
    def index(self) -> int: ...
    @property
    def heartbeat_ns(self) -> int: ...
    def reset(self) -> None: ...
    def beat(self) -> None: ...
    # Any: counters are int, `request` is str, `latency_buckets` is list[int].
    def snapshot(self) -> dict[str, Any]: ...

@final
class AccessLog:
    """The access log of one worker, formatted and written natively, in batches."""

    def __new__(
        cls,
        format: str,
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
class SyncLoop:
    """The loop of one `sync` worker; what `worker` is told through, see bicorn.workers.sync."""

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
    def run(self) -> None:
        """Serve until drained or stopped; raise what ended it otherwise."""

    def drain(self) -> None:
        """Accept nothing new, finish what is there, then return from run(). Safe in a signal handler."""

    def retire(self) -> None:
        """Accept nothing more, not even what waits already: a successor will. Safe in a signal handler."""

    def stop(self) -> None:
        """Return from run() at once. Safe in a signal handler."""
