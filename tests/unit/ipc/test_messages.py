"""Records from workers: fixed in size, whole, and never trusted."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bicorn.ipc.messages import (
    RECORD_BYTES,
    RECORDS_PER_READ_MAX,
    TEXT_BYTES_MAX,
    Kind,
    Message,
    decode,
    encode,
    receive,
    send,
)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe with a non-blocking end to read."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for end in ends:
        os.close(end)


@given(st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.text())
def test_a_message_survives_its_record(kind: Kind, pid: int, text: str) -> None:
    record = encode(Message(kind, pid, text))
    assert len(record) == RECORD_BYTES
    message = decode(record)
    assert message is not None
    assert (message.kind, message.pid) == (kind, pid)
    assert text.startswith(message.text)
    assert message.text == text or len(text.encode()) > TEXT_BYTES_MAX


@given(st.binary(min_size=RECORD_BYTES, max_size=RECORD_BYTES))
def test_any_record_is_a_message_or_nothing(record: bytes) -> None:
    message = decode(record)
    assert message is None or len(message.text) <= TEXT_BYTES_MAX


def test_messages_are_received_in_order(pipe: tuple[int, int]) -> None:
    sent = [Message(Kind.READY, 1), Message(Kind.BOOT_FAILED, 2, "no café"), Message(Kind.READY, 3)]
    for message in sent:
        send(pipe[1], message)
    assert receive(pipe[0]) == sent
    assert receive(pipe[0]) == []


def test_one_wake_reads_a_bounded_number(pipe: tuple[int, int]) -> None:
    for pid in range(RECORDS_PER_READ_MAX + 1):
        send(pipe[1], Message(Kind.READY, pid))
    assert len(receive(pipe[0])) == RECORDS_PER_READ_MAX
    assert [message.pid for message in receive(pipe[0])] == [RECORDS_PER_READ_MAX]


def test_a_dead_arbiter_is_not_an_error() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    send(write_end, Message(Kind.READY, 1))
    os.close(write_end)
