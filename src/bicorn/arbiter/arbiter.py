"""The parent process at work: its loop, what signals mean to it, and how the server ends.

Owns       the listeners, the one wait, the order within a round, and the end of the server.
Never      reads a client's byte, and never waits for anything but the next event.
Invariant  what happens to a worker was decided by policy.decide(); this file only sees to it that it is done.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from bicorn import __version__
from bicorn.arbiter import duties, policy
from bicorn.arbiter.control import Control
from bicorn.arbiter.exits import Exit
from bicorn.arbiter.failures import EXIT_INTERNAL_ERROR, Failures
from bicorn.arbiter.inheritance import Inheritance
from bicorn.arbiter.open_files import raise_limit
from bicorn.arbiter.policy import AbortTemplate, Commit, Decision, Drain, Phase, Snapshot, Spawn, StartTemplate
from bicorn.arbiter.recycle import Recycling
from bicorn.arbiter.refork import Refork
from bicorn.arbiter.reload import Reload
from bicorn.arbiter.scale import Scaling
from bicorn.arbiter.server import Server
from bicorn.arbiter.service import Service
from bicorn.arbiter.signals import SignalQueue
from bicorn.arbiter.spawner import Spawner
from bicorn.arbiter.stacks import StackCollector
from bicorn.arbiter.stop import Stop
from bicorn.arbiter.templates import Templates
from bicorn.arbiter.upgrade import Upgrade, UpgradeRefused
from bicorn.arbiter.watch import RequestWatch
from bicorn.arbiter.workforce import Workforce
from bicorn.errors import BicornError, ExitCode, HaltServer
from bicorn.net import systemd
from bicorn.net.listener import Listener, adopt_listeners, close_listeners, create_listeners
from bicorn.unpatched import select, waitpid

if TYPE_CHECKING:
    from bicorn.app.application import Application
    from bicorn.arbiter.generation import Generation
    from bicorn.config import Settings

_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
#: An arbiter that looks at its workers so long after it wanted to was stopped or frozen, and so may they have been.
OVERSLEPT_S: Final = 1.0


class Arbiter(Server):
    """The parent process; embedding programs subclass it, so the names of its methods are Gunicorn's."""

    def __init__(self, app: Application, load_settings: Callable[[], Settings] | None = None) -> None:
        """`load_settings` reads the whole configuration again, for a reload; without it the application does."""
        super().__init__(app)
        self._signals = SignalQueue()
        self._inheritance = Inheritance()
        self._stacks = StackCollector()
        self._watch = RequestWatch(self.children, lambda: self.cfg, self._stacks, self.log)
        self._reload = Reload(self, load_settings or app.load_again)
        self._upgrade = Upgrade(self, retire=self.handle_term)
        self._failures = Failures(self, self._reload, self._halt)
        self._workforce = Workforce(self, self._stacks, self._watch, self._failures)
        self._spawner = Spawner(self, self._inheritance, self._failures, self._leave_in_child)
        self._templates = Templates(self._spawner, self._workforce, self._failures, self._stacks)
        self._control = Control(self, self.children, self._stacks)
        self._service = Service(self, self.children, os.environ)
        self._duties: tuple[duties.Duty, ...] = (
            self._stacks,
            self._watch,
            Recycling(self.children, lambda: self.cfg, self.log),
            Refork(self.children, self.settled_generation, self.log),
            Scaling(self.children, self.settled_generation, self.resize, self.log),
            self.predecessor,
            self._upgrade,
            self._control,
            self._service,
        )
        self._looked_at = 0.0
        self._look_due_at = math.inf
        self.cfg.nworkers_changed(self, self.num_workers, None)
        self.log.debug("Current configuration:\n%s", self.cfg.explain())

    # -- the loop ------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop; give the exit code of the server."""
        try:
            self.start()
        except BicornError:
            self._release()
            raise
        except Exception:
            self.log.exception("Exception while starting")
            self._release()
            return ExitCode.FAILED
        wake_at: float | None = time.monotonic()
        while not self._is_over():
            try:
                self._wait(wake_at)
                self._dispatch()
                wake_at = self._act(policy.decide(self._snapshot()))
            except HaltServer as halt:
                self._halt(halt.reason, halt.exit_code)
            except Exception as error:  # noqa: BLE001 - whatever it is, workers must not be left behind
                self._survive(error)
        return self._finish()

    def _wait(self, wake_at: float | None) -> None:
        """Sleep until a signal, a message, or the moment that the last decision named."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        poll.register(self._inheritance, select.POLLIN)
        duties.register(self._duties, poll)
        wake_at = duties.earliest(self._duties, wake_at)
        # Rounded up: a wait that ends before its moment would decide the same again and again.
        self._look_due_at = math.inf if wake_at is None else max(wake_at, self._looked_at)
        poll.poll(None if wake_at is None else max(0, math.ceil((wake_at - time.monotonic()) * 1000)))

    def _dispatch(self) -> None:
        """Take in what happened since the last round: messages, signals, exits, what duties have to say."""
        self._read_messages()
        # Exits come last: they are judged in the light of everything that was asked for meanwhile.
        for signum in sorted(self._signals.take(), key=lambda signum: signum is signal.SIGCHLD):
            name = signum.name.removeprefix("SIG").lower()
            level = self.log.debug if signum is signal.SIGCHLD else self.log.info
            level("Handling signal: %s", name)
            getattr(self, f"handle_{name}")()
        for duty in self._duties:
            duty.attend(time.monotonic())

    def _read_messages(self) -> None:
        for message in self._inheritance.receive():
            if not self._templates.read(message):
                self._workforce.hear(message)

    def _snapshot(self) -> Snapshot:
        """Take the picture that the next decision is made from."""
        current, fallback = self.generations.current, self.generations.fallback
        self._looked_at = now = time.monotonic()
        # Wherever it was held up since the last look: asleep, or in what it does when it is awake.
        if now - self._look_due_at > OVERSLEPT_S:
            self.children.excuse(now)
        return Snapshot(
            now=now,
            phase=self.phase,
            target=self.num_workers,
            generation=current.number,
            fallback=fallback.number if fallback else None,
            proven=current.proven,
            workers=self.children.views(),
            slots_free=self.children.slots_free,
            spawn_not_before=self.generations.backoff.not_before,
            timeout=self.cfg.timeout,
            graceful_timeout=self.cfg.graceful_timeout,
            stop_deadline=self._stop.deadline if self._stop else None,
            fallback_target=fallback.target if fallback else 0,
            rolling=current.is_rolling,
            boot_timeout=self.cfg.boot_timeout,
            templates=self._templates.views(),
        )

    def _act(self, decision: Decision) -> float | None:
        """Do what was decided; give the moment for the next round."""
        for action in decision.actions:
            self._perform(action)
        if self._stop is not None:
            return min(decision.wake_at or math.inf, self._stop.given_up_at)
        # After actions the picture is another one: the next round looks at once, and finds nothing to do.
        return self._looked_at if decision.actions else decision.wake_at

    def _perform(self, action: policy.Action) -> None:
        match action:
            case Commit():
                self._commit()
            case Spawn(number):
                if (generation := self._find(number)) is not None:
                    self._spawner.spawn(generation)
            case StartTemplate(number):
                if (generation := self._find(number)) is not None:
                    self._templates.start(generation)
            case AbortTemplate(number):
                self._templates.abort(number)
            case _:
                if isinstance(action, Drain):
                    self._templates.tell_heir(action.pid)
                self._workforce.tell(action)

    def _find(self, number: int) -> Generation | None:
        """Give the generation to fork for, unless an action before has ended it or begun the end of the server."""
        return self.generations.find(number) if self._stop is None else None

    def _commit(self) -> None:
        if not self.has_served:
            self.has_served = True
            self.predecessor.tell_ready()
        if self.generations.commit():
            self.log.debug("Reload done: the workers of before are drained")

    # -- start ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Take over signals, claim the pid file, make the listeners."""
        self.log.info("Starting bicorn %s", __version__)
        raise_limit(self.cfg.open_files, self.log)
        # Before the pid file: whoever reads it may signal at once, and must not meet default handlers.
        self._signals.install()
        self.claim_pidfile()
        self.cfg.on_starting(self)
        self.log.close_on_exec()
        self.generations.current.listeners = self._listen()
        self.log.debug("Arbiter booted")
        self.log.info("Listening at: %s (%s)", ",".join(map(str, self.LISTENERS)), self.pid)
        self.log.info("Using worker: %s", self.cfg.worker_class_str)
        check_config = getattr(self.worker_class, "check_config", None)
        if check_config is not None:
            check_config(self.cfg, self.log)
        self._control.open()
        self.cfg.when_ready(self)
        self.show_title()
        gc.collect()
        gc.freeze()  # The collector of a worker does not touch what it inherits, and so does not copy its pages.

    def _listen(self) -> list[Listener]:
        """Make the listeners, or take those of systemd or of the arbiter that this one replaces."""
        inherited = systemd.take_listen_fds(os.environ, self.pid)
        self.systemd = bool(inherited)

        def pause(seconds: float) -> bool:
            return self._signals.wait_for(_STOP_SIGNALS, seconds)

        existing = adopt_listeners(self.predecessor.listen_fds, self.cfg)
        listeners = create_listeners(self.cfg, self.log, inherited=inherited, existing=existing, pause=pause)
        close_listeners([listener for listener in existing if listener not in listeners], unlink=False)
        return listeners

    def _leave_in_child(self) -> None:
        """Give up in a forked child what belongs to the arbiter alone."""
        self._signals.leave_in_child()
        self._inheritance.leave_in_child()
        for duty in self._duties:
            duty.leave_in_child()
        self.children.leave_in_child()
        self._templates.leave_in_child()

    # -- what is asked of it -------------------------------------------------------------------

    def reload(self) -> None:
        """Try the configuration as it is now; its workers take over when they are ready."""
        self._reload.begin()

    def upgrade(self) -> None:
        """Start a new arbiter, and retire when its workers are ready; what came of it is `last_upgrade`.

        Raises UpgradeRefused when there is no new arbiter to be had now.
        """
        if self.pid == 1:
            raise UpgradeRefused("this arbiter is process 1: the container would end with it. Replace the container")
        self._upgrade.start(deadline=time.monotonic() + self.cfg.upgrade_timeout)

    # -- what signals mean ---------------------------------------------------------------------

    def handle_hup(self) -> None:
        """SIGHUP: try the configuration as it is now."""
        self.log.info("Hang up: %s", self.master_name)
        if self._stop is None:
            self.reload()

    def handle_term(self) -> None:
        """SIGTERM: stop when the requests that are held have been answered; again: stop now."""
        self._begin_stop(Phase.DRAINING)

    def handle_int(self) -> None:
        """SIGINT: stop now."""
        self._begin_stop(Phase.QUITTING)

    handle_quit = handle_int

    def handle_ttin(self) -> None:
        """SIGTTIN: one worker more."""
        if self.num_workers >= self.workers_max:
            self.log.warning("TTIN is ignored: there are %s workers, and no room for more", self.num_workers)
            return
        self.num_workers += 1

    def handle_ttou(self) -> None:
        """SIGTTOU: one worker less, but never none."""
        if self.num_workers > 1:
            self.num_workers -= 1

    def handle_usr1(self) -> None:
        """SIGUSR1: log files were rotated."""
        self.log.reopen_files()
        for handle in self.children:
            handle.send(signal.SIGUSR1)
        for template in self._templates:
            os.kill(template.pid, signal.SIGUSR1)

    def handle_usr2(self) -> None:
        """SIGUSR2: start a new arbiter beside this one, from the program as it is now."""
        try:
            self._upgrade.start()
        except UpgradeRefused as refused:
            self.log.warning("USR2 is ignored: %s", refused)

    def handle_winch(self) -> None:
        """SIGWINCH: drain the workers during a binary upgrade; in a terminal, somebody changed its size."""
        if self.cfg.daemon:
            self.log.info("graceful stop of workers")
            self.num_workers = 0
        else:
            self.log.debug("SIGWINCH ignored. Not daemonized")

    def handle_chld(self) -> None:
        """SIGCHLD: bury every child that ended; several signals may have become one."""
        exits = list(_collect_exits())
        # What a worker wrote before it ended is in the pipe by now, and says why.
        self._read_messages()
        for pid, ended in exits:
            if not any(kin.bury(pid, ended) for kin in (self._workforce, self._upgrade, self._templates)):
                self._templates.keep_stray(pid, ended)
                # As PID 1 of a container we get orphans, whose exits mean nothing to us.
                self.log.debug("Reaped unknown child process (pid:%s, %s)", pid, ended)

    # -- the end -------------------------------------------------------------------------------

    def _halt(self, reason: str, exit_code: int) -> None:
        self._begin_stop(Phase.DRAINING, reason, exit_code)

    def _begin_stop(self, phase: Phase, reason: str | None = None, exit_code: int = ExitCode.OK) -> None:
        """Start to end the server; a second time, hurry."""
        now = time.monotonic()
        if self._stop is not None:
            if self._stop.hurry(now):
                self.log.info("Quick shutdown requested")
            return
        self._stop = Stop(phase, now + self.cfg.graceful_timeout, reason, int(exit_code))
        self._inheritance.stop_flag.set()
        self._service.begin_stop()
        for template in self._templates:
            template.end()
        # Ours are only one of the copies: workers serve what waits in the queue before they close theirs.
        self.generations.close_listeners(shared=bool(self.systemd or self.reexec_pid or self.master_pid))

    def _survive(self, error: Exception) -> None:
        """Something of ours or a hook raised where nothing should; end the server in order, then without."""
        self.log.error("Unhandled exception in main loop", exc_info=error)
        if self._stop is None:
            self._begin_stop(Phase.QUITTING, exit_code=EXIT_INTERNAL_ERROR)
            return
        self._stop = Stop(Phase.QUITTING, 0.0, self._stop.reason, EXIT_INTERNAL_ERROR)
        for pid in (*self.WORKERS, *(template.pid for template in self._templates)):
            os.kill(pid, signal.SIGKILL)

    def _is_over(self) -> bool:
        if self._stop is None:
            return False
        return not (self.children or self._templates) or time.monotonic() >= self._stop.given_up_at

    def _finish(self) -> int:
        assert self._stop is not None, "only a stop ends the loop"
        level = self.log.info if self._stop.exit_code == 0 else self.log.error
        level("Shutting down: %s", self.master_name)
        if self._stop.reason is not None:
            level("Reason: %s", self._stop.reason)
        self._release()
        self.run_hook("on_exit")
        return self._stop.exit_code

    def _release(self) -> None:
        self._control.close()
        if self.pidfile is not None:
            self.pidfile.unlink()


def _collect_exits() -> Iterator[tuple[int, Exit]]:
    while True:
        try:
            pid, status = waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, Exit.from_status(status)
