"""Where asyncio tasks and greenlets wait: what the stacks of threads cannot show.

Owns       the walk from a task down to the thing that it awaits, and the search for greenlets.
Never      changes or wakes one.
Invariant  whatever is awaited, the walk ends: at something that is no coroutine, or at its bound.
"""

from __future__ import annotations

import gc
import itertools
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Final

TASKS_MAX: Final = 200  # a dump is read by a person
DEPTH_MAX: Final = 100
#: How a coroutine, and a generator used as one, says where it stands and what it awaits. The step of an asynchronous
#: generator does not say: there the walk ends.
_FRAMES: Final = ("cr_frame", "gi_frame")
_AWAITS: Final = ("cr_await", "gi_yieldfrom")


def task_stacks() -> Iterator[str]:
    """Give the stack of each task of the loop that runs in this thread; nothing if there is none."""
    # Importing it takes a fifth of a start and 6 MiB, in processes most of which never use it.
    asyncio = sys.modules.get("asyncio")
    if not hasattr(asyncio, "current_task"):
        return  # Nobody has imported it, or the application is in the middle of that.
    assert asyncio is not None
    try:
        tasks = asyncio.all_tasks()
    except RuntimeError:
        return
    for task in itertools.islice(sorted(tasks, key=lambda task: task.get_name()), TASKS_MAX):
        frames = list(_frames(task.get_coro()))
        # A task that runs stands in its thread's stack already.
        if frames and task is not asyncio.current_task():
            yield f"Task {task.get_name()} (most recent call last):"
            entries = [entry for frame in frames for entry in traceback.extract_stack(frame, limit=1)]
            yield "".join(traceback.format_list(entries)).rstrip("\n")
    if len(tasks) > TASKS_MAX:
        yield f"({len(tasks) - TASKS_MAX} more tasks)"


def greenlet_stacks() -> Iterator[str]:
    """Give the stack of each greenlet that waits; nothing if nobody uses them."""
    module = sys.modules.get("greenlet")
    if module is None:
        return
    # Nobody keeps a list of them. The collector does, of everything: looking through it takes a tenth of a second for a
    # million objects, once for each time that somebody asks.
    found = (thing for thing in gc.get_objects() if issubclass(type(thing), module.greenlet))
    waiting = [greenlet for greenlet in found if greenlet.gr_frame is not None]
    for greenlet in waiting[:TASKS_MAX]:
        yield f"Greenlet {type(greenlet).__qualname__} at {id(greenlet):#x} (most recent call last):"
        yield "".join(traceback.format_stack(greenlet.gr_frame)).rstrip("\n")
    if len(waiting) > TASKS_MAX:
        yield f"({len(waiting) - TASKS_MAX} more greenlets)"


def _frames(awaited: object) -> Iterator[FrameType]:
    for _ in range(DEPTH_MAX):
        frame = _first(awaited, _FRAMES)
        if not isinstance(frame, FrameType):
            return
        yield frame
        awaited = _first(awaited, _AWAITS)


def _first(thing: object, names: tuple[str, ...]) -> object:
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), None)
