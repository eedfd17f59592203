"""Where a server listens: every kind of address, inherited sockets, and addresses that cannot be had."""

from __future__ import annotations

import os
import signal
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.answers import AnswerReader
from harness.load import load
from harness.server import Serve, Server

Start = Callable[..., Server]


def ask(sock: socket.socket) -> int:
    """Make one request on a connected socket and give the status."""
    sock.settimeout(20)
    sock.sendall(b"GET / HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n\r\n")
    return AnswerReader(sock).read_answer().status


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """Give a directory whose path leaves room in the 107 bytes of a unix socket's address."""
    with tempfile.TemporaryDirectory(prefix="bicorn-") as path:
        yield Path(path)


def test_several_addresses_at_once(start: Start) -> None:
    server = start("hello:app", "-b", "127.0.0.1:0", "-b", "[::1]:0", "-b", "unix:s.sock")
    v4, v6, unix = server.addresses
    assert v4.startswith("http://127.0.0.1:") and v6.startswith("http://[::1]:") and unix == "unix:s.sock"
    assert server.get("/", address=v4).status == server.get("/", address=v6).status == 200
    assert server.get("/", address=f"unix:{os.path.relpath(server.directory / 's.sock')}").status == 200


def test_an_ipv6_any_address_takes_both_families(start: Start) -> None:
    server = start("hello:app", "-b", "[::]:0")
    assert server.addresses[0].startswith("http://[::]:")
    for host in ("127.0.0.1", "::1"):
        with socket.create_connection((host, server.port), 20) as sock:
            assert ask(sock) == 200


def test_a_unix_socket_follows_umask_and_goes_with_the_server(start: Start) -> None:
    server = start("hello:app", "-b", "unix:s.sock", "--umask", "0o077")
    path = server.directory / "s.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert server.stop() == 0
    assert not path.exists()


def test_the_socket_file_of_a_dead_server_is_replaced(start: Start, short_dir: Path) -> None:
    path = short_dir / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = start("hello:app", "-b", f"unix:{path}")
    assert server.get("/").status == 200


def test_a_socket_that_answers_is_not_taken_away(start: Start, short_dir: Path) -> None:
    first = start("hello:app", "-b", f"unix:{short_dir}/s.sock")
    second = start("hello:app", "-b", f"unix:{short_dir}/s.sock", wait=False)
    assert second.wait_exit() == 1
    assert f"cannot listen on unix:{short_dir}/s.sock: Address already in use" in second.log
    assert first.get("/").status == 200


def test_a_file_that_is_no_socket_is_refused(serve: Serve) -> None:
    server = serve("hello:app", "-b", "unix:precious.txt", files={"precious.txt": "mine"}, wait=False)
    assert server.wait_exit() == 1
    assert "is not a socket is in the way" in server.log
    assert (server.directory / "precious.txt").read_text() == "mine"


def test_an_abstract_socket(start: Start) -> None:
    name = f"bicorn-test-{os.getpid()}"
    server = start("hello:app", config=f"bind = 'unix:\\0{name}'\n")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"\0{name}")
        assert ask(sock) == 200
    assert server.addresses == [f"unix:@{name}"]


def test_an_inherited_descriptor(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        fd = listener.fileno()
        server = start("hello:app", "-b", f"fd://{fd}", pass_fds=(fd,))
        assert server.port == listener.getsockname()[1]
        assert server.get("/").status == 200
        assert server.stop() == 0


@pytest.mark.parametrize("what", ["closed", "file", "datagram"])
def test_a_descriptor_that_cannot_listen_is_refused(serve: Serve, what: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram, open(os.devnull) as file:
        fd = {"closed": 99, "file": file.fileno(), "datagram": datagram.fileno()}[what]
        server = serve("hello:app", "-b", f"fd://{fd}", pass_fds=() if what == "closed" else (fd,), wait=False)
        assert server.wait_exit() == 1
    assert f"bicorn: cannot listen on fd://{fd}: " in server.log
    assert "Traceback" not in server.log


def test_socket_activation(serve: Serve) -> None:
    """What systemd does: descriptor 3, LISTEN_FDS, and LISTEN_PID of the very process that runs."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        app = (
            "import os\nfrom hello import app\n"
            "print('left', [name for name in os.environ if name.startswith('LISTEN')], flush=True)\n"
        )
        activate = (
            f"import os, sys\nos.dup2({listener.fileno()}, 3)\n"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'bicorn', *sys.argv[1:]])\n"
        )
        server = serve(
            "mine:app",
            files={"mine.py": app, "activate.py": activate},
            bind=None,
            wait=False,
            launcher=("activate.py",),
            pass_fds=(listener.fileno(),),
        )
        assert server.port == port
        assert server.get("/").status == 200
        server.wait_for_log(r"left \[\]", stream="stdout")
        assert server.stop() == 0
        listener.getsockname()  # still ours


def test_listen_fds_of_another_process_are_left_alone(start: Start) -> None:
    server = start("hello:app", env={"LISTEN_FDS": "1", "LISTEN_PID": "1"})
    assert server.get("/").status == 200


def test_an_address_in_use_is_reported_and_waited_for(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        host, port = other.getsockname()
        server = serve("hello:app", "-b", f"{host}:{port}", wait=False)
        server.wait_for_log(rf"\[ERROR\] Connection in use: \('127.0.0.1', {port}\)")
    assert server.get("/").status == 200


def test_waiting_for_an_address_ends_with_the_signal(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        host, port = other.getsockname()
        server = serve("hello:app", "-b", f"{host}:{port}", wait=False)
        server.wait_for_log("Connection in use")
        server.signal(signal.SIGTERM)
        assert server.wait_exit(3) == 1


def test_an_address_that_stays_in_use_ends_the_server(serve: Serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        host, port = other.getsockname()
        server = serve("hello:app", "-b", f"{host}:{port}", wait=False)
        assert server.wait_exit() == 1
    assert server.log.count("Connection in use") == 5
    assert f"bicorn: cannot listen on {host}:{port}: Address already in use" in server.log
    assert "Traceback" not in server.log


def test_listeners_do_not_reach_programs_that_the_application_starts(start: Start) -> None:
    child = "import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))"
    app = (
        "import subprocess, sys\nfrom hello import app\n"
        f"command = [sys.executable, '-c', {child!r}]\n"
        "print('descriptors', subprocess.check_output(command, close_fds=False, text=True), flush=True)\n"
    )
    server = start("mine:app", files={"mine.py": app})
    # 0, 1, 2, and the directory that is being listed.
    server.wait_for_log(r"descriptors \[0, 1, 2, 3\]", stream="stdout")


def test_two_servers_share_an_address_with_reuse_port(start: Start) -> None:
    first = start("hello:app", "-w", "2", "--reuse-port")
    second = start("hello:app", "--reuse-port", "-b", f"127.0.0.1:{first.port}")
    second.wait_for_workers(1)
    old = first.wait_for_workers(2)
    with load(first) as traffic:
        # Workers come and go; their sockets stay, and so does what waits in the queues.
        first.signal(signal.SIGHUP)
        first.wait_for_workers(2, without=old)
        first.signal(signal.SIGTTIN)
        first.wait_for_workers(3)
        first.signal(signal.SIGTTOU)
        first.wait_for_workers(2)
        traffic.wait_for(50)
    assert traffic.failures == []


def test_the_limit_of_open_files_is_raised(serve: Serve) -> None:
    limited = (
        "import resource, runpy\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, 2048))\n"
        "runpy.run_module('bicorn', run_name='__main__')\n"
    )
    app = "import resource\nfrom hello import app\nprint(resource.getrlimit(resource.RLIMIT_NOFILE), flush=True)\n"
    server = serve("mine:app", launcher=("-c", limited), files={"mine.py": app})
    server.wait_for_log("The limit of open files is raised from 256 to 2048")
    server.wait_for_log(r"\(2048, 2048\)", stream="stdout")
