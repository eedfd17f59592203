"""What the gevent and the eventlet worker share: the native loop, stepped from the main greenlet.

Owns       when the loop is stepped, and a greenlet for each request that it gives.
Never      holds a greenlet for a slow client: bytes move in the loop, and a greenlet lives as long as its request.
Invariant  step() is called in the main greenlet only, and the heartbeat with it, so that a blocked hub is noticed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bicorn._core import GreenLoop
from bicorn.workers.native import NativeWorker

if TYPE_CHECKING:
    from bicorn._core import GreenJob
    from bicorn.app.reloader import Reloader
    from bicorn.config import Settings
    from bicorn.observe.log import Logger


class Mailbox(Protocol):
    """Where a greenlet waits for the next part of its answer."""

    def put(self, part: GreenJob, /) -> None: ...
    def get(self) -> GreenJob: ...


class GreenWorker(NativeWorker):
    """Serves a WSGI application, each request in a greenlet."""

    MULTITHREAD: ClassVar[bool] = True
    #: The name of the package, and the line that patches the standard library with it.
    LIBRARY: ClassVar[str]
    PATCH: ClassVar[str]

    @classmethod
    def check_config(cls, cfg: Settings, log: Logger) -> None:
        """Say in the arbiter's log what has no effect, or an effect that nobody wants."""
        super().check_config(cfg, log)
        if cfg.threads > 1:
            log.info(
                "threads = %s has no effect: each request runs in a greenlet, and worker_connections = %s bounds them",
                cfg.threads, cfg.worker_connections,
            )  # fmt: skip
        if cfg.preload_app and not cls.is_patched():
            log.warning(
                "preload_app loads the application before %s has patched the standard library: what it took from there "
                "will block. Begin the configuration file with %r, or leave preload_app out",
                cls.LIBRARY, cls.PATCH,
            )  # fmt: skip

    @classmethod
    def is_patched(cls) -> bool:
        """Whether the user has patched the standard library already."""
        raise NotImplementedError

    loop: GreenLoop | None = None

    # -- what gevent and eventlet do each in their own way ---------------------------------------

    def patch(self) -> None:
        """Make the standard library cooperative, and the hub this process's own."""
        raise NotImplementedError

    def spawn(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function in a greenlet of its own."""
        raise NotImplementedError

    def spawn_in_hub(self, function: Callable[..., Any], *args: Any) -> None:
        """Do the same in a signal's handler that runs in the hub, which may be about to sleep on."""
        self.spawn(function, *args)

    def wait(self, descriptor: int, seconds: float) -> None:
        """Let other greenlets run until the descriptor is readable, at most so long."""
        raise NotImplementedError

    def wait_writable(self, descriptor: int, seconds: float) -> bool:
        """Let other greenlets run until the descriptor is writable; False if that took longer."""
        raise NotImplementedError

    def make_mailbox(self) -> Mailbox:
        """Make a queue whose get() lets other greenlets run."""
        raise NotImplementedError

    def is_in_hub(self) -> bool:
        """Whether this is called in the hub, which must not wait for anything."""
        raise NotImplementedError

    # -- life ----------------------------------------------------------------------------------

    def init_process(self) -> None:
        self.patch()
        super().init_process()

    def _make_reloader(self) -> Reloader:
        reloader = super()._make_reloader()
        # Its thread has become a greenlet, in which watchfiles would block the hub; looking every second does not.
        reloader.poll_only()
        return reloader

    # -- requests --------------------------------------------------------------------------------

    def waiter(self) -> Callable[[int, float], bool]:
        return self.wait_writable

    def capacity(self) -> int:
        return self.cfg.worker_connections

    def make_loop(self) -> GreenLoop:
        return GreenLoop(**self.site(), wake_fd=self.PIPE[0] if self.PIPE else None)

    def serve(self) -> None:
        loop = self.loop
        assert loop is not None, "made by run()"
        self._mailboxes: dict[int, Mailbox] = {}
        self._begun = 0
        while True:
            jobs, wait_s = loop.step()
            for job in jobs:
                self._hand_out(job)
            if wait_s is None:
                return
            self.notify()
            self.wait(loop.fileno(), min(wait_s, self.heartbeat_interval))

    def _hand_out(self, job: GreenJob) -> None:
        """Give a request to a new greenlet, and a further part of an answer to the one that began it."""
        if job.home is not None:
            self._mailboxes[job.home].put(job)
            return
        self._begun += 1
        self.spawn(self._answer, job, self._begun)

    def _answer(self, job: GreenJob, number: int) -> None:
        """Run a request to the end of its answer; in between its reader may be slow."""
        while job(number):
            # Nothing has run since the loop took the rest back, so the next part is still to come.
            if number not in self._mailboxes:
                self._mailboxes[number] = self.make_mailbox()
            job = self._mailboxes[number].get()
        self._mailboxes.pop(number, None)

    # -- signals: their handlers run wherever the process is, be it in the hub --------------------

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        if self.is_in_hub():
            self.spawn_in_hub(super().handle_quit, sig, frame)  # The worker_int hook may wait.
        else:
            super().handle_quit(sig, frame)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        if self.is_in_hub():
            self.spawn_in_hub(super().handle_usr1, sig, frame)  # The locks of the log's handlers may be held.
        else:
            super().handle_usr1(sig, frame)
