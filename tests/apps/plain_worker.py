"""A worker class as a user may write one: plain Python, one connection at a time, one request a connection."""

from __future__ import annotations

import io
import select
import socket
import sys
from typing import Any

from bicorn.workers.base import Worker


class PlainWorker(Worker):
    """Accepts, reads one request, answers, closes."""

    def run(self) -> None:
        """Serve until told to stop; then serve what waits in the listen queue."""
        poll = select.poll()
        for fd in (self.lifeline, self.PIPE[0], *(listener.fileno() for listener in self.sockets)):
            poll.register(fd, select.POLLIN)
        while self.alive and self.is_arbiter_alive():
            self.notify()
            poll.poll(min(1000, int(self.timeout * 1000) or 1000))
            self.accept_all()
        self.accept_all()

    def accept_all(self) -> None:
        """Serve every connection that waits."""
        for listener in self.sockets:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                continue
            client.setblocking(True)
            with client:
                self.serve(client)

    def serve(self, client: socket.socket) -> None:
        """One request, one answer."""
        head = b""
        while b"\r\n\r\n" not in head:
            received = client.recv(4096)
            if not received:
                return
            head += received
        method, target, protocol = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        started: list[str] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
            lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers), "Connection: close"]
            started[:] = ["\r\n".join(lines) + "\r\n\r\n"]

        path, _, query = target.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SERVER_PROTOCOL": protocol,
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
        }
        assert self.wsgi is not None
        body = b"".join(self.wsgi(environ, start_response))
        client.sendall(started[0].encode("latin-1") + body)
