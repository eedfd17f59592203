"""What every worker class is made of, with the names that Gunicorn's worker classes have.

Owns       the order in which a worker comes to life, its signal handlers, and its ways to tell the arbiter that it
           is ready and alive.
Never      accepts a connection or reads a request: subclasses do, in run().
Invariant  the arbiter hears READY at most once, when the application is loaded and post_worker_init has returned.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from bicorn.app.failed import failed_app
from bicorn.app.importer import AppModuleError
from bicorn.app.interface import Interface, interface_of, require_either, require_wsgi
from bicorn.app.reloader import Reloader
from bicorn.ipc.messages import Kind, Message, send
from bicorn.ipc.scoreboard import SlotState
from bicorn.ipc.stacks import StackFile
from bicorn.ipc.stop_flag import StopFlag
from bicorn.unpatched import select
from bicorn.workers.privileges import set_owner

if TYPE_CHECKING:
    from bicorn._core import Slot
    from bicorn.app.application import Application
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.observe.log import Logger

_STOP_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
#: How long a worker with nothing to do waits at most before it shows that it is alive, in seconds.
HEARTBEAT_S: Final = 1.0
#: Where the arbiter stands in `pid` before the fork; Gunicorn's pre_fork hooks see the same.
BOOTING_PID: Final = "[booting]"


class ExitWhileBooting(BaseException):
    """A worker was told to stop before it was ready; carries the exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Heartbeat:
    """`worker.tmp`: Gunicorn's name for the thing that a worker shows it is alive with. Ours is no file."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def notify(self) -> None:
        """Show that the worker is alive."""
        self._worker.notify()

    def last_update(self) -> float:
        """Give the monotonic time of the last sign of life, in seconds."""
        slot = self._worker.slot
        return slot.heartbeat_ns / 1e9 if slot is not None else 0.0

    def close(self) -> None:
        """Do nothing: shared memory goes with the process."""


class Worker:
    """A worker process; subclasses give it a run()."""

    SIGNALS: ClassVar[list[signal.Signals]] = [
        signal.SIGABRT,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
        signal.SIGCHLD,
    ]
    #: What run() calls the application with; None leaves it to the subclass to find out.
    INTERFACE: ClassVar[Interface | None] = None
    #: Whether run() looks for PROXY headers (proxy_protocol) before the first request of a connection.
    READS_PROXY_HEADERS: ClassVar[bool] = False
    #: Whether run() calls mark_ready() itself, at the moment when it accepts.
    SAYS_READY: ClassVar[bool] = False

    PIPE: Sequence[int] = ()

    #: The worker class that the application asked for, if that is another one than the settings'.
    turned_into: str = ""

    # Set by the arbiter between construction and fork.
    slot: Slot | None = None
    lifeline: int = -1  # readable as soon as the arbiter is dead, however it died
    ready_pipe: int = -1  # where messages to the arbiter go
    stop_flag: StopFlag | None = None  # whether a drain is the server's end
    handover: tuple[int, int] | None = None  # both ends of the queue of connections that change workers: in, out
    channel: socket.socket | None = None  # on which it can be asked to become a template (refork)
    stacks: StackFile | None = None  # where stacks go that the arbiter asks for

    def __init__(
        self,
        age: int,
        ppid: int,
        sockets: list[Listener],
        app: Application,
        timeout: float,
        cfg: Settings,
        log: Logger,
    ) -> None:
        """Run in the arbiter, before the fork: whatever belongs to the process goes into init_process()."""
        self.age = age
        self.pid: int | str = BOOTING_PID
        self.ppid = ppid
        self.sockets = sockets
        self.app = app
        self.timeout = timeout
        self.cfg = cfg
        self.booted = False
        self.aborted = False
        self.reloader: Reloader | None = None
        self.nr = 0
        jitter = random.randint(0, cfg.max_requests_jitter)
        self.max_requests = cfg.max_requests + jitter if cfg.max_requests > 0 else sys.maxsize
        self.alive = True
        self.log = log
        self.tmp = Heartbeat(self)
        self.wsgi: Callable[..., Any] | None = None  # Any: the interface is the subclass's matter
        self.wait_fds: list[Any] = []  # Any: listeners and descriptors, for select()
        self._said_ready = False
        self._is_ready_at_notify = False
        self._is_leaving = False

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"

    # -- life ----------------------------------------------------------------------------------

    def init_process(self) -> None:
        """Bring the process to life and enter run(); an override ends with super().init_process()."""
        os.environ.update(self.cfg.env)
        set_owner(self.cfg.uid, self.cfg.gid, initgroups=self.cfg.initgroups)
        random.seed()  # The arbiter's state was copied by the fork: siblings would draw the same numbers.
        self.PIPE = os.pipe()
        for end in self.PIPE:
            os.set_blocking(end, False)
        self.wait_fds = [*self.sockets, self.PIPE[0]]
        self.log.close_on_exec()
        self.init_signals()
        if self.cfg.reload:
            self.reloader = self._make_reloader()
        self.load_wsgi()
        if self.reloader is not None:
            self.reloader.start()
        self.cfg.post_worker_init(self)
        self.booted = True
        if not self.SAYS_READY:
            self._expect_ready()
        # A request that is being served must not see its system calls interrupted; a boot that hangs has to.
        signal.siginterrupt(signal.SIGTERM, False)
        self.run()

    def load_wsgi(self) -> None:
        """Load the application; under --reload, an application that fails is replaced by its traceback."""
        try:
            self.wsgi = self.app.wsgi()
        except AppModuleError as error:
            # Without a file of the user's in the traceback there is nothing to wait for: the name itself is wrong.
            if self.reloader is None or not error.files:
                raise
            self.log.error("%s", error)
            for file in error.files:
                self.reloader.add_extra_file(file)
            self.wsgi = failed_app(str(error))
        is_open = self.INTERFACE is Interface.WSGI and not self.cfg.is_given("worker_class")
        if is_open and interface_of(self.wsgi) is Interface.ASGI:
            require_either(self.wsgi, self.cfg.app_uri or "")  # A factory looks like one, and must not be called one.
            self._become_asgi()
        self.require_served(self.wsgi, self.cfg)

    @classmethod
    def require_served(cls, app: Callable[..., object], cfg: Settings) -> None:
        """Refuse an application of a kind that this class cannot serve."""
        if cls.INTERFACE is Interface.WSGI:
            require_wsgi(app, cfg.app_uri or "", cfg.worker_class_str)

    def _become_asgi(self) -> None:
        """Be an `asgi` worker: nobody asked for a class, and the application that turned up is for that one."""
        from bicorn.workers.registry import find_worker_class  # which imports this module

        found = find_worker_class("asgi")
        assert isinstance(found, type)
        assert issubclass(found, Worker)
        self.log.info("%s is an ASGI application: using worker asgi", self.cfg.app_uri)
        self.turned_into = "asgi"
        # The class and not a new worker: hooks have seen this one, and the arbiter knows its slot and pipes.
        self.__class__ = found
        self.init_signals()  # Their handlers are methods of the class before.

    def run(self) -> None:
        """Serve until `alive` is False and all work is done."""
        raise NotImplementedError(f"{type(self).__qualname__} has no run()")

    def _make_reloader(self) -> Reloader:
        self.log.warning("Reloader is on. Use in development only!")

        def on_change(file: str) -> None:
            # Called in the reloader's thread: the signal hands over to the main thread, wherever it waits.
            self.log.info("Worker reloading: %s modified", file)
            self.alive = False
            self.cfg.worker_int(self)
            os.kill(os.getpid(), signal.SIGTERM)

        return Reloader(
            self.cfg.reload_extra_files, self.cfg.reload_engine, on_change, lambda text: self.log.warning("%s", text)
        )

    @property
    def heartbeat_interval(self) -> float:
        """How often run() has to notify(), in seconds: twice within `timeout`, and at least once a second."""
        return min(HEARTBEAT_S, self.timeout or HEARTBEAT_S)

    # -- what the arbiter learns ---------------------------------------------------------------

    def notify(self) -> None:
        """Show that this worker is alive; to be called at least every `timeout` seconds."""
        if self.slot is not None:
            self.slot.beat()
        if self._is_ready_at_notify:
            self._is_ready_at_notify = False
            self.mark_ready()

    def _expect_ready(self) -> None:
        """Take the first sign of life from run() as the word that it accepts, for classes that have no such word.

        Their loops notify when they turn, which is after whatever could still fail at start (the lifespan of an ASGI
        application, an asynchronous factory): a reload that fails there leaves the workers of before in place.
        """
        self.notify()
        if self.cfg.timeout:
            self._is_ready_at_notify = True
        else:
            # Nobody watches heartbeats, so there may be none. Connections wait in the listen queue until run() accepts.
            self.mark_ready()

    def mark_ready(self) -> None:
        """Tell the arbiter that this worker accepts; the first call counts."""
        if self._said_ready:
            return
        self._said_ready = True
        self.notify()
        if self.slot is not None:
            self.slot.state = SlotState.READY
        if self.ready_pipe >= 0:
            send(self.ready_pipe, Message(Kind.READY, os.getpid(), self.turned_into))

    def ask_for_successor(self, reason: str) -> None:
        """Tell the arbiter that this worker has served its time, and go on: SIGTERM comes when a successor is ready."""
        if self.ready_pipe >= 0:
            send(self.ready_pipe, Message(Kind.DUE, os.getpid(), reason))

    def recycle(self) -> None:
        """max_requests have been served: a successor is asked for, and requests are served until it is ready."""
        self.log.info("Autorestarting worker after current request.")
        self.ask_for_successor(f"it has served {self.max_requests} requests (max_requests)")

    def is_arbiter_alive(self) -> bool:
        """Tell whether the arbiter lives, without waiting."""
        if self.lifeline < 0:
            return os.getppid() == self.ppid
        poll = select.poll()
        poll.register(self.lifeline, select.POLLIN)
        return not poll.poll(0)

    def become_orphan(self) -> None:
        """Say what the arbiter would at a stop, now that it is gone: all workers end, and take nothing over any more.

        What one of them gave to another that does as well would be lost with the queue between them.
        """
        self.alive = False
        if self.stop_flag is not None:
            self.stop_flag.set()
        if self.slot is not None:
            self.slot.state = SlotState.DRAINING

    # -- signals -------------------------------------------------------------------------------

    def init_signals(self) -> None:
        """Install the handlers of a worker."""
        # Not by way of the default action, as Gunicorn does: a rotation's USR1 in between would end the worker.
        self.init_early_signals()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGQUIT, self.handle_quit)
        signal.signal(signal.SIGTERM, self.handle_exit)
        signal.signal(signal.SIGINT, self.handle_quit)
        signal.signal(signal.SIGWINCH, self.handle_winch)
        signal.signal(signal.SIGABRT, self.handle_abort)
        signal.siginterrupt(signal.SIGUSR1, False)
        if self.PIPE:
            signal.set_wakeup_fd(self.PIPE[1], warn_on_full_buffer=False)

    def init_early_signals(self) -> None:
        """Install what a worker needs from its first moment: signals that must not end it."""
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        # HUP and USR2 are the arbiter's; sent to all processes by name (pkill -HUP), they must not end the workers.
        # A handler rather than SIG_IGN, which programs that the application starts would inherit.
        for signum in (signal.SIGHUP, signal.SIGUSR2):
            signal.signal(signum, self._leave_to_the_arbiter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM: finish what is held, accept nothing new."""
        if sig == signal.SIGQUIT:
            # uvicorn's worker hands it here, and its loop never looks at `alive`: it would serve on until it is killed.
            self.handle_quit(sig, frame)
        self.alive = False
        if not self.booted and not self._is_leaving:
            # Nothing was accepted, and the application may be waiting for something that never comes.
            self.begin_exit()
            self._exit(0)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """SIGINT, SIGQUIT: stop now."""
        self.alive = False
        if self._is_leaving:
            return  # Ctrl-C reaches a worker from the terminal and again from the arbiter.
        self.begin_exit()
        self.cfg.worker_int(self)
        self._exit(0)

    def handle_usr1(self, sig: int, frame: FrameType | None) -> None:
        """SIGUSR1: log files were rotated."""
        self.log.reopen_files()

    def _leave_to_the_arbiter(self, sig: int, frame: FrameType | None) -> None:
        """SIGHUP, SIGUSR2: reloads and upgrades are nothing that a worker does."""

    def handle_winch(self, sig: int, frame: FrameType | None) -> None:
        """SIGWINCH: the terminal's size is nothing to a worker."""
        self.log.debug("worker: SIGWINCH ignored.")

    def handle_abort(self, sig: int, frame: FrameType | None) -> NoReturn:
        """SIGABRT: no sign of life for `timeout` seconds. The arbiter logs where we are; run the hook, and die."""
        self.alive = False
        self.cfg.worker_abort(self)
        self._exit(1)

    def has_stuck_threads(self) -> bool:
        """Whether threads of this class are in the middle of a request that nobody waits for any more."""
        return False

    def begin_exit(self) -> None:
        """From here on the process ends: no signal to stop may interrupt its last hooks, and none may kill it."""
        self._is_leaving = True
        # Blocked rather than ignored: the interpreter takes handlers back while it ends, and a signal that is left
        # with none would then kill a process that is about to exit with 0.
        signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOP_SIGNALS, signal.SIGUSR1})

    def _exit(self, code: int) -> NoReturn:
        # While the application is being imported, SystemExit would look like an application that calls sys.exit().
        raise SystemExit(code) if self.booted else ExitWhileBooting(code)

    # -- errors --------------------------------------------------------------------------------

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Report an error of one connection, for worker classes that read requests in Python. Any: theirs, not ours."""
        uri = getattr(req, "uri", None)
        line = f"{getattr(req, 'method', '')} {uri}".strip() if uri else "(no URI read)"
        self.log.error("Error handling request %s", line, exc_info=exc)
        with contextlib.suppress(OSError):
            client.sendall(_SERVER_ERROR)


_SERVER_ERROR: Final = b"HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
