"""The parent process: it keeps as many workers alive as were asked for.

Owns       the listeners, the configuration in force, the set of workers, and the end of the server.
Never      reads a client's byte, and never waits for anything but the next event.
Invariant  what happens to a worker was decided by policy.decide(); this file only does it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from bicorn import __version__
from bicorn.arbiter import duties, exits, policy
from bicorn.arbiter.children import WorkerHandle
from bicorn.arbiter.control import Control
from bicorn.arbiter.generation import Generation
from bicorn.arbiter.oom import OomKills
from bicorn.arbiter.open_files import raise_limit
from bicorn.arbiter.policy import (
    Abort,
    AbortTemplate,
    Commit,
    Decision,
    Drain,
    Kill,
    Phase,
    Quit,
    Snapshot,
    Spawn,
    StartTemplate,
)
from bicorn.arbiter.recycle import Recycling, draw_lifetime
from bicorn.arbiter.refork import Refork
from bicorn.arbiter.reload import Reload
from bicorn.arbiter.scale import Scaling
from bicorn.arbiter.server import Server
from bicorn.arbiter.service import Service
from bicorn.arbiter.signals import SignalQueue
from bicorn.arbiter.spawn import fork_worker
from bicorn.arbiter.stacks import StackCollector
from bicorn.arbiter.states import SERVING, WorkerEvent, WorkerState
from bicorn.arbiter.stop import Stop
from bicorn.arbiter.template import TemplateProcess, make_channel
from bicorn.arbiter.templates import Template, Templates
from bicorn.arbiter.upgrade import Upgrade, UpgradeRefused
from bicorn.arbiter.watch import RequestWatch
from bicorn.errors import BicornError, ExitCode, HaltServer
from bicorn.ipc import messages
from bicorn.ipc.handover import Handover
from bicorn.ipc.scoreboard import SlotState
from bicorn.ipc.stacks import StackFile
from bicorn.ipc.stop_flag import StopFlag
from bicorn.net import systemd
from bicorn.net.listener import Listener, adopt_listeners, close_listeners, create_listeners
from bicorn.unpatched import select, waitpid

if TYPE_CHECKING:
    from bicorn._core import Slot
    from bicorn.app.application import Application
    from bicorn.config import Settings
    from bicorn.workers.base import Worker

_STOP_SIGNALS: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_BOOT_FAILURES: Final[Mapping[int | None, str]] = {
    ExitCode.WORKER_BOOT_ERROR: "Worker failed to boot.",
    ExitCode.APP_LOAD_ERROR: "App failed to load.",
}
#: An arbiter that comes this late from its wait was stopped or frozen, and so may its workers have been.
OVERSLEPT_S: Final = 1.0
EXIT_INTERNAL_ERROR: Final = 255  # Gunicorn's sys.exit(-1)


class Arbiter(Server):
    """The parent process at work; embedding programs subclass it, so the names of its methods are Gunicorn's."""

    def __init__(self, app: Application, load_settings: Callable[[], Settings] | None = None) -> None:
        """`load_settings` reads the whole configuration again, for a reload; without it the application does."""
        super().__init__(app)
        self._upgrade = Upgrade(self, retire=lambda: self._begin_stop(Phase.DRAINING))
        self._reload = Reload(self, load_settings or app.load_again)
        self._control: Control | None = None
        self._made_from = self.generations.current
        self._awake_since = 0.0
        self.cfg.nworkers_changed(self, self.num_workers, None)
        self.log.debug("Current configuration:\n%s", self.cfg.explain())

    # -- life ----------------------------------------------------------------------------------

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
                wake_at = self._act(policy.decide(self._reconcile()))
            except HaltServer as halt:
                self._begin_stop(Phase.DRAINING, halt.reason, halt.exit_code)
            except Exception as error:  # noqa: BLE001 - whatever it is, workers must not be left behind
                self._survive(error)
        return self._finish()

    def start(self) -> None:
        """Take over signals, claim the pid file, make the listeners."""
        self.log.info("Starting bicorn %s", __version__)
        raise_limit(self.cfg.open_files, self.log)
        self._signals = SignalQueue()
        # Before the pid file: whoever reads it may signal at once, and must not meet default handlers.
        self._signals.install()
        self._lifeline = os.pipe()
        self._stop_flag = StopFlag()
        self._handover = Handover()
        self._messages = os.pipe()
        os.set_blocking(self._messages[0], False)
        self._oom_kills = OomKills()
        self._stacks = StackCollector()
        self._templates = Templates(self, self.children, self.generations, self._stacks)
        self._watch = RequestWatch(self.children, lambda: self.cfg, self._stacks, self.log)
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

    def _listen(self) -> list[Listener]:
        """Make the listeners, or take those of systemd or of the arbiter that this one replaces."""
        inherited = systemd.take_listen_fds(os.environ, self.pid)
        self.systemd = bool(inherited)
        existing = adopt_listeners(self.predecessor.listen_fds, self.cfg)
        listeners = create_listeners(self.cfg, self.log, inherited=inherited, existing=existing, pause=self._pause)
        close_listeners([listener for listener in existing if listener not in listeners], unlink=False)
        return listeners

    def _pause(self, seconds: float) -> bool:
        return self._signals.wait_for(_STOP_SIGNALS, seconds)

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
        if self._control is not None:
            self._control.close()
        if self.pidfile is not None:
            self.pidfile.unlink()

    # -- wait ----------------------------------------------------------------------------------

    def _wait(self, wake_at: float | None) -> None:
        """Sleep until a signal, a message, or the moment that the last decision named."""
        poll = select.poll()
        poll.register(self._signals.fileno(), select.POLLIN)
        poll.register(self._messages[0], select.POLLIN)
        duties.register(self._duties, poll)
        wake_at = duties.earliest(self._duties, wake_at)
        # Rounded up: a wait that ends before its moment would decide the same again and again.
        poll.poll(None if wake_at is None else max(0, math.ceil((wake_at - time.monotonic()) * 1000)))
        now = time.monotonic()
        if wake_at is not None and now - wake_at > OVERSLEPT_S:
            self._awake_since = now

    # -- dispatch ------------------------------------------------------------------------------

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
        for message in messages.receive(self._messages[0]):
            if self._templates.read(message):
                continue
            handle = self.children.find(message.pid)
            if handle is None:
                continue  # Reaped already.
            if message.kind is messages.Kind.READY:
                handle.advance(WorkerEvent.SAID_READY, time.monotonic())
                generation = self.generations.find(handle.generation)
                if generation is not None:
                    generation.tried = True
                self.log.debug("Worker ready (pid: %s)", handle.pid)
            elif message.kind is messages.Kind.DUE:
                handle.due = message.text
            else:
                handle.failure = message.text

    def handle_chld(self) -> None:
        """SIGCHLD: collect every child that ended; several signals may have become one."""
        statuses = []
        while True:
            try:
                pid, status = waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            statuses.append((pid, exits.Exit.from_status(status)))
        # What a worker wrote before it ended is in the pipe by now, and says why.
        self._read_messages()
        for pid, ended in statuses:
            handle = self.children.remove(pid)
            if handle is None and (self._upgrade.bury(pid, ended) or self._templates.bury(pid, ended)):
                continue
            if handle is None:
                self._templates.keep_stray(pid, ended)
                # As PID 1 of a container we get orphans, whose exits mean nothing to us.
                self.log.debug("Reaped unknown child process (pid:%s, %s)", pid, ended)
            else:
                self.bury(handle, ended)

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
            self.send(handle, signal.SIGUSR1)
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

    # -- workers that ended --------------------------------------------------------------------

    def bury(self, handle: WorkerHandle, ended: exits.Exit) -> None:
        state, now = handle.state, time.monotonic()
        handle.advance(WorkerEvent.EXITED, now)
        stopping = self._stop is not None
        line = exits.describe(ended, handle.pid, state, stopping=stopping, oom=self._oom_kills.explain_one)
        stacks = self._stacks.bury(handle)
        if handle.channel is not None:
            handle.channel.close()
        if line is not None:
            self.log.log(line[0], "\n".join([line[1], stacks] if ended.signum in exits.FAULTS else [line[1]]).rstrip())
        if self._stop is None and (state in SERVING or handle.worker.aborted):
            self._answer_death(handle, ended, now)
        self.run_hook("child_exit", handle.worker)

    def _answer_death(self, handle: WorkerHandle, ended: exits.Exit, now: float) -> None:
        """Decide what an exit that nobody asked for means for the server."""
        never_ready = handle.ready_at is None
        generation = self.generations.find(handle.generation)
        if generation is None:
            return
        if never_ready and self.generations.is_on_trial(generation):
            self._reload.abandon(handle.failure or f"worker {handle.pid} {ended}")
        elif (
            never_ready and not self.has_served and ended.code in _BOOT_FAILURES and self.cfg.on_boot_failure == "exit"
        ):
            self._begin_stop(Phase.DRAINING, _BOOT_FAILURES[ended.code], ended.code or ExitCode.FAILED)
        elif never_ready or not ended.is_clean:
            self._back_off(None if handle.ready_at is None else now - handle.ready_at)

    def _is_first_boot_final(self) -> bool:
        return not self.has_served and self.cfg.on_boot_failure == "exit"

    def _back_off(self, ready_for: float | None) -> None:
        now = time.monotonic()
        self.generations.backoff = policy.backoff_after_death(
            self.generations.backoff, now, ready_for=ready_for, delay_max=self.cfg.respawn_delay_max
        )
        if self.generations.backoff.not_before > now:
            self.log.warning(
                "%d workers in a row died at once; the next is started in %.1f s",
                self.generations.backoff.deaths,
                self.generations.backoff.not_before - now,
            )

    # -- reconcile and act ---------------------------------------------------------------------

    def _reconcile(self) -> Snapshot:
        """Take the picture that the next decision is made from."""
        now, current, fallback = time.monotonic(), self.generations.current, self.generations.fallback
        return Snapshot(
            now=now,
            phase=self.phase,
            target=self.num_workers,
            generation=current.number,
            fallback=fallback.number if fallback else None,
            proven=current.proven,
            workers=self.children.views(self._awake_since),
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
        return time.monotonic() if decision.actions else decision.wake_at

    def _perform(self, action: policy.Action) -> None:
        if isinstance(action, Commit):
            self._commit()
        elif isinstance(action, Spawn):
            generation = self.generations.find(action.generation)
            if self._stop is None and generation is not None:
                self._spawn(generation)
        elif isinstance(action, StartTemplate):
            generation = self.generations.find(action.generation)
            if self._stop is None and generation is not None:
                self._templates.start(generation)
        elif isinstance(action, AbortTemplate):
            self._templates.abort(action.generation)
        else:
            handle = self.children.find(action.pid)
            assert handle is not None, "policy decides about workers of its snapshot"
            self._tell(handle, action)

    def _tell(self, handle: WorkerHandle, action: Drain | Quit | Abort | Kill) -> None:
        now = time.monotonic()
        if isinstance(action, Drain):
            self._templates.tell_heir(handle)
            handle.advance(WorkerEvent.TOLD_TO_DRAIN, now)
            handle.slot.state = SlotState.DRAINING  # Before the signal: nobody may hand it a connection from now on.
            self.send(handle, signal.SIGTERM)
        elif isinstance(action, Quit):
            handle.advance(WorkerEvent.TOLD_TO_QUIT, now)
            self.send(handle, signal.SIGQUIT)
        elif isinstance(action, Abort):
            self._announce_abort(handle)
            self._watch.report_stuck(handle, action.silent_s, now)
            handle.worker.aborted = True
            handle.advance(WorkerEvent.HEARTBEAT_MISSED, now)
            self.send(handle, signal.SIGABRT)
        else:
            handle.advance(WorkerEvent.KILL_SENT, now)
            self.send(handle, signal.SIGKILL)

    def _announce_abort(self, handle: WorkerHandle) -> None:
        if handle.state is WorkerState.BOOTING and self.cfg.boot_timeout:
            late = f"not ready within {self.cfg.boot_timeout:g} s (boot_timeout)"
            self.log.critical("WORKER TIMEOUT (pid:%s): %s", handle.pid, late)
            handle.failure = f"worker {handle.pid} was {late}"
        else:
            self.log.critical("WORKER TIMEOUT (pid:%s)", handle.pid)

    def send(self, handle: WorkerHandle, signum: signal.Signals) -> None:
        if not handle.is_born:
            handle.owed.append(signum)
            return
        # Until it is reaped, the pid stays its own: at worst it is a zombie, which takes any signal.
        os.kill(handle.pid, signum)

    def _spawn(self, generation: Generation) -> None:
        """Fork one worker."""
        self.worker_age += 1
        slot = self.children.take_slot()
        try:
            handle = self._fork(generation, slot)
        except Exception as error:  # noqa: BLE001 - pre_fork is the user's code
            self.children.free_slot(slot)
            self.fail_to_spawn(generation, error)
            return
        if not self.children.slots_free:
            self.log.warning(
                "All %s slots for workers are taken: no more are started until some have gone", len(self.children) + 1
            )
        self.children.add(handle)

    def _fork(self, generation: Generation, slot: Slot) -> WorkerHandle:
        """Fork a worker, or order it from the generation's template, which then says its pid."""
        age, forked_at, settings = self.worker_age, time.monotonic(), generation.settings
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as finally_:
            ours, theirs = make_channel() if settings.refork else (None, None)
            for end, stack in ((ours, undo), (theirs, finally_)):
                if end is not None:
                    stack.callback(end.close)
            stacks = StackFile()
            worker = self.make_worker(generation, age, slot.index, stacks, theirs)
            slot.state = SlotState.BOOTING
            if generation.template is None:
                settings.pre_fork(self, worker)
                worker.pid = slot.pid = pid = fork_worker(self, worker, lambda: self.leave_in_child(ours))
            else:
                passed = [stacks.fileno(), *([theirs.fileno()] if theirs is not None else [])]
                generation.template.order_fork(age, slot.index, passed)
                pid = -age
            undo.pop_all()
        handle = WorkerHandle(pid, worker, slot, generation.number, forked_at, since=forked_at, stacks=stacks)
        handle.lifetime_s, handle.channel = draw_lifetime(settings), ours
        return handle

    def make_worker(
        self, generation: Generation, age: int, slot: int, stacks: StackFile, channel: socket.socket | None
    ) -> Worker:
        """Make the object of a worker that is about to be forked, here or in a template."""
        settings = generation.settings
        worker = generation.worker_class(
            age, self.pid, generation.listeners, generation.app, settings.timeout / 2, settings, self.log
        )
        worker.slot, worker.stacks, worker.channel = self.children.slot(slot), stacks, channel
        worker.stop_flag, worker.handover = self._stop_flag, self._handover.fds
        worker.lifeline, worker.ready_pipe = self.lifeline_end, self.messages_end
        self._made_from = generation
        return worker

    def fail_to_spawn(self, generation: Generation, error: Exception) -> None:
        """A fork was refused (EAGAIN, ENOMEM) or pre_fork raised; before the server ever served, that ends it."""
        if self._stop is not None:
            return
        if not self.has_served and not isinstance(error, OSError):
            raise error
        self.log.error("A worker could not be started: %s", error, exc_info=error)
        if self.generations.is_on_trial(generation):
            self._reload.abandon(f"a worker could not be started: {error}")
        else:
            self._back_off(None)

    def leave_in_child(self, *channels: socket.socket | None) -> None:
        self._signals.close_in_child()
        os.close(self._lifeline[1])
        os.close(self._messages[0])
        for duty in self._duties:
            duty.leave_in_child()
        for handle in self.children:
            handle.stacks.close()
        held = (holder.channel for holder in (*self.children, *self._templates))
        for channel in (*channels, *held):
            if channel is not None:
                channel.close()

    # -- templates ----------------------------------------------------------------------------

    @property
    def lifeline_end(self) -> int:
        """What every process below watches: readable as soon as the arbiter is dead."""
        return self._lifeline[0]

    @property
    def messages_end(self) -> int:
        """Where every process below writes what the arbiter has to know."""
        return self._messages[1]

    def become_template(self, worker: Worker) -> TemplateProcess | None:
        """In a worker that has drained: go on as a template, if the arbiter has asked for it."""
        return TemplateProcess.promote(self, self._made_from, worker)

    def answer_template_death(self, generation: Generation, template: Template, ended: exits.Exit) -> None:
        """Decide what it means for the server that no more workers can be forked from this template."""
        if self._stop is not None:
            return
        reason = template.failure or f"the process that holds the application (pid {template.pid}) {ended}"
        if self.generations.is_on_trial(generation):
            self._reload.abandon(reason)
        elif template.failure and self._is_first_boot_final():
            self._begin_stop(Phase.DRAINING, _BOOT_FAILURES[ExitCode.APP_LOAD_ERROR], ExitCode.FAILED)
        else:
            self.log.error("New workers cannot be forked: %s", reason)
            self._back_off(None)

    # -- reload --------------------------------------------------------------------------------

    def reload(self) -> None:
        """Try the configuration as it is now; its workers take over when they are ready."""
        self._reload.begin()

    def _commit(self) -> None:
        if not self.has_served:
            self.has_served = True
            self.predecessor.tell_ready()
        if self.generations.commit():
            self.log.debug("Reload done: the workers of before are drained")

    # -- upgrade -------------------------------------------------------------------------------

    def upgrade(self) -> None:
        """Start a new arbiter, and retire when its workers are ready; what came of it is `last_upgrade`.

        Raises UpgradeRefused when there is no new arbiter to be had now.
        """
        if self.pid == 1:
            raise UpgradeRefused("this arbiter is process 1: the container would end with it. Replace the container")
        self._upgrade.start(deadline=time.monotonic() + self.cfg.upgrade_timeout)

    # -- stop ----------------------------------------------------------------------------------

    def _begin_stop(self, phase: Phase, reason: str | None = None, exit_code: int = ExitCode.OK) -> None:
        """Start to end the server; a second time, hurry."""
        now = time.monotonic()
        if self._stop is not None:
            if self._stop.hurry(now):
                self.log.info("Quick shutdown requested")
            return
        self._stop = Stop(phase, now + self.cfg.graceful_timeout, reason, int(exit_code))
        self._stop_flag.set()
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
