"""A filter in the kernel that lets no new connection begin on a listening TCP socket.

Owns       the few instructions of classic BPF, and handing them to the kernel.
Never      touches connections that are open, in the listen queue, or in the middle of their handshake.
Invariant  without it a server cannot end cleanly: a connection that enters the queue between the last accept and the
           close is reset by the kernel, after its client was told that it is connected.

A client whose SYN is dropped hears nothing and sends it again after a second (RFC 6298, 2.1), when the socket is closed
and the kernel refuses it, or when a successor listens on the address and takes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import socket
from typing import Final

_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h; the socket module has no name for it

# What the kernel looks at begins with the TCP header (RFC 9293, 3.1), whose byte 13 holds the flags.
_FLAGS_OFFSET: Final = 13
_SYN, _ACK = 0x02, 0x10


class _Instruction(ctypes.Structure):
    """struct sock_filter."""

    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction))]


_INSTRUCTIONS: Final = (
    (0x30, 0, 0, _FLAGS_OFFSET),  # BPF_LD | BPF_B | BPF_ABS: the flags
    (0x54, 0, 0, _SYN | _ACK),  # BPF_ALU | BPF_AND | BPF_K
    (0x15, 0, 1, _SYN),  # BPF_JMP | BPF_JEQ | BPF_K: SYN alone goes on, all others skip one
    (0x06, 0, 0, 0),  # BPF_RET | BPF_K: drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # keep all of it
)


def drop_new_connections(sock: socket.socket) -> None:
    """Let no new connection begin on a listening socket, in whichever process it is open; there is no way back.

    Where the kernel or a sandbox does not take filters, nothing changes.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    instructions = (_Instruction * len(_INSTRUCTIONS))(*(_Instruction(*fields) for fields in _INSTRUCTIONS))
    program = _Program(len(instructions), instructions)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(program))
