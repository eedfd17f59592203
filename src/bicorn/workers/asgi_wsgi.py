"""A WSGI application under the `asgi` worker: called in a bounded pool of threads, streaming both ways.

Owns       the threads, the environ, and the two ways between a thread and the loop.
Never      holds more of a body than the loop has read ahead, nor more of an answer than the block being sent; nor
           calls the application for a request that waited too long for its thread, or whose client left meanwhile.
Invariant  a thread waits for the loop, never the loop for a thread.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from bicorn._core import Deadline, FileWrapper, WsgiHead
from bicorn.workers.gateway import SERVER_SOFTWARE, ErrorStream
from bicorn.workers.thread_pool import ThreadPool

if TYPE_CHECKING:
    from bicorn.config import Settings
    from bicorn.interfaces import Log

Message = MutableMapping[str, Any]  # Any: whatever the ASGI message of that type holds
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: A request that waited no longer for its thread is run without asking whether its client is still there, in seconds;
#: as in the native loop.
ASK_AFTER_S = 0.1

#: Threads of a worker when `threads` does not say: as many as uvicorn's adapter has.
THREADS_DEFAULT = 10


class WsgiInAsgi:
    """An ASGI application that calls a WSGI one."""

    def __init__(self, app: Callable[..., Iterable[bytes]], cfg: Settings, log: Log) -> None:
        self._app = app
        threads = cfg.threads if cfg.is_given("threads") else THREADS_DEFAULT
        self._pool = ThreadPool(threads, log)
        self._constant = {
            "wsgi.version": (1, 0),
            "wsgi.multithread": threads > 1,
            "wsgi.multiprocess": cfg.workers > 1,
            "wsgi.run_once": False,
            "wsgi.errors": ErrorStream(cfg.errorlog),
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
            "SERVER_SOFTWARE": SERVER_SOFTWARE,
            "bicorn.deadline": Deadline(watched=False),  # A thread of the pool may take its time.
        }
        self._mount = os.fsencode(os.environ.get("SCRIPT_NAME", ""))
        self._root_path = cfg.root_path
        self._server = cfg.server_header

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            raise RuntimeError(f"a WSGI application cannot serve {scope['type']}")
        loop = asyncio.get_running_loop()
        call = _Call(loop, receive, send, time.monotonic(), self._server)
        environ = {
            **self._constant,
            **environ_of(scope, self._root_path),
            "wsgi.input": io.BufferedReader(call.body),
            "wsgi.early_hints": call.early_hints,
        }
        call.exchange.fill_environ(environ)
        mount(environ, scope, self._mount)
        await loop.run_in_executor(self._pool, call.run, self._app, environ)


class _Body(io.RawIOBase):
    """`wsgi.input`: asks the loop for more when the thread reads more."""

    def __init__(self, loop: asyncio.AbstractEventLoop, receive: Receive) -> None:
        super().__init__()
        self._loop = loop
        self._receive = receive
        self._rest = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # Any: typeshed's WriteableBuffer has no name at run time
        while not self._rest and not self._ended:
            message = asyncio.run_coroutine_threadsafe(_awaited(self._receive), self._loop).result()
            if message["type"] == "http.disconnect":
                raise ConnectionResetError("the client left before its request was complete")
            self._rest, self._ended = message.get("body", b""), not message.get("more_body", False)
        taken, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


async def _awaited(receive: Receive) -> Message:
    return await receive()


class _Call:
    """One call of the application, in a thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, receive: Receive, send: Send, queued_at: float, server: str
    ) -> None:
        self._loop = loop
        self._send = send
        self._queued_at = queued_at
        self._server = server
        # The server's own exchange, which receive() and send() are methods of.
        self.exchange: Any = receive.__self__  # type: ignore[attr-defined]  # Any: it has no name outside the core
        self.body = _Body(loop, receive)
        self._head: WsgiHead | None = None
        self._is_started = False

    def run(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        """Call the application and send what it gives."""
        try:
            waited_s = time.monotonic() - self._queued_at
            if waited_s <= ASK_AFTER_S or asyncio.run_coroutine_threadsafe(self._is_wanted(), self._loop).result():
                self._answer(app, environ)
        except StopIteration as error:
            # No Future takes this one as its exception: the client would wait for ever.
            raise RuntimeError("the application raised StopIteration") from error

    def _answer(self, app: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> None:
        blocks = app(environ, self.start_response)
        try:
            if isinstance(blocks, (list, tuple)) and len(blocks) == 1:
                self._send_block(blocks[0], more=False)
                return
            for block in blocks:
                if block:
                    self._send_block(block, more=True)
            self._send_block(b"", more=False)
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    async def _is_wanted(self) -> bool:
        """Ask the loop's own side, in its thread; if it is not, the loop has dealt with the client."""
        wanted: bool = self.exchange.is_wanted()
        return wanted

    def start_response(
        self,
        status: str,
        response_headers: list[tuple[str, str]],
        exc_info: Any = None,  # Any: what sys.exc_info() gives
    ) -> Callable[[bytes], None]:
        """`start_response` of PEP 3333."""
        if exc_info is not None and self._is_started:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and self._head is not None:
            raise AssertionError("start_response() was called a second time without exc_info (PEP 3333)")
        self._head = WsgiHead(self._server, status, response_headers)
        return lambda block: self._send_block(block, more=True)

    def early_hints(self, headers: Iterable[tuple[str, str]]) -> None:
        """`wsgi.early_hints`: the links among these fields go ahead of the response (RFC 8297)."""
        links = [value.encode("latin-1") for name, value in headers if name.lower() == "link"]
        if links and not self._is_started:
            hint: Message = {"type": "http.response.early_hint", "links": links}
            asyncio.run_coroutine_threadsafe(self._send_after(None, hint), self._loop).result()

    def _send_block(self, block: bytes, *, more: bool) -> None:
        head = None if self._is_started else self._head
        if not self._is_started and head is None:
            raise RuntimeError("the application gave a body before it called start_response()")
        self._is_started = True
        message = {"type": "http.response.body", "body": block, "more_body": more}
        asyncio.run_coroutine_threadsafe(self._send_after(head, message), self._loop).result()

    async def _send_after(self, head: WsgiHead | None, message: Message) -> None:
        if head is not None:
            self.exchange.take_head(head)
        await self._send(message)


def environ_of(scope: Message, script_name: str) -> dict[str, Any]:
    """The environ of PEP 3333 for an HTTP scope."""
    # Not scope["path"]: what is not UTF-8 in it is lost.
    path = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
    if script_name and (path == script_name or path.startswith(script_name + "/")):
        path = path[len(script_name) :]
    server_name, server_port = _server_of(scope)
    query = scope["query_string"].decode("latin-1")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.get("method", "GET"),  # that of a WebSocket's handshake
        "SCRIPT_NAME": script_name,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "RAW_URI": scope["raw_path"].decode("latin-1") + ("?" + query if query else ""),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server_name,
        "SERVER_PORT": server_port,
        "wsgi.url_scheme": scope["scheme"],
        "REMOTE_ADDR": scope["client"][0] if scope["client"] else "",
    }
    if scope["client"]:
        environ["REMOTE_PORT"] = str(scope["client"][1])
    for name, value in scope["headers"]:
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        text = value.decode("latin-1")
        if key in environ:
            text = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + text
        environ[key] = text
    return environ


def mount(environ: dict[str, Any], scope: Message, script_name: bytes) -> None:
    """Divide the path where a trusted proxy says that the application is, or else the environment, as in sync."""
    forwarded = None
    if "HTTP_SCRIPT_NAME" in environ:
        # Only with an underscore, which `header_map` and `forwarder_headers` have judged: a dash comes from anybody.
        forwarded = next((value for name, value in reversed(scope["headers"]) if name == b"script_name"), None)
    script_name = script_name if forwarded is None else forwarded
    path = scope["raw_path"]
    if environ["RAW_URI"][:1] != "/" and _is_bare(environ["RAW_URI"]):
        environ["PATH_INFO"], path = "", b""  # A scope has the path that RFC 9112, 3.2.1 says; sync has what was sent.
    if not script_name:
        return
    if not path.startswith(script_name):
        who = "the environment" if forwarded is None else "a trusted proxy"
        raise ValueError(f"the path {path!r} does not start with SCRIPT_NAME {script_name!r}, which {who} set")
    environ["SCRIPT_NAME"] = script_name.decode("latin-1")
    environ["PATH_INFO"] = unquote_to_bytes(path[len(script_name) :]).decode("latin-1")


def _is_bare(target: str) -> bool:
    """Whether a target is a URI without a path."""
    _, separator, rest = target.partition("://")
    return bool(separator) and "/" not in rest.partition("?")[0]


def _server_of(scope: Message) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT. On a unix socket only the client knows what the server is called."""
    name, port = scope["server"] or ("", None)
    if port is not None:
        return name, str(port)
    authority = next((value.decode("latin-1") for key, value in scope["headers"] if key == b"host"), "")
    if not authority:
        return name, ""
    host, colon, digits = authority.rpartition(":")
    if not colon or "]" in digits:  # the colons of an IPv6 literal separate no port
        host, digits = authority, ""
    return host, digits or ("443" if scope["scheme"] == "https" else "80")
