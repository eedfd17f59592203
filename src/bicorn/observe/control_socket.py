"""The server's end of the control socket: a listener, a few clients, and what each of them still has to be sent.

Owns       the socket file, the descriptors of the clients, and the bounds on their number, size and time.
Never      blocks, starts a thread, or removes a socket file that is not its own any more.
Invariant  a client has at most one request under way and one answer unsent; nothing is read from it meanwhile. So one
           that does not read, or sends without end, costs its own buffer and nothing else.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import socket
import stat
from collections.abc import Callable, Mapping
from typing import Any, Final

from bicorn.errors import BicornError
from bicorn.observe.control_protocol import (
    REQUEST_BYTES_MAX,
    Refused,
    Request,
    decode_request,
    encode_refusal,
    encode_result,
)
from bicorn.unpatched import select

#: Connections at a time: people and their monitoring. One more takes the place of the one that is silent longest.
CLIENTS_MAX: Final = 32
#: How long a client may be silent between requests, or take nothing of an answer, in seconds.
SILENCE_MAX_S: Final = 60.0
#: How long nobody is accepted after it failed, in seconds; nginx: 0.5 s (accept_mutex_delay).
REST_S: Final = 0.5
_READ_BYTES: Final = 4096


class ControlSocketError(BicornError):
    """The control socket cannot be made; says why."""


class _Phase(enum.Enum):
    READING = "reading"  # the next request
    WAITING = "waiting"  # for the arbiter's answer
    SENDING = "sending"  # that answer


class Reply:
    """The way back to whoever sent a request; it is used once, at once or later."""

    def __init__(self, server: ControlSocket, client: _Client, identifier: str | int | None) -> None:
        self._server = server
        self._client: _Client | None = client
        self._identifier = identifier

    @property
    def is_wanted(self) -> bool:
        """Whether the client is still there."""
        return self._client is not None and self._client.sock.fileno() >= 0

    def result(self, result: Mapping[str, Any]) -> None:
        """Tell what came of it."""
        self._answer(encode_result(self._identifier, result))

    def refuse(self, refused: Refused) -> None:
        """Tell why nothing came of it."""
        self._answer(encode_refusal(self._identifier, refused))

    def _answer(self, line: bytes) -> None:
        client, self._client = self._client, None
        assert client is not None, "a request is answered once"
        self._server.answer(client, line)


class _Client:
    def __init__(self, sock: socket.socket, now: float) -> None:
        self.sock = sock
        self.phase = _Phase.READING
        self.received = bytearray()
        self.unsent = b""
        self.has_ended = False  # It will send nothing more, but may wait for an answer: `nc -N` and the like.
        self.moved_at = now


class ControlSocket:
    """Serves requests to `handle` in the rounds of somebody's loop; `fileno()` is readable when there is something."""

    def __init__(self, handle: Callable[[Request, Reply], None]) -> None:
        self._handle = handle
        self._epoll = select.epoll()
        self._listener: socket.socket | None = None
        self._path: str | None = None
        self._inode: tuple[int, int] | None = None
        self._clients: dict[int, _Client] = {}
        self._rests_until: float | None = None

    # -- the socket file -----------------------------------------------------------------------

    @property
    def path(self) -> str | None:
        """Where it listens, if it does."""
        return self._path

    @property
    def is_lost(self) -> bool:
        """Whether the file has vanished: a cleaner of temporary files, or a successor that took the path and failed."""
        return self._path is not None and _identity(self._path) is None

    def listen(self, path: str, mode: int, *, take_over: bool = False) -> None:
        """Make the socket file, in the place of one that nobody answers at; raise ControlSocketError.

        With `take_over` also in the place of one that answers: the predecessor's, in a binary upgrade.
        """
        try:
            _make_room_for(path, take_over=take_over)
            self._listener = self._bind(path, mode)
        except OSError as error:
            raise ControlSocketError(f"cannot listen on {path}: {error.strerror or error}") from None
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def _bind(self, path: str, mode: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # The file comes into being with the permissions that it will have: nobody gets in before a chmod.
        before = os.umask(0o777 & ~mode)
        try:
            sock.bind(path)
        except OSError:
            sock.close()
            raise
        finally:
            os.umask(before)
        self._path, self._inode = path, _identity(path)
        sock.setblocking(False)
        sock.listen(CLIENTS_MAX)
        return sock

    def close(self) -> None:
        """Hang up, and listen no more."""
        for client in list(self._clients.values()):
            with contextlib.suppress(OSError):
                client.sock.send(client.unsent)  # The last word of a server that ends, as far as it goes.
            self._drop(client)
        self.stop_listening()

    def stop_listening(self) -> None:
        """Remove the socket file if it is still ours; clients stay."""
        if self._listener is not None:
            self._epoll.unregister(self._listener.fileno())
            self._listener.close()
        if self._path is not None and _identity(self._path) == self._inode:
            # Somebody may take the path between the two calls; he would have had to find nobody listening.
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        self._listener = self._path = self._inode = self._rests_until = None

    # -- as a duty of the loop -----------------------------------------------------------------

    def fileno(self) -> int:
        """Give the epoll that watches the listener and all clients."""
        return self._epoll.fileno()

    def wake_at(self) -> float | None:
        """Give when the first client will have been silent for too long."""
        moments = [
            client.moved_at + SILENCE_MAX_S for client in self._clients.values() if client.phase is not _Phase.WAITING
        ]
        if self._rests_until is not None:
            moments.append(self._rests_until)
        return min(moments, default=None)

    def attend(self, now: float) -> None:
        """Accept, read, answer, send; whatever would block waits for the next round."""
        if self._rests_until is not None and now >= self._rests_until:
            self._rest(until=None)
        for fd, events in self._epoll.poll(0):
            if self._listener is not None and fd == self._listener.fileno():
                self._accept(self._listener, now)
            elif fd in self._clients:
                self._serve(self._clients[fd], events, now)
        for client in list(self._clients.values()):
            if client.phase is not _Phase.WAITING and now - client.moved_at >= SILENCE_MAX_S:
                self._drop(client)

    def leave_in_child(self) -> None:
        """Close the child's copies; the file stays the parent's."""
        self._epoll.close()
        for client in self._clients.values():
            client.sock.close()
        self._clients.clear()
        if self._listener is not None:
            self._listener.close()
        self._listener = self._path = self._inode = None

    # -- clients -------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket, now: float) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # No descriptor is left, and the connection stays in the queue: to look again at once would be a spin.
                self._rest(until=now + REST_S)
                return
            sock.setblocking(False)
            if len(self._clients) >= CLIENTS_MAX and not self._make_room():
                sock.close()
                continue
            self._clients[sock.fileno()] = _Client(sock, now)
            self._epoll.register(sock.fileno(), select.EPOLLIN)

    def _rest(self, until: float | None) -> None:
        self._rests_until = until
        if self._listener is not None:
            self._epoll.modify(self._listener.fileno(), 0 if until is not None else select.EPOLLIN)

    def _make_room(self) -> bool:
        idle = [client for client in self._clients.values() if client.phase is not _Phase.WAITING]
        if idle:
            self._drop(min(idle, key=lambda client: client.moved_at))
        return bool(idle)

    def _drop(self, client: _Client) -> None:
        del self._clients[client.sock.fileno()]
        # Not left to close(): a worker that was just forked may still hold a copy, and the kernel would go on telling.
        self._epoll.unregister(client.sock.fileno())
        client.sock.close()

    def _serve(self, client: _Client, events: int, now: float) -> None:
        try:
            if client.phase is _Phase.READING:
                self._receive(client)
            elif client.phase is _Phase.SENDING:
                self._send(client)
            elif events & (select.EPOLLHUP | select.EPOLLERR):
                self._drop(client)  # It does not wait for its answer any more.
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
        client.moved_at = now

    def _receive(self, client: _Client) -> None:
        data = client.sock.recv(_READ_BYTES)
        client.received += data
        client.has_ended = not data
        self._turn_to_next(client)

    def _send(self, client: _Client) -> None:
        client.unsent = client.unsent[client.sock.send(client.unsent) :]
        if not client.unsent:
            client.phase = _Phase.READING
            self._epoll.modify(client.sock.fileno(), select.EPOLLIN)
            self._turn_to_next(client)

    def _turn_to_next(self, client: _Client) -> None:
        """Carry out the next request if it is there; drop a client from which none will come."""
        line, newline, rest = client.received.partition(b"\n")
        if len(line) > REQUEST_BYTES_MAX:
            client.has_ended = True
            client.received.clear()
            self._refuse(client, Refused("bad-request", f"a request is at most {REQUEST_BYTES_MAX} bytes long"))
        elif newline:
            client.received = rest
            self._carry_out(client, bytes(line))
        elif client.has_ended:
            self._drop(client)

    def _carry_out(self, client: _Client, line: bytes) -> None:
        try:
            request = decode_request(line)
        except Refused as refused:
            self._refuse(client, refused)
            return
        reply = self._expect_answer(client, request.identifier)
        try:
            self._handle(request, reply)
        except Refused as refused:
            reply.refuse(refused)

    def _refuse(self, client: _Client, refused: Refused) -> None:
        self._expect_answer(client, None).refuse(refused)

    def _expect_answer(self, client: _Client, identifier: str | int | None) -> Reply:
        client.phase = _Phase.WAITING
        self._epoll.modify(client.sock.fileno(), 0)  # The kernel tells of a hang-up all the same.
        return Reply(self, client, identifier)

    def answer(self, client: _Client, line: bytes) -> None:
        """Send what came of a client's request, from the next round on."""
        if client.sock.fileno() < 0:
            return
        client.unsent = line
        client.phase = _Phase.SENDING
        self._epoll.modify(client.sock.fileno(), select.EPOLLOUT)


def _make_room_for(path: str, *, take_over: bool) -> None:
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "a file that is not a socket is in the way")
    if not take_over and is_answered(path):
        raise OSError(errno.EADDRINUSE, "another server answers there")
    os.unlink(path)


def is_answered(path: str) -> bool:
    """Whether somebody listens at a socket file."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:
            return True  # Its queue is full, so there is one.
        except OSError:
            return False
    return True


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
