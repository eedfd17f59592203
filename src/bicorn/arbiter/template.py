"""A process that holds the loaded application, and that workers are forked from.

Owns       the orders on the channel between the arbiter and a template, and the process that follows them.
Never      decides how many workers there are, or waits for one.
Invariant  a worker that a template forked is the arbiter's child before it does anything.

Why    An arbiter that loaded the application itself could never load it anew: Python keeps modules. So with preload_app
       a child of the arbiter loads it, a reload starts another such child, and the arbiter stays small and clean. With
       refork a worker that has served becomes the template, with everything that it has cached.
How    The template forks twice and the process in the middle exits at once, so the worker is an orphan; the arbiter is
       the subreaper of all below it and adopts it (docs/adr/0008-lifecycle.md). The worker waits for that, and for the
       arbiter to have been told its pid.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import gc
import os
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Final, NoReturn

from bicorn.arbiter.environment import set_title
from bicorn.arbiter.outcome import headline
from bicorn.arbiter.signals import HANDLED
from bicorn.errors import BicornError, ExitCode
from bicorn.ipc.messages import Kind, Message, send
from bicorn.ipc.stacks import STACK_SIGNALS, StackFile
from bicorn.net.listener import Listener
from bicorn.unpatched import fork, read, select, set_handler, waitpid, write

if TYPE_CHECKING:
    from bicorn.arbiter.generation import Generation
    from bicorn.arbiter.server import Server
    from bicorn.arbiter.spawner import Spawner
    from bicorn.workers.base import Worker

_ORDER: Final = struct.Struct("!BIII")  # what, age, slot, the pid of the arbiter that is replaced
_PID: Final = struct.Struct("!I")
#: Descriptors that one order may carry; the kernel's own limit is 253 (SCM_MAX_FD).
DESCRIPTORS_MAX: Final = 250


class _Order(enum.IntEnum):
    FORK = 1  # a worker of this age on this slot; with the file of its stacks and its own channel
    BECOME_TEMPLATE = 2  # when the last request is done; with the listeners


def make_channel() -> tuple[socket.socket, socket.socket]:
    """Give the arbiter's end and the template's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)  # A template that does not listen must not hold up the arbiter.
    return ours, theirs


def order_to_become_template(channel: socket.socket, listeners: Sequence[Listener]) -> None:
    """Ask a worker that is about to drain to go on as a template."""
    _send_order(channel, _Order.BECOME_TEMPLATE, 0, 0, [listener.fileno() for listener in listeners])


def order_fork(channel: socket.socket, age: int, slot: int, predecessor: int, descriptors: Sequence[int]) -> None:
    """Have a template fork a worker; it says FORKED, or FORK_FAILED. OSError if it does not listen.

    `predecessor`: the pid of the arbiter that is being replaced, 0 if there is none any more.
    """
    _send_order(channel, _Order.FORK, age, slot, descriptors, predecessor)


def _send_order(
    channel: socket.socket, order: _Order, age: int, slot: int, descriptors: Sequence[int], predecessor: int = 0
) -> None:
    assert len(descriptors) <= DESCRIPTORS_MAX, "the kernel would refuse them"
    socket.send_fds(channel, [_ORDER.pack(order, age, slot, predecessor)], list(descriptors))


# -- in the template's process ---------------------------------------------------------------------


class TemplateProcess:
    """This process, from the moment when it holds the application."""

    def __init__(self, spawner: Spawner, generation: Generation, channel: socket.socket) -> None:
        self._spawner = spawner
        self._server = spawner.server
        self._lifeline = spawner.inheritance.lifeline
        self._ready_pipe = spawner.inheritance.ready_pipe
        self._generation = generation
        self._channel = channel

    @classmethod
    def load(cls, spawner: Spawner, generation: Generation, channel: socket.socket) -> TemplateProcess:
        """Load the application in a process that was forked for it; exit if that fails."""
        server = spawner.server
        server.log.close_on_exec()
        _take_signals(server)
        set_title("template", server.proc_name)
        try:
            generation.app.wsgi()
        except BicornError as error:
            _fail(spawner, str(error))
        except BaseException:  # noqa: BLE001 - nothing may escape into the arbiter's loop
            _fail(spawner, traceback.format_exc())
        return cls(spawner, generation, channel)

    @classmethod
    def promote(cls, spawner: Spawner, generation: Generation, worker: Worker) -> TemplateProcess | None:
        """Make a template of a worker whose run() has returned, if the arbiter has asked for one."""
        if worker.channel is None:
            return None
        worker.channel.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            data, descriptors, _, _ = socket.recv_fds(worker.channel, _ORDER.size, DESCRIPTORS_MAX)
            if data:
                worker.channel.setblocking(True)
                listeners = [
                    Listener(socket.socket(fileno=descriptor), known.cfg_addr)
                    for known, descriptor in zip(generation.listeners, descriptors, strict=True)
                ]
                _take_signals(spawner.server)
                set_title("template", spawner.server.proc_name)
                return cls(spawner, dataclasses.replace(generation, listeners=listeners), worker.channel)
        return None

    def serve(self) -> Worker:
        """Fork workers as ordered, until the arbiter ends or says so; return only in the forked processes."""
        gc.collect()
        # What is there now stays: the collector of a worker does not touch it, and so does not copy its pages.
        gc.freeze()
        send(self._ready_pipe, Message(Kind.TEMPLATE_READY, os.getpid()))
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._lifeline, select.POLLIN)
        while True:
            events = dict(poll.poll())
            if self._lifeline in events:
                sys.exit(ExitCode.OK)
            data, descriptors, _, _ = socket.recv_fds(self._channel, _ORDER.size, DESCRIPTORS_MAX)
            if not data:
                sys.exit(ExitCode.OK)
            _, age, slot, predecessor = _ORDER.unpack(data)
            if predecessor != self._server.predecessor.pid:  # It has gone: the names of this server are its own now.
                self._server.predecessor.pid = predecessor
                set_title("template", self._server.proc_name)
            worker = self._fork(age, slot, descriptors)
            if worker is not None:
                return worker

    def _fork(self, age: int, slot: int, descriptors: list[int]) -> Worker | None:
        file, *channel = descriptors
        stacks = StackFile(file)
        own = socket.socket(fileno=channel[0]) if channel else None
        try:
            worker: Worker = self._spawner.make_worker(self._generation, age, slot, stacks, own)
            worker.cfg.pre_fork(self._server, worker)
            pid = fork_orphan(lambda pid: self._tell_forked(pid, age), lambda: self._leave(worker))
        except Exception as error:
            self._server.log.error("A worker could not be forked", exc_info=error)
            text = f"{age} {headline(str(error) or type(error).__name__)}"
            send(self._ready_pipe, Message(Kind.FORK_FAILED, os.getpid(), text))
            pid = -1
        if pid == 0:
            return worker
        stacks.close()
        if own is not None:
            own.close()
        return None

    def _tell_forked(self, pid: int, age: int) -> None:
        send(self._ready_pipe, Message(Kind.FORKED, pid, str(age)))

    def _leave(self, worker: Worker) -> None:
        self._channel.close()
        worker.init_early_signals()
        if worker.stacks is not None:
            worker.stacks.arm()


def _take_signals(server: Server) -> None:
    """Mind only what concerns a template: the end that the arbiter orders, and rotated log files."""
    signal.set_wakeup_fd(-1)
    for signum in HANDLED:
        # INT and QUIT reach the whole group from a terminal; the arbiter ends its templates itself.
        set_handler(signum, _leave_to_the_arbiter)
    for signum in (signal.SIGTERM, signal.SIGCHLD):
        set_handler(signum, signal.SIG_DFL)
    set_handler(signal.SIGUSR1, lambda _signum, _frame: server.log.reopen_files())
    set_handler(signal.SIGABRT, lambda _signum, frame: _say_where(server, frame))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {*HANDLED, *STACK_SIGNALS})


def _leave_to_the_arbiter(_signum: int, _frame: FrameType | None) -> None:
    """Do nothing; a handler, because programs that the application starts would inherit SIG_IGN."""


def _say_where(server: Server, frame: FrameType | None) -> NoReturn:
    stack = "".join(traceback.format_stack(frame)).rstrip("\n")
    server.log.error("The application is still being loaded:\n%s", stack)
    os._exit(ExitCode.FAILED)


def _fail(spawner: Spawner, text: str) -> NoReturn:
    spawner.server.log.error("%s", text)
    send(spawner.inheritance.ready_pipe, Message(Kind.BOOT_FAILED, os.getpid(), headline(text)))
    os._exit(ExitCode.FAILED)


# -- forking an orphan -----------------------------------------------------------------------------


def fork_orphan(tell: Callable[[int], None], leave: Callable[[], None]) -> int:
    """Fork a process whose parent is gone; `tell(pid)` is called before it goes on, `leave()` is called in it.

    Gives its pid, and 0 in it. Raises OSError if there is none.
    """
    told, telling = os.pipe()
    waiting, going = os.pipe()
    # A signal for the newborn that came before it has handlers of its own would reach those of the template.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDLED, *STACK_SIGNALS})
    try:
        middle = fork()
        if middle == 0:
            _be_parent_for_a_moment(telling)
            for end in (told, telling, going):
                os.close(end)
            leave()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if middle == 0:
        _wait_for_adoption(waiting)
        return 0
    for end in (telling, waiting):
        os.close(end)
    try:
        waitpid(middle, 0)  # From here on the worker has no parent but the subreaper.
        data = read(told, _PID.size)
        if not data:
            raise OSError("the process between a template and its worker could not fork")
        (pid,) = _PID.unpack(data)
        tell(pid)
        write(going, b"\1")
        return int(pid)
    finally:
        os.close(told)
        os.close(going)


def _be_parent_for_a_moment(telling: int) -> None:
    """Return only in the child."""
    try:
        pid = fork()
        if pid:
            write(telling, _PID.pack(pid))
    except BaseException:  # noqa: BLE001 - an at-fork function of the user's; nothing may escape into the template
        pid = -1
    if pid:
        os._exit(ExitCode.OK)


def _wait_for_adoption(waiting: int) -> None:
    gone_on = read(waiting, 1)
    os.close(waiting)
    if not gone_on:
        os._exit(ExitCode.OK)  # The template died before it could tell the arbiter of us.
