"""Records that a worker writes to the arbiter through one pipe shared by all workers.

Owns       the layout of a record and its bound.
Never      blocks the arbiter, and never trusts a length: every record has the same size.
Invariant  RECORD_BYTES <= PIPE_BUF, so the kernel keeps each record whole however many workers write at once (pipe(7)).
"""

from __future__ import annotations

import dataclasses
import enum
import struct
from typing import Final

from bicorn.unpatched import read, select, write

RECORD_BYTES: Final = 512  # POSIX's smallest PIPE_BUF
_LAYOUT: Final = struct.Struct("!BIH")  # kind, pid, length of the text
TEXT_BYTES_MAX: Final = RECORD_BYTES - _LAYOUT.size
#: Records read at one wake; more are left for the next, so that a flood cannot keep the arbiter from its loop.
RECORDS_PER_READ_MAX: Final = 64

assert RECORD_BYTES <= select.PIPE_BUF


class Kind(enum.IntEnum):
    """What a worker has to say."""

    READY = 1  # it accepts connections; the text is its class, if the application asked for another one
    BOOT_FAILED = 2  # it is going to exit before it was ready; the text says why, cause first
    DUE = 3  # it has served its time, and serves on until a successor is ready; the text says why
    TEMPLATE_READY = 4  # it holds the application and forks workers when told to
    FORKED = 5  # a template has forked the worker of this pid; the text is its age
    FORK_FAILED = 6  # a template has not; the text is the age, a space, and why


@dataclasses.dataclass(frozen=True)
class Message:
    """One record, decoded."""

    kind: Kind
    pid: int
    text: str = ""


def encode(message: Message) -> bytes:
    """Give the record of a message; text that does not fit is cut at a whole character."""
    text = message.text.encode("utf-8")[:TEXT_BYTES_MAX].decode("utf-8", "ignore").encode("utf-8")
    head = _LAYOUT.pack(message.kind, message.pid, len(text))
    return (head + text).ljust(RECORD_BYTES, b"\0")


def decode(record: bytes) -> Message | None:
    """Give the message of a record, or None for a record that nobody of ours wrote (an application found the pipe)."""
    kind, pid, length = _LAYOUT.unpack_from(record)
    if kind not in Kind.__members__.values() or length > TEXT_BYTES_MAX:
        return None
    text = record[_LAYOUT.size : _LAYOUT.size + length]
    return Message(Kind(kind), pid, text.decode("utf-8", "replace"))


def send(pipe: int, message: Message) -> None:
    """Write a message; blocks while the pipe is full, which ends when the arbiter reads or dies."""
    try:
        write(pipe, encode(message))
    except BrokenPipeError:
        # The arbiter is gone: nobody is left to be told, and the lifeline ends this worker.
        return


def receive(pipe: int) -> list[Message]:
    """Read what waits in a non-blocking pipe, in order."""
    messages = []
    for _ in range(RECORDS_PER_READ_MAX):
        try:
            record = read(pipe, RECORD_BYTES)
        except BlockingIOError:
            break
        if len(record) != RECORD_BYTES:
            break
        message = decode(record)
        if message is not None:
            messages.append(message)
    return messages
