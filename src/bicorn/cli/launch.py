"""What `bicorn --daemon` waits for: the word of the server that it left in the background.

Owns       the pipe between the command that was typed and the server.
Never      starts or stops the server.
Invariant  the command ends with 0 only if the server listens; else with the server's exit code and its reason.
"""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

from bicorn.arbiter.arbiter import Arbiter
from bicorn.arbiter.daemon import daemonize
from bicorn.errors import BicornError, ExitCode

_LISTENING: Final = b"+"
_PIECE_BYTES: Final = 4096


class Launcher:
    """The server's end: what it says ends the command."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def listening(self) -> None:
        """Say that the server listens."""
        self._say(_LISTENING)

    def failed(self, exit_code: int, reason: str) -> None:
        """Say that the server ends, and why."""
        self._say(bytes([exit_code & 0xFF]) + reason.encode(errors="replace"))

    def _say(self, word: bytes) -> None:
        if self._pipe < 0:
            return  # It has heard how the start went; the log has what comes later.
        pipe, self._pipe = self._pipe, -1
        try:
            os.write(pipe, word)
        except BrokenPipeError:
            pass  # Somebody ended the command while it waited.
        finally:
            os.close(pipe)


class DaemonArbiter(Arbiter):
    """An arbiter that somebody waits for."""

    launcher: Launcher

    def start(self) -> None:
        """Start, and say so."""
        super().start()
        self.launcher.listening()

    def run(self) -> int:
        """Serve; a start that fails is logged as well, for who was not there."""
        try:
            exit_code = super().run()
        except BicornError as error:
            self.log.error("%s", error)
            raise
        self.launcher.failed(
            exit_code, "The server ended before it listened; its error log (--error-logfile FILE) says why."
        )
        return exit_code


def leave_terminal(*, keep_redirected_streams: bool) -> Launcher:
    """Go on in the background; the process that was started waits for what the launcher says, and exits."""
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        _wait(reading)
    os.close(reading)
    daemonize(keep_redirected_streams=keep_redirected_streams)
    return Launcher(writing)


def _wait(pipe: int) -> NoReturn:
    word = b""
    while piece := os.read(pipe, _PIECE_BYTES):
        word += piece
    if word == _LISTENING:
        os._exit(ExitCode.OK)
    reason = word[1:].decode(errors="replace") or "The server was killed before it listened."
    print(f"bicorn: {reason}", file=sys.stderr, flush=True)
    os._exit(word[0] if word else ExitCode.FAILED)
