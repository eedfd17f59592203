"""The server as hooks, collaborators and the control interface see it.

Owns       the names that Gunicorn gave to what hooks look at, and the state behind them that is nobody else's.
Never      forks, signals or waits: what is done, the arbiter does (arbiter.py), which is one of these.
Invariant  a name that Gunicorn has as well means here what it means there.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, ClassVar

from bicorn import __version__
from bicorn._core import Scoreboard
from bicorn.arbiter.children import SLOTS_MAX, Children
from bicorn.arbiter.environment import ProcessEnvironment, set_title
from bicorn.arbiter.generation import Generation
from bicorn.arbiter.generations import Generations, attempt
from bicorn.arbiter.pidfile import Pidfile
from bicorn.arbiter.policy import Phase
from bicorn.arbiter.promotion import Predecessor
from bicorn.arbiter.scale import first_target
from bicorn.errors import ExitCode
from bicorn.observe.log import load_logger_class
from bicorn.workers.registry import load_worker_class

if TYPE_CHECKING:
    from bicorn.app.application import Application
    from bicorn.arbiter.outcome import Outcome
    from bicorn.arbiter.stop import Stop
    from bicorn.arbiter.upgrade import Upgrade
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.observe.log import Logger
    from bicorn.workers.base import Worker


class Server:
    """What the parent process is and has; hooks get it as `server`."""

    WORKER_BOOT_ERROR: ClassVar[int] = ExitCode.WORKER_BOOT_ERROR
    APP_LOAD_ERROR: ClassVar[int] = ExitCode.APP_LOAD_ERROR

    _upgrade: Upgrade

    def __init__(self, app: Application) -> None:
        settings = app.cfg
        os.environ["SERVER_SOFTWARE"] = f"bicorn/{__version__}"
        self.log: Logger = load_logger_class(settings)(settings)
        self.pid = os.getpid()
        self.predecessor = Predecessor(os.environ, self._promote)
        self.master_name = "Master.2" if self.master_pid else "Master"
        self.worker_age = 0
        self.systemd = False  # whether its manager made the listeners
        self.pidfile: Pidfile | None = None
        self.started_at = time.monotonic()
        self.environment = ProcessEnvironment(os.environ)
        self.environment.enter(app)
        first = Generation(1, settings, app, load_worker_class(settings), [], first_target(settings))
        self.generations = Generations(first, self.environment, self.log)
        self.children = Children(Scoreboard(self.workers_max))
        self.has_served = False  # all workers of some configuration were ready once
        self._stop: Stop | None = None

    # -- the configuration in force ------------------------------------------------------------

    @property
    def cfg(self) -> Settings:
        """The settings in force."""
        return self.generations.current.settings

    @property
    def app(self) -> Application:
        """The application object that new workers get."""
        return self.generations.current.app

    @property
    def worker_class(self) -> type[Worker]:
        """The class of new workers."""
        return self.generations.current.worker_class

    @property
    def address(self) -> list[Any]:  # Any: (host, port), a path, or a descriptor
        """The configured addresses."""
        return list(self.cfg.address)

    @property
    def timeout(self) -> float:
        """How long a worker may be silent, in seconds."""
        return self.cfg.timeout

    @property
    def proc_name(self) -> str:
        """The name in process titles."""
        name = self.cfg.proc_name or self.cfg.default_proc_name
        return f"{name}.2" if self.master_pid else name

    @property
    def generation(self) -> int:
        """The number of the configuration in force: 1 at start, one more with each reload."""
        return self.generations.current.number

    # -- listeners and workers -----------------------------------------------------------------

    @property
    def LISTENERS(self) -> list[Listener]:  # noqa: N802 - Gunicorn's name
        """The listeners that new workers get."""
        return self.generations.current.listeners

    @property
    def WORKERS(self) -> dict[int, Worker]:  # noqa: N802 - Gunicorn's name
        """The living workers by pid."""
        return {handle.pid: handle.worker for handle in self.children if handle.is_born}

    @property
    def num_workers(self) -> int:
        """How many workers there should be."""
        return self.generations.current.target

    @num_workers.setter
    def num_workers(self, value: int) -> None:
        current = self.generations.current
        old, current.target = current.target, value
        self.run_hook("nworkers_changed", value, old)

    def resize(self, workers: int) -> None:
        """Ask for that many workers."""
        self.num_workers = workers

    @property
    def workers_max(self) -> int:
        """The most workers that may be asked for: each needs a slot, as do its successor and what drains meanwhile."""
        return max(SLOTS_MAX, 3 * max(self.cfg.workers, self.cfg.workers_max))

    # -- where it stands -----------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """What the server as a whole is doing."""
        return self._stop.phase if self._stop else Phase.RUNNING

    def settled_generation(self) -> Generation | None:
        """Give the generation in force, while nothing is being started, reloaded or stopped."""
        return self.generations.settled if self.phase is Phase.RUNNING else None

    @property
    def last_reload(self) -> Outcome | None:
        """How the last reload went, or goes."""
        return self.generations.last

    @property
    def last_upgrade(self) -> Outcome | None:
        """How the last binary upgrade went, or goes."""
        return self._upgrade.last

    @property
    def master_pid(self) -> int:
        """The arbiter that this one is going to replace, 0 if there is none."""
        return self.predecessor.pid

    @property
    def reexec_pid(self) -> int:
        """The arbiter that is going to replace this one, 0 if there is none."""
        return self._upgrade.pid

    def _promote(self) -> None:
        """The arbiter that this one replaces has gone."""
        self.log.info("Master has been promoted.")
        self.master_name = "Master"
        if self.pidfile is not None and self.cfg.pidfile is not None:
            attempt(self.log, "Cannot rename the pid file", self.pidfile.rename, self.cfg.pidfile)
        self.show_title()

    # -- what others see of it -----------------------------------------------------------------

    def run_hook(self, name: str, *args: object) -> None:
        """Call a hook that must not end a running server: what it raises is logged."""
        try:
            getattr(self.cfg, name)(self, *args)
        except Exception:
            self.log.exception("Exception in the %s hook", name)

    def show_title(self) -> None:
        """Be in ps and top under the configured name."""
        set_title("master", self.proc_name)

    def claim_pidfile(self) -> None:
        """Have the pid file where the configuration wants it, and nowhere else."""
        wanted = self.cfg.pidfile
        if wanted is not None and self.master_pid:
            wanted += ".2"  # The file itself is the old arbiter's as long as it lives.
        before = self.pidfile
        if before is not None and before.fname == wanted:
            return
        pidfile = None
        if wanted is not None:
            pidfile = Pidfile(wanted)
            pidfile.create(self.pid)
        self.pidfile = pidfile
        # Last: whoever wants to know the pid finds one file or the other. (It may be the same one, written otherwise.)
        if before is not None and (wanted is None or os.path.realpath(before.fname) != os.path.realpath(wanted)):
            before.unlink()
