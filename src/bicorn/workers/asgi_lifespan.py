"""The lifespan of an ASGI application: its start and its end, as events (ASGI, Lifespan 2.0).

Owns       the one task in which the application hears of them, and the state that requests get copies of.
Never      decides what a failure means for the worker: it raises, and the worker ends.
Invariant  the application is told of the shutdown only if it said that its startup was complete.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

from bicorn.errors import BicornError, ExitCode

if TYPE_CHECKING:
    from bicorn.observe.log import Logger

Message = MutableMapping[str, Any]  # Any: whatever the ASGI message of that type holds
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

SPEC_VERSION: Final = "2.0"
#: How long the application's task may take to end after it was cancelled, in seconds.
CANCEL_S: Final = 1.0


class LifespanFailed(BicornError):
    """The application could not start: says why, with its own words or its traceback."""

    exit_code = ExitCode.WORKER_BOOT_ERROR


class _Phase(enum.Enum):
    STARTING = "startup"
    STARTED = "serving"
    STOPPING = "shutdown"


class Lifespan:
    """Runs one application's lifespan."""

    def __init__(self, app: AsgiApp, mode: str, state: dict[str, Any], log: Logger) -> None:
        self._app = app
        self._mode = mode
        self._state = state
        self._log = log
        self._phase = _Phase.STARTING
        self._events: asyncio.Queue[Message] = asyncio.Queue()  # bound: two events in the life of a worker
        self._answered = asyncio.Event()
        self._failure: str | None = None
        self._is_supported = False
        self._task: asyncio.Task[None] | None = None

    async def startup(self, timeout: float) -> None:
        """Let the application start; raise LifespanFailed if it cannot, or not within `timeout` seconds (0: no limit).

        An application that raises instead of answering has no lifespan, as far as mode "auto" is concerned. Cancelled,
        this ends the application, unless it has just started: then it is to be shut down.
        """
        if self._mode == "off":
            return
        self._task = asyncio.create_task(self._run(), name="bicorn-lifespan")
        try:
            await self._answer("startup", timeout)
            if self._failure is not None:
                raise LifespanFailed(f"The application failed to start (lifespan): {self._failure}")
        except BaseException:  # Also where the worker is told to stop meanwhile.
            if not self._is_supported:
                await self._end(self._task)
            raise
        self._phase = _Phase.STARTED

    async def shutdown(self, timeout: float) -> None:
        """Let the application end, for at most `timeout` seconds (0: no limit); what goes wrong is logged."""
        if self._task is None or not self._is_supported:
            return
        self._phase = _Phase.STOPPING
        try:
            await self._answer("shutdown", timeout)
        except LifespanFailed as error:
            self._failure = str(error)
        if self._failure is not None:
            self._log.error("The application failed to shut down (lifespan): %s", self._failure)
        await self._end(self._task)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """End the application's task, which may wait for an event that does not come, before the loop is closed."""
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_S)

    async def _answer(self, event: str, timeout: float) -> None:
        assert self._task is not None
        self._answered.clear()
        self._events.put_nowait({"type": f"lifespan.{event}"})
        answered = asyncio.create_task(self._answered.wait())
        try:
            done, _ = await asyncio.wait(
                {answered, self._task}, timeout=timeout or None, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            answered.cancel()
        if not done:
            raise LifespanFailed(
                f"The application did not answer lifespan.{event} within {timeout:g} seconds "
                f"(lifespan_{event}_timeout)."
            )

    async def _run(self) -> None:
        scope: Message = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": SPEC_VERSION},
            "state": self._state,
        }
        try:
            await self._app(scope, self._events.get, self._take)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - it says that there is no lifespan, or why it failed
            self._raised(error)

    def _raised(self, error: BaseException) -> None:
        if self._failure is not None:
            # It said so already; frameworks raise afterwards, and the traceback tells more than the message.
            self._log.error("Exception in the application's lifespan", exc_info=error)
        elif self._phase is _Phase.STARTING and self._mode == "auto" and not self._answered.is_set():
            self._log.info("The application has no lifespan: %s", type(error).__name__)
            self._log.debug("It raised", exc_info=error)
        else:
            self._log.error("Exception in the application's lifespan", exc_info=error)
            self._failure = f"{type(error).__name__}: {error}"

    async def _take(self, message: Message) -> None:
        kind, _, outcome = str(message.get("type", "")).removeprefix("lifespan.").partition(".")
        if kind != self._phase.value or outcome not in ("complete", "failed") or self._answered.is_set():
            raise RuntimeError(f"unexpected ASGI message {message.get('type')!r} during lifespan {self._phase.value}")
        if outcome == "failed":
            self._failure = str(message.get("message", "")) or "no message was given"
        else:
            self._is_supported = True
        self._answered.set()
