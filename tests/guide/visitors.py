"""Clients that keep asking while something happens to the server.

Owns       the threads of the clients and the list of what went wrong.
Never      asks again for a request that failed: one failure is one lost request.
Invariant  a client that is told `Connection: close` opens a new connection; nothing else excuses a closed one.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from harness.answers import Answer, AnswerReader
from harness.server import DEADLINE_S, Server, wait_until

if TYPE_CHECKING:
    import socket

    from typing_extensions import Self

REQUEST = b"GET / HTTP/1.1\r\nHost: guide.example\r\n\r\n"


class Visitors:
    """Two clients in a loop: one opens a connection for each request, one keeps its own."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._leave = threading.Event()
        self._lock = threading.Lock()
        self.bodies: Counter[bytes] = Counter()
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._visit, args=(keep,)) for keep in (False, True)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._leave.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def wait_for(self, body: bytes, count: int = 20) -> None:
        """Wait until that many answers had this body."""
        wait_until(lambda: self.failures or self.bodies[body] >= count, lambda: f"{count} x {body!r}: {self.bodies}")

    def _visit(self, keep: bool) -> None:
        sock: socket.socket | None = None
        while not self._leave.is_set():
            answer: Answer | None = None
            try:
                sock = sock or self._server.connect()
                sock.sendall(REQUEST)
                answer = AnswerReader(sock).read_answer()
                self._count(answer)
            except (OSError, AssertionError) as error:
                self._note(f"{error!r}")
            if sock is not None and (not keep or answer is None or answer.header("Connection") == "close"):
                sock.close()
                sock = None
        if sock is not None:
            sock.close()

    def _count(self, answer: Answer) -> None:
        if answer.status != 200:
            self._note(f"status {answer.status}")
        with self._lock:
            self.bodies[answer.body] += 1

    def _note(self, failure: str) -> None:
        with self._lock:
            self.failures.append(failure)
