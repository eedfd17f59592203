"""WebSocket clients in one process, cheap enough to keep a server's core busy: one epoll, frames made in advance.

Owns       its sockets and the clock of each message.
Never      offers permessage-deflate: two servers that compress differently would not do the same work.
Invariant  a client has one message under way, and the next one leaves only after the echo came whole.

Run as `python -m bench.echo_clients <port> <clients> <message bytes> <seconds>`. The first echo of each
client is compared byte by byte. After that only lengths are counted, or the load would be the bottleneck.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import sys
import time
from typing import Final

from bench.connections import STALL_TIMEOUT_S, ExchangeFailed
from bench.latencies import print_result

_HANDSHAKE: Final = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_TEXT, _CLOSE, _MASKED = 0x81, 0x88, 0x80
_RECEIVE_BYTES: Final = 65536


class EchoClient:
    """One WebSocket connection."""

    def __init__(self, port: int, message: bytes) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), STALL_TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._message = message
        self._echo = _frame(_TEXT, message)
        self._question = _masked_frame(_TEXT, message)
        self._sent_ns = 0
        self._missing = 0

    def open(self) -> None:
        """The handshake, and one message whose echo must be the very bytes that RFC 6455 asks for."""
        self.sock.sendall(_HANDSHAKE)
        head = bytearray()
        while b"\r\n\r\n" not in head:
            head += self._receive()
        if not head.startswith(b"HTTP/1.1 101 ") or b"sec-websocket-extensions" in head.lower():
            raise ExchangeFailed(f"did not accept a plain WebSocket: {bytes(head[:200])!r}")
        self.sock.sendall(self._question)
        echo = bytearray()
        while len(echo) < len(self._echo):
            echo += self._receive()
        if echo != self._echo:
            raise ExchangeFailed(f"echoed something else: {bytes(echo[:80])!r}")
        # With a timeout Python calls poll() before each send and recv. load.run ends a process that hangs.
        self.sock.settimeout(None)

    def send(self) -> None:
        self._sent_ns = time.perf_counter_ns()
        self._missing = len(self._echo)
        self.sock.sendall(self._question)

    def on_readable(self, buffer: bytearray) -> int | None:
        """How long the message took, in ns, once its echo is whole."""
        received = self.sock.recv_into(buffer)
        self._missing -= received
        if self._missing > 0 and received:
            return None
        if self._missing or not received:
            raise ExchangeFailed(f"closed a WebSocket or sent more than the echo of {len(self._message)} bytes")
        return time.perf_counter_ns() - self._sent_ns

    def close(self) -> None:
        self.sock.sendall(_masked_frame(_CLOSE, struct.pack("!H", 1000)))
        self.sock.close()

    def _receive(self) -> bytes:
        received = self.sock.recv(_RECEIVE_BYTES)
        if not received:
            raise ExchangeFailed("closed a WebSocket that was to be kept")
        return received


def main(port: int, count: int, message_bytes: int, seconds: int) -> None:
    message = (b"0123456789abcdef" * (message_bytes // 16 + 1))[:message_bytes]
    clients = [EchoClient(port, message) for _ in range(count)]
    for client in clients:
        client.open()
    gc.disable()  # Nothing here makes cycles.
    start_ns = time.perf_counter_ns()
    latencies_ns = _exchange(clients, start_ns + seconds * 1_000_000_000)
    elapsed_s = (time.perf_counter_ns() - start_ns) / 1e9
    for client in clients:
        client.close()
    print_result(latencies_ns, elapsed_s)


def _exchange(clients: list[EchoClient], end_ns: int) -> list[int]:
    poll = select.epoll()
    by_descriptor = {client.sock.fileno(): client for client in clients}
    buffer = bytearray(_RECEIVE_BYTES)
    latencies_ns: list[int] = []
    now_ns = time.perf_counter_ns()
    for client in clients:
        poll.register(client.sock.fileno(), select.EPOLLIN)
        client.send()
    while now_ns < end_ns:
        events = poll.poll(STALL_TIMEOUT_S)
        if not events:
            raise ExchangeFailed(f"no echo for {STALL_TIMEOUT_S:.0f} s")
        for descriptor, _ in events:
            client = by_descriptor[descriptor]
            latency_ns = client.on_readable(buffer)
            if latency_ns is not None:
                latencies_ns.append(latency_ns)
                client.send()
        now_ns = time.perf_counter_ns()
    return latencies_ns


def _frame(first: int, payload: bytes, mask_bit: int = 0) -> bytes:
    """RFC 6455 section 5.2, for payloads under 64 KiB."""
    length = len(payload)
    if length < 126:
        return bytes((first, mask_bit | length)) + payload
    return struct.pack("!BBH", first, mask_bit | 126, length) + payload


def _masked_frame(first: int, payload: bytes) -> bytes:
    """As a client must send it (section 5.3). One key for all frames: the server cannot tell, nor save work."""
    key = os.urandom(4)
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    head = _frame(first, payload, _MASKED)[: -len(payload)]
    return head + key + masked


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
