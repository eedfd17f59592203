"""An ASGI application with a route for each thing that its server may do right or wrong."""

from __future__ import annotations

import asyncio
import contextvars
import copy
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]

#: What happened, for the requests that ask.
events: list[str] = []
of_request: contextvars.ContextVar[str] = contextvars.ContextVar("of_request", default="unset")
THIS_FILE = os.path.abspath(__file__)


async def app(scope: Message, receive: Receive, send: Send) -> None:
    """Answer by the function that the path names."""
    if scope["type"] == "lifespan":
        raise NotImplementedError("no lifespan here")
    await ROUTES[scope["path"].strip("/").replace("-", "_") or "hello"](scope, receive, send)


def start(status: int = 200, *headers: tuple[bytes, bytes], **more: Any) -> Message:
    """`http.response.start`."""
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def body(data: bytes = b"", *, more: bool = False) -> Message:
    """`http.response.body`."""
    return {"type": "http.response.body", "body": data, "more_body": more}


async def answer(send: Send, value: object) -> None:
    """Send a value as JSON."""
    await send(start(200, (b"content-type", b"application/json")))
    await send(body(json.dumps(value, default=repr).encode()))


async def read(receive: Receive) -> bytes:
    """The whole body of the request."""
    data = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client left")
        data += bytes(message.get("body", b""))
        if not message.get("more_body"):
            return data


async def hello(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"hello"))


async def scope(scope: Message, receive: Receive, send: Send) -> None:
    """Show the scope; bytes as lists of one Latin-1 string."""

    def shown(value: Any) -> Any:
        if isinstance(value, bytes):
            return [value.decode("latin-1")]
        if isinstance(value, (list, tuple)):
            return [shown(item) for item in value]
        return {key: shown(item) for key, item in value.items()} if isinstance(value, dict) else value

    await answer(send, shown(dict(scope)))


async def echo(scope: Message, receive: Receive, send: Send) -> None:
    data = await read(receive)
    await send(start())
    await send(body(data))


async def mirror(scope: Message, receive: Receive, send: Send) -> None:
    """Send each piece back when it comes."""
    await send(start())
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await send(body(message.get("body", b""), more=more))


async def ignore(scope: Message, receive: Receive, send: Send) -> None:
    """Answer without having read the body."""
    await send(start(413))
    await send(body(b"no"))


async def stream(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    for piece in (b"one", b"", b"two", b"three"):
        await send(body(piece, more=True))
    await send(body())


async def status(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(int(scope["query_string"]), (b"x-a", b"b")))
    await send(body(b"a body" if scope["query_string"] not in (b"204", b"304") else b""))


async def length(scope: Message, receive: Receive, send: Send) -> None:
    """Promise a Content-Length and give another: ?promised,given."""
    promised, given = scope["query_string"].split(b",")
    await send(start(200, (b"content-length", promised)))
    await send(body(b"x" * int(given)))


async def bad_header(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(200, (b"x-a", b"b\r\nInjected: c")))
    await send(body(b"never"))


async def raise_early(scope: Message, receive: Receive, send: Send) -> None:
    raise ValueError("before anything")


async def raise_started(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    raise ValueError("after the start")


async def raise_late(scope: Message, receive: Receive, send: Send) -> None:
    await send(start())
    await send(body(b"part", more=True))
    raise ValueError("in the middle")


async def raise_answered(scope: Message, receive: Receive, send: Send) -> None:
    """Answer, and raise then, as the handlers of frameworks do for what they have answered 500."""
    await send(start(500))
    await send(body(b"sorry"))
    raise ValueError("at the end")


async def nothing(scope: Message, receive: Receive, send: Send) -> None:
    """Return without an answer."""


async def out_of_order(scope: Message, receive: Receive, send: Send) -> None:
    """Break the order of messages in every way; show what was raised."""
    raised = []

    async def attempt(message: Any) -> None:
        try:
            await send(message)
        except Exception as error:  # noqa: BLE001 - what it is, is the question
            raised.append(f"{type(error).__name__}: {error}")

    await attempt(body(b"too early"))
    await attempt({"type": "http.response.unheard"})
    await attempt({})
    await attempt("text")
    await attempt(start(99))
    await attempt({"type": "http.response.start", "status": 200, "headers": [("a", "b")]})
    await send(start())
    await attempt(start())
    await attempt({"type": "http.response.body", "body": "text"})
    await send({"type": "http.response.body", "body": json.dumps(raised).encode()})
    await attempt(body(b"late"))
    events.append(raised[-1])


async def show_events(scope: Message, receive: Receive, send: Send) -> None:
    await answer(send, events)


async def after_end(scope: Message, receive: Receive, send: Send) -> None:
    """What receive() gives when the response is complete."""
    await send(start())
    await send(body(b"done"))
    events.append((await receive())["type"])


async def wait_for_disconnect(scope: Message, receive: Receive, send: Send) -> None:
    await receive()
    events.append("waiting")
    events.append((await receive())["type"])
    try:
        await send(start())
        await send(body(b"anybody?"))
    except OSError as error:
        events.append(f"OSError: {error}")


async def stubborn(scope: Message, receive: Receive, send: Send) -> None:
    """Never look whether anybody is there."""
    events.append("stubborn began")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        events.append("stubborn cancelled")
        raise


async def endless(scope: Message, receive: Receive, send: Send) -> None:
    """Send for ever, 64 KiB at a time."""
    await send(start())
    block = b"x" * 65536
    try:
        while True:
            await send(body(block, more=True))
    except OSError:
        events.append("endless ended")


async def background(scope: Message, receive: Receive, send: Send) -> None:
    """Go on after the response, until /release."""
    await send(start())
    await send(body(b"answered"))
    await gate().wait()
    events.append("background ended")


async def release(scope: Message, receive: Receive, send: Send) -> None:
    gate().set()
    await send(start())
    await send(body())


_gates: list[asyncio.Event] = []


def gate() -> asyncio.Event:
    """An event of the running loop."""
    if not _gates:
        _gates.append(asyncio.Event())
    return _gates[0]


async def held(scope: Message, receive: Receive, send: Send) -> None:
    """Answer when /release was called."""
    await gate().wait()
    await hello(scope, receive, send)


async def block(scope: Message, receive: Receive, send: Send) -> None:
    """Block the loop, as no coroutine should."""
    time.sleep(60)  # noqa: ASYNC251 - on purpose


async def tasks(scope: Message, receive: Receive, send: Send) -> None:
    """Check that the task is right, before and after waiting."""
    first = asyncio.current_task()
    assert isinstance(first, asyncio.Task)
    assert first in asyncio.all_tasks()
    assert of_request.get() == "unset", of_request.get()
    of_request.set("mine")
    if scope["query_string"] != b"inline":
        await asyncio.sleep(0)
        assert asyncio.current_task() is first
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is first
        assert await asyncio.create_task(child()) == "mine"
    assert of_request.get() == "mine"
    if not hasattr(first, "requests_seen") and scope["query_string"] == b"marked":
        first.requests_seen = 1  # type: ignore[attr-defined]  # what some libraries keep there
    await answer(send, [id(first), first.get_name()])


async def child() -> str:
    return of_request.get()


async def timeouts(scope: Message, receive: Receive, send: Send) -> None:
    """Time out, cancel and group tasks, by asyncio and by anyio, with and without having waited before."""
    import anyio

    passed = []
    for first_waits in (False, True):
        if first_waits:
            await asyncio.sleep(0)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.01)
        except asyncio.TimeoutError:
            passed.append("wait_for")
        if sys.version_info >= (3, 11):
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.Event().wait()
            except TimeoutError:
                passed.append("timeout")
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(fail())
                    await asyncio.Event().wait()
            except BaseExceptionGroup:  # noqa: F821 - guarded by the version above
                passed.append("TaskGroup")
        with anyio.move_on_after(0.01) as moved:
            await anyio.sleep_forever()
        passed.append(f"anyio moved on: {moved.cancelled_caught}")
        with anyio.CancelScope() as cancelled:
            cancelled.cancel()
            await anyio.sleep(10)
        passed.append(f"anyio cancelled: {cancelled.cancelled_caught}")
        passed.append(await anyio.to_thread.run_sync(lambda: "thread"))
    await answer(send, passed)


async def fail() -> None:
    raise ValueError("a child fails")


async def cancel_itself(scope: Message, receive: Receive, send: Send) -> None:
    """Cancel the own task before it has ever waited: the cancellation comes where it waits."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel("by itself")
    events.append("still running")
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError as error:
        events.append(f"cancelled {error}")
        if sys.version_info >= (3, 11):
            task.uncancel()
    await hello(scope, receive, send)


async def leave(scope: Message, receive: Receive, send: Send) -> None:
    sys.exit(3)


async def other_exit(scope: Message, receive: Receive, send: Send) -> None:
    raise GeneratorExit("neither an Exception nor an end of the process")


async def until_left(scope: Message, receive: Receive, send: Send) -> None:
    """Wait until the client has left, and return."""
    while (await receive())["type"] != "http.disconnect":
        events.append("waiting until it leaves")


async def until_raised(scope: Message, receive: Receive, send: Send) -> None:
    """Send until the client has left, and make an error of ours out of it, as frameworks do."""
    await send(start())
    try:
        while True:
            await send(body(b"x" * 65536, more=True))
    except OSError as error:
        raise LookupError("what a framework makes of it") from error


async def hints(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]})
    await send(start())
    await send(body(b"hinted"))


async def trailers(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(200, (b"trailer", b"x-sum"), trailers=True))
    await send(body(b"abc", more=True))
    await send(body(b"def"))
    await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"42")], "more_trailers": False})


async def pathsend(scope: Message, receive: Receive, send: Send) -> None:
    await send(start(200, (b"content-type", b"text/plain")))
    await send({"type": "http.response.pathsend", "path": scope["query_string"].decode() or THIS_FILE})


async def pathsend_fails(scope: Message, receive: Receive, send: Send) -> None:
    """Two files that are not sent, one unreadable and one not awaited, and an answer in their place."""
    await send(start(404))
    try:
        await send({"type": "http.response.pathsend", "path": os.path.dirname(THIS_FILE)})
    except IsADirectoryError as error:
        send({"type": "http.response.pathsend", "path": THIS_FILE})  # type: ignore[unused-coroutine]  # on purpose
        await send(body(type(error).__name__.encode()))


async def zerocopysend(scope: Message, receive: Receive, send: Send) -> None:
    """Three pieces: bytes, a part of a file, bytes."""
    with open(THIS_FILE, "rb") as file:  # noqa: ASYNC230 - a descriptor is what is sent
        await send(start())
        await send(body(b"<", more=True))
        await send(
            {"type": "http.response.zerocopysend", "file": file.fileno(), "offset": 3, "count": 10, "more_body": True}
        )
        await send(body(b">"))


async def buffers(scope: Message, receive: Receive, send: Send) -> None:
    """Bodies that are no bytes."""
    await send(start())
    await send({"type": "http.response.body", "body": bytearray(b"array,"), "more_body": True})
    await send({"type": "http.response.body", "body": memoryview(b"view"), "more_body": False})


async def as_coroutines(scope: Message, receive: Receive, send: Send) -> None:
    """What `receive()` and `send()` give is passed to functions that take nothing but coroutines, also by a thread."""
    import asgiref.sync

    loop = asyncio.get_running_loop()
    assert asgiref.sync.iscoroutinefunction(receive)
    assert asgiref.sync.iscoroutinefunction(send)
    first = await asyncio.create_task(receive())
    assert first == {"type": "http.request", "body": b"", "more_body": False}, first
    await asyncio.create_task(send(start()))

    def stream() -> None:
        for _ in range(64):
            asyncio.run_coroutine_threadsafe(send(body(b"x" * 65536, more=True)), loop).result()
        asyncio.run_coroutine_threadsafe(send(body()), loop).result()
        message = asyncio.run_coroutine_threadsafe(receive(), loop).result()
        events.append(f"in a thread: {message['type']}")

    await asyncio.to_thread(stream)


async def impatient(scope: Message, receive: Receive, send: Send) -> None:
    """Begin to wait for the body and give it up, again and again; send back each part of it that comes."""

    async def next_message() -> Message:
        return await receive()

    await send(start())
    more = True
    while more:
        task = asyncio.create_task(next_message())
        for _ in range(2):
            await asyncio.sleep(0)
        task.cancel()
        try:
            message = await task
        except asyncio.CancelledError:
            continue
        more = message["more_body"]
        await send(body(message["body"], more=more))


async def slow_reader(scope: Message, receive: Receive, send: Send) -> None:
    """Read nothing until /release, then everything; show how much."""
    await gate().wait()
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, size)


async def memory(scope: Message, receive: Receive, send: Send) -> None:
    """The resident set of this worker, in bytes."""
    with open("/proc/self/statm") as file:  # noqa: ASYNC230 - memory, not a disk
        await answer(send, int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))


async def deadline(scope: Message, receive: Receive, send: Send) -> None:
    """What the deadline says: here, of a copy, and in another thread."""
    own, copied = scope["bicorn.deadline"], copy.deepcopy(scope["bicorn.deadline"])
    own.extend(5)
    await answer(send, [own, own.at, copied.at, await asyncio.to_thread(own.remaining)])


async def shared(scope: Message, receive: Receive, send: Send) -> None:
    """Write into whatever a careless application writes into."""
    dicts = [scope, scope["state"], scope["extensions"], scope["asgi"]]
    before = [len(scope["headers"]), *(values.get("mark") for values in dicts)]
    scope["headers"].append((b"x-added", b"1"))
    for values in dicts:
        values["mark"] = 1
    await answer(send, before)


ROUTES: dict[str, Callable[[Message, Receive, Send], Awaitable[None]]] = {
    function.__name__: function
    for function in (
        hello, scope, echo, mirror, ignore, stream, status, length, bad_header, raise_early, raise_started,
        raise_late, raise_answered, nothing, out_of_order, show_events, after_end, wait_for_disconnect, stubborn,
        endless, background, release, held, block, tasks, timeouts, cancel_itself, leave, other_exit, until_left,
        until_raised, hints, trailers, pathsend, pathsend_fails, zerocopysend, buffers, as_coroutines, impatient,
        slow_reader, memory, deadline, shared,
    )
}  # fmt: skip
