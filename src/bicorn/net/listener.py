"""Bound, listening sockets and their addresses.

Owns       making a listener from an address or an inherited descriptor, and removing the file of a unix socket.
Never      accepts, and never takes a unix socket's path away from a server that answers on it.
Invariant  every Listener listens, is non-blocking, and does not survive exec.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from bicorn.errors import BindError
from bicorn.interfaces import Log
from bicorn.net.address import Address, format_address, is_ipv6
from bicorn.net.syn_filter import drop_new_connections

if TYPE_CHECKING:
    from bicorn.config import Settings

#: How often an address in use is tried, and the seconds between: a predecessor gets that long to go. Gunicorn: 5 × 1 s.
ATTEMPTS_MAX: Final = 5
ATTEMPT_PAUSE_S: Final = 1.0
_WORTH_WAITING: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL})


class Listener:
    """A listening socket; everything that it has not itself is the socket's."""

    def __init__(self, sock: socket.socket, cfg_addr: Address, *, scheme: str = "http") -> None:
        self.sock = sock
        self.cfg_addr = cfg_addr
        self._scheme = scheme
        path = self._path()
        self._inode = os.stat(path).st_ino if path is not None else -1

    def __getattr__(self, name: str) -> Any:  # Any: whatever the socket's attribute is
        if name == "sock":  # Not set yet: asking the socket for it would recurse.
            raise AttributeError(name)
        return getattr(self.sock, name)

    def __str__(self) -> str:
        if self.sock.family == socket.AF_UNIX:
            # The NUL that begins an abstract name would cut the line in many a log viewer; ss(8) writes @ as well.
            return "unix:" + os.fsdecode(self.sock.getsockname()).replace("\0", "@")
        host, port = self.sock.getsockname()[:2]
        return f"{self._scheme}://{format_address((host, port))}"

    def __repr__(self) -> str:
        return f"<Listener {self if self.sock.fileno() >= 0 else 'closed'}>"

    def fileno(self) -> int:
        """Give the descriptor, so that a Listener can be waited for."""
        return self.sock.fileno()

    def close(self) -> None:
        """Close this process's copy; the address is free when the last copy is closed."""
        self.sock.close()

    def unlink(self) -> None:
        """Remove the file of a unix socket, if it is still the one that this listener bound."""
        path = self._path()
        if path is None:
            return
        with contextlib.suppress(OSError):
            if os.stat(path).st_ino == self._inode:
                os.unlink(path)

    def _path(self) -> str | None:
        if isinstance(self.cfg_addr, str) and not self.cfg_addr.startswith("\0"):
            return self.cfg_addr
        return None


def create_listeners(
    settings: Settings,
    log: Log,
    *,
    inherited: Iterable[int] = (),
    existing: Sequence[Listener] = (),
    pause: Callable[[float], bool],
) -> list[Listener]:
    """Make the listeners that the settings name; `pause(seconds)` waits and tells whether to give up.

    Sockets from systemd replace every bind that is not a descriptor itself, as in Gunicorn. A listener of `existing`
    with the same configured address is used again. Raises BindError, having closed what was made.
    """
    addresses: list[Address] = list(settings.address)
    inherited = list(inherited)
    if inherited:
        addresses = [*(address for address in addresses if isinstance(address, int)), *inherited]
    spare = list(existing)
    made: list[Listener] = []
    listeners: list[Listener] = []
    try:
        for address in addresses:
            listener = next((known for known in spare if known.cfg_addr == address), None)
            if listener is None:
                listener = _create(address, settings, log, pause)
                made.append(listener)
            else:
                spare.remove(listener)
            listeners.append(listener)
    except BindError:
        close_listeners(made, unlink=True)
        raise
    return listeners


def adopt_listeners(descriptors: Iterable[int], settings: Settings) -> list[Listener]:
    """Make listeners of descriptors that another server passed on, each for the configured address that it serves.

    One that serves none of them becomes a listener of its own number, for the caller to close.
    """
    left = [address for address in settings.address if not isinstance(address, int)]
    kept = {address for address in settings.address if isinstance(address, int)}
    listeners = []
    for descriptor in descriptors:
        if descriptor in kept:
            continue  # create_listeners takes it by its number.
        sock = socket.socket(fileno=descriptor)
        address = next((address for address in left if _serves(sock, address)), None)
        if address is not None:
            left.remove(address)
        listeners.append(_listening(sock, descriptor if address is None else address, settings))
    return listeners


def _serves(sock: socket.socket, address: tuple[str, int] | str) -> bool:
    name = sock.getsockname()
    if isinstance(address, str) or sock.family == socket.AF_UNIX:
        return os.fsdecode(name) == address if sock.family == socket.AF_UNIX else False
    host, port = address
    if port not in (0, name[1]):  # Port 0: whatever the kernel gave the server of before.
        return False
    try:
        found = socket.getaddrinfo(host or None, name[1], sock.family, socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        return False
    return any(known[4][0] == name[0] for known in found)


#: struct tcp_info of linux/tcp.h: of a listening socket, tcpi_unacked counts the connections that wait to be accepted.
_TCPI_UNACKED: Final = struct.Struct("=24xI")


def accept_queue(sock: socket.socket) -> int:
    """Count the connections that wait in a listening TCP socket; 0 for others, of which the kernel does not tell."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0
    try:
        found: int = _TCPI_UNACKED.unpack(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCPI_UNACKED.size))[0]
    except (OSError, struct.error):
        return 0  # A sandbox that knows no TCP_INFO.
    return found


def refuse_new_connections(listeners: Iterable[Listener]) -> None:
    """Let nobody into the queues any more, so that their end can be reached; inherited sockets are left alone.

    Those belong to somebody who may hand them to the next server. A unix socket is closed to clients by unlink().
    """
    for listener in listeners:
        if not isinstance(listener.cfg_addr, int):
            drop_new_connections(listener.sock)


def close_listeners(listeners: Iterable[Listener], *, unlink: bool) -> None:
    """Close listeners, and remove the files of unix sockets that this process made."""
    for listener in listeners:
        if unlink:
            listener.unlink()
        listener.close()


def _create(address: Address, settings: Settings, log: Log, pause: Callable[[float], bool]) -> Listener:
    for attempt in range(1, ATTEMPTS_MAX + 1):
        try:
            return _adopt(address, settings) if isinstance(address, int) else _bind(address, settings)
        except OSError as error:
            reason = error
        if reason.errno == errno.EADDRINUSE:
            log.error("Connection in use: %s", address)
        elif reason.errno == errno.EADDRNOTAVAIL:
            log.error("Invalid address: %s", address)
        log.error("connection to %s failed: %s", address, reason)
        if reason.errno not in _WORTH_WAITING or attempt == ATTEMPTS_MAX:
            break
        log.debug("Retrying in %g second.", ATTEMPT_PAUSE_S)
        if pause(ATTEMPT_PAUSE_S):
            break
    log.error("Can't connect to %s", address)
    raise BindError(f"cannot listen on {format_address(address)}: {_explain(reason)}")


def _explain(error: OSError) -> str:
    advice = {
        errno.EADDRINUSE: "another process listens there; stop it or choose another address with --bind",
        errno.EADDRNOTAVAIL: "no network interface of this machine has that address",
        errno.EACCES: "no permission; ports below 1024 and the directory of a unix socket need it",
        errno.EPERM: "no permission; only root may give a socket to another user",
        errno.ENOENT: "the directory does not exist",
        errno.EBADF: "the descriptor is not open; whoever starts the server has to pass it on",
        errno.ENOTSOCK: "it is not a socket",
    }
    text = error.strerror or str(error)
    return f"{text} ({advice[error.errno]})" if error.errno in advice else text


def _adopt(descriptor: int, settings: Settings) -> Listener:
    """Take over an inherited descriptor, bound and perhaps listening already."""
    sock = socket.socket(fileno=descriptor)
    try:
        if sock.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTOTYPE, "it is a socket, but not a stream socket")
        return _listening(sock, descriptor, settings)
    except OSError:
        sock.detach()  # It stays its owner's: closing it could close something else that we inherited.
        raise


def _bind(address: tuple[str, int] | str, settings: Settings) -> Listener:
    if isinstance(address, str):
        return _bind_unix(address, settings)
    family = socket.AF_INET6 if is_ipv6(address[0]) else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A restart must not wait for the connections of its predecessor in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
        return _listening(sock, address, settings)
    except OSError:
        sock.close()
        raise


def _bind_unix(path: str, settings: Settings) -> Listener:
    is_abstract = path.startswith("\0")
    if not is_abstract:
        _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        old_umask = os.umask(settings.umask)
        try:
            sock.bind(path)
        finally:
            os.umask(old_umask)
        if not is_abstract and (settings.uid, settings.gid) != (os.geteuid(), os.getegid()):
            os.chown(path, settings.uid, settings.gid)
        return _listening(sock, path, settings)
    except OSError:
        sock.close()
        raise


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that is gone; refuse one that answers, and anything that is no socket."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is not a socket is in the way")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # Its queue is full, so somebody listens (unix(7): EAGAIN).
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _listening(sock: socket.socket, address: Address, settings: Settings) -> Listener:
    if sock.family != socket.AF_UNIX:
        # Accepted sockets inherit it on Linux, which saves a system call for each connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    sock.set_inheritable(False)
    # A second listen() on a socket of systemd's can be denied by SELinux, and would change its queue.
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.listen(settings.backlog)
    return Listener(sock, address, scheme="https" if settings.is_ssl else "http")
