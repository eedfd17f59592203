"""Forking a worker.

Owns       the moments between fork() and the end of the worker's process, and what the child keeps of the arbiter.
Never      decides whether to fork.
Invariant  the child never returns into the arbiter's loop: it leaves by SystemExit, through no `finally` of the
           arbiter's, so that the interpreter ends as a program's does and atexit functions run.

What a fork inherits
    and keeps      the listeners · the read end of the lifeline · the write end of the message pipe · its slot of the
                   scoreboard · the flag of a stop · its file for stacks · the log's files · settings, and the
                   application itself with preload_app
    and gives up   the arbiter's signal handlers, wake-up descriptor and signal pipe · the write end of the lifeline
                   (kept, it would hide the arbiter's death) · the read end of the message pipe · what duties hold
                   (the control socket and its clients) · the files for stacks of its siblings
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from bicorn.arbiter.environment import set_title
from bicorn.arbiter.outcome import headline
from bicorn.arbiter.signals import HANDLED
from bicorn.errors import AppImportError, BicornError, ExitCode
from bicorn.ipc.messages import Kind, Message, send
from bicorn.ipc.stacks import STACK_SIGNALS
from bicorn.unpatched import fork
from bicorn.workers.base import ExitWhileBooting

if TYPE_CHECKING:
    import socket

    from bicorn.arbiter.spawner import Spawner
    from bicorn.arbiter.template import TemplateProcess
    from bicorn.workers.base import Worker

#: What Gunicorn's sys.exit(-1) becomes for the parent: the worker had been serving when it failed.
SERVING_FAILED = 255


def fork_worker(spawner: Spawner, worker: Worker, channel: socket.socket | None) -> int:
    """Fork; give the pid to the arbiter, and in the child live the worker's life and exit.

    `channel` is the arbiter's end of the worker's channel, if it has one.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()  # What stands in the buffers would be written by both.
    # A signal for the newborn that came before it has handlers of its own would be queued for a loop it never runs.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDLED, *STACK_SIGNALS})
    try:
        pid = fork()
        if pid == 0:
            spawner.leave_arbiter()
            if channel is not None:
                channel.close()
            worker.init_early_signals()
            if worker.stacks is not None:
                worker.stacks.arm()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if pid == 0:
        live(spawner, worker)
    return pid


def fork_template(leave_arbiter: Callable[[], None], live_on: Callable[[], NoReturn]) -> int:
    """Fork; give the pid to the arbiter, and call `live_on` in the child, with signals still held back."""
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {*HANDLED, *STACK_SIGNALS})
    try:
        pid = fork()
        if pid == 0:
            leave_arbiter()
            live_on()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return pid


def live(spawner: Spawner, worker: Worker) -> NoReturn:
    """Live the life of a worker; if it then becomes a template, those of the workers forked from it."""
    while True:
        try:
            template = _serve(spawner, worker)
        except SystemExit as told:
            if worker.has_stuck_threads():
                _exit_beside_threads(told.code)
            raise
        # Each turn is another process: this returns in the fork, outside of every frame of the worker before.
        worker = template.serve()


def _exit_beside_threads(code: str | int | None) -> NoReturn:
    """Exit without the end of the interpreter, which would unwind threads through frames that are not Python's."""
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _serve(spawner: Spawner, worker: Worker) -> TemplateProcess:
    server = spawner.server
    worker.pid = os.getpid()
    template = None
    try:
        set_title("worker", server.proc_name)
        worker.log.info("Booting worker with pid: %s", worker.pid)
        worker.cfg.post_fork(server, worker)
        worker.init_process()
        template = spawner.become_template(worker)
        if template is None:
            sys.exit(ExitCode.OK)
        return template
    except SystemExit:
        raise
    except ExitWhileBooting as told:
        sys.exit(told.code)
    except BicornError as error:
        worker.log.error("%s", error)
        _fail(worker, error)
    except BaseException as error:  # Nothing may escape into the arbiter's loop.
        worker.log.exception("Exception in worker process")
        _fail(worker, error)
    finally:
        if template is None:
            worker.begin_exit()
        worker.log.info("Worker exiting (pid: %s)", worker.pid)
        try:
            worker.cfg.worker_exit(server, worker)
        except Exception:  # noqa: BLE001 - the user's hook
            worker.log.warning("Exception during worker exit:\n%s", traceback.format_exc())


def _fail(worker: Worker, error: BaseException) -> NoReturn:
    """Exit with Gunicorn's code for this failure; the arbiter hears why before it sees the exit."""
    if worker.booted:
        sys.exit(SERVING_FAILED)
    text = str(error) or type(error).__name__
    send(worker.ready_pipe, Message(Kind.BOOT_FAILED, os.getpid(), headline(text)))
    sys.exit(int(error.exit_code) if isinstance(error, AppImportError) else ExitCode.WORKER_BOOT_ERROR)
