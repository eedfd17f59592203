"""Where tasks wait."""

from __future__ import annotations

import asyncio

import pytest

from bicorn.ipc import tasks
from bicorn.ipc.tasks import task_stacks


async def outer(event: asyncio.Event) -> None:
    await middle(event)


async def middle(event: asyncio.Event) -> None:
    await event.wait()


async def look(count: int) -> list[str]:
    event = asyncio.Event()
    waiting = [asyncio.create_task(outer(event), name=f"waits-{number}") for number in range(count)]
    await asyncio.wait(waiting, timeout=0)
    stacks = list(task_stacks())
    for task in waiting:
        task.cancel()
    return stacks


def test_a_task_is_followed_to_what_it_awaits() -> None:
    head, stack = asyncio.run(look(1))
    assert head == "Task waits-0 (most recent call last):"
    functions = [line.rpartition(" in ")[2] for line in stack.splitlines() if line.startswith("  File")]
    assert functions == ["outer", "middle", "wait"]


def test_there_is_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "TASKS_MAX", 3)
    stacks = asyncio.run(look(7))
    assert stacks[-1].endswith("more tasks)")
    assert len(stacks) <= 7


def test_without_a_loop_there_are_none() -> None:
    assert list(task_stacks()) == []
