"""The server's end of the control socket, in one process with its clients."""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bicorn.observe.control_path import default_path, directories, find_socket_of, find_sockets
from bicorn.observe.control_protocol import REQUEST_BYTES_MAX, Refused, Request, decode_answer, encode_request
from bicorn.observe.control_socket import CLIENTS_MAX, SILENCE_MAX_S, ControlSocket, ControlSocketError, Reply

STATUS = encode_request(Request("status"))
BIG = {"text": "x" * 4_000_000}  # more than any buffer of a socket


class Echo:
    """Answers at once, later, or with something long."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.later: list[Reply] = []

    def __call__(self, request: Request, reply: Reply) -> None:
        self.asked.append(request.command)
        if request.command == "later":
            self.later.append(reply)
        elif request.command == "refused":
            raise Refused("no", "not this")
        else:
            reply.result(BIG if request.command == "big" else {"command": request.command})


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose path leaves room in sun_path."""
    with tempfile.TemporaryDirectory(prefix="bicorn-") as directory:
        yield Path(directory)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def server(short_dir: Path, echo: Echo) -> Iterator[ControlSocket]:
    made = ControlSocket(echo)
    made.listen(str(short_dir / "s.ctl"), 0o600)
    yield made
    made.close()


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as made:
        yield made


def connect(server: ControlSocket, stack: contextlib.ExitStack) -> socket.socket:
    client = stack.enter_context(socket.socket(socket.AF_UNIX))
    assert server.path is not None
    client.connect(server.path)
    client.setblocking(False)
    return client


def turn(server: ControlSocket, times: int = 5, now: float | None = None) -> None:
    for _ in range(times):
        server.attend(time.monotonic() if now is None else now)


def received(client: socket.socket) -> bytes | None:
    """What has come; None if nothing has, empty at the end."""
    try:
        return client.recv(1 << 20)
    except BlockingIOError:
        return None


def test_requests_are_answered_in_order_on_one_connection(
    server: ControlSocket, stack: contextlib.ExitStack, echo: Echo
) -> None:
    client = connect(server, stack)
    client.send(STATUS + encode_request(Request("other")) + STATUS[:5])
    turn(server, 10)
    lines = (received(client) or b"").splitlines()
    assert [decode_answer(line) for line in lines] == [{"command": "status"}, {"command": "other"}]
    client.send(STATUS[5:])
    turn(server)
    assert decode_answer(received(client) or b"") == {"command": "status"}


def test_a_refusal_is_an_answer(server: ControlSocket, stack: contextlib.ExitStack) -> None:
    client = connect(server, stack)
    for sent in (encode_request(Request("refused")), b"nonsense\n"):
        client.send(sent)
        turn(server)
        with pytest.raises(Refused):
            decode_answer(received(client) or b"")


def test_nothing_is_read_while_an_answer_is_awaited(
    server: ControlSocket, stack: contextlib.ExitStack, echo: Echo
) -> None:
    client = connect(server, stack)
    client.send(encode_request(Request("later")) + STATUS)
    turn(server)
    assert echo.asked == ["later"]
    echo.later[0].result({})
    turn(server)
    assert echo.asked == ["later", "status"]


def test_who_leaves_is_not_waited_for(server: ControlSocket, stack: contextlib.ExitStack, echo: Echo) -> None:
    client = connect(server, stack)
    client.send(encode_request(Request("later")))
    turn(server)
    assert echo.later[0].is_wanted
    client.close()
    turn(server)
    assert not echo.later[0].is_wanted
    echo.later[0].result({})


def test_who_says_that_nothing_more_comes_gets_his_answer(
    server: ControlSocket, stack: contextlib.ExitStack, echo: Echo
) -> None:
    client = connect(server, stack)
    client.send(encode_request(Request("later")))
    client.shutdown(socket.SHUT_WR)
    turn(server)
    assert echo.later[0].is_wanted
    echo.later[0].result({"a": 1})
    turn(server)
    assert decode_answer(received(client) or b"") == {"a": 1}
    assert received(client) == b""


def test_a_request_that_is_too_long_is_refused_and_the_client_goes(
    server: ControlSocket, stack: contextlib.ExitStack, echo: Echo
) -> None:
    client = connect(server, stack)
    client.send(b"x" * (REQUEST_BYTES_MAX + 1))
    turn(server, 10)
    with pytest.raises(Refused, match="at most 8192 bytes"):
        decode_answer(received(client) or b"")
    turn(server)
    assert received(client) == b""
    assert echo.asked == []


def test_who_does_not_read_costs_nobody_anything(server: ControlSocket, stack: contextlib.ExitStack) -> None:
    deaf, other = connect(server, stack), connect(server, stack)
    deaf.send(encode_request(Request("big")))
    turn(server, 10)
    other.send(STATUS)
    turn(server)
    assert decode_answer(received(other) or b"") == {"command": "status"}
    # It is dropped when it has been silent for too long, and then the loop has nothing to wake for but the other.
    turn(server, now=time.monotonic() + SILENCE_MAX_S + 1)
    assert server.wake_at() is None


def test_a_long_answer_arrives_whole(server: ControlSocket, stack: contextlib.ExitStack) -> None:
    client = connect(server, stack)
    client.send(encode_request(Request("big")))
    answer = b""
    while not answer.endswith(b"\n"):
        turn(server, 1)
        answer += received(client) or b""
    assert decode_answer(answer) == BIG


def test_one_client_more_takes_the_place_of_the_most_silent(
    server: ControlSocket, stack: contextlib.ExitStack, echo: Echo
) -> None:
    clients = []
    for _ in range(CLIENTS_MAX):
        clients.append(connect(server, stack))
        turn(server, 1)
    clients[0].send(encode_request(Request("later")))
    turn(server)
    connect(server, stack).send(STATUS)
    turn(server)
    assert received(clients[1]) == b""  # The first one waits for its answer, so the second had to go.
    assert echo.later[0].is_wanted
    assert echo.asked == ["later", "status"]


def test_when_all_wait_for_answers_one_more_is_turned_away(
    server: ControlSocket, stack: contextlib.ExitStack, echo: Echo
) -> None:
    for _ in range(CLIENTS_MAX):
        connect(server, stack).send(encode_request(Request("later")))
        turn(server, 2)
    late = connect(server, stack)
    turn(server)
    assert received(late) == b""
    assert all(reply.is_wanted for reply in echo.later)


def test_a_loop_is_woken_only_when_there_is_something(server: ControlSocket, stack: contextlib.ExitStack) -> None:
    poll = select.poll()
    poll.register(server.fileno(), select.POLLIN)
    assert poll.poll(0) == []
    client = connect(server, stack)
    assert poll.poll(0)
    turn(server)
    assert poll.poll(0) == []
    client.send(encode_request(Request("later")))
    turn(server)
    assert poll.poll(0) == []


def test_without_descriptors_it_rests_instead_of_spinning(server: ControlSocket, stack: contextlib.ExitStack) -> None:
    client = connect(server, stack)
    poll = select.poll()
    poll.register(server.fileno(), select.POLLIN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        turn(server, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert poll.poll(0) == []
    woken_at = server.wake_at()
    assert woken_at is not None
    turn(server, 2, now=woken_at)
    client.send(STATUS)
    turn(server)
    assert decode_answer(received(client) or b"") == {"command": "status"}


# -- the file --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_the_file_has_its_permissions_from_the_first_moment(short_dir: Path, echo: Echo, mode: int) -> None:
    server = ControlSocket(echo)
    server.listen(str(short_dir / "m.ctl"), mode)
    assert (short_dir / "m.ctl").stat().st_mode & 0o777 == mode
    server.close()
    assert list(short_dir.iterdir()) == []


def test_only_a_dead_socket_is_replaced(short_dir: Path, echo: Echo, server: ControlSocket) -> None:
    second = ControlSocket(echo)
    assert server.path is not None
    with pytest.raises(ControlSocketError, match="another server answers there"):
        second.listen(server.path, 0o600)
    (short_dir / "file").touch()
    with pytest.raises(ControlSocketError, match="not a socket"):
        second.listen(str(short_dir / "file"), 0o600)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_dir / "dead.ctl"))
    second.listen(str(short_dir / "dead.ctl"), 0o600)
    second.close()


def test_what_a_successor_took_over_is_not_removed(short_dir: Path, echo: Echo, server: ControlSocket) -> None:
    path = server.path
    assert path is not None
    successor = ControlSocket(echo)
    successor.listen(path, 0o600, take_over=True)
    server.close()
    assert Path(path).exists()
    assert not successor.is_lost
    successor.close()
    assert not Path(path).exists()


def test_a_file_that_vanished_is_noticed(server: ControlSocket) -> None:
    assert not server.is_lost
    assert server.path is not None
    os.unlink(server.path)
    assert server.is_lost


def test_a_place_that_cannot_be_had_says_why(short_dir: Path, echo: Echo) -> None:
    with pytest.raises(ControlSocketError, match=r"cannot listen on .*/nowhere/s.ctl: No such file"):
        ControlSocket(echo).listen(str(short_dir / "nowhere" / "s.ctl"), 0o600)
    with pytest.raises(ControlSocketError, match="too long"):
        ControlSocket(echo).listen(str(short_dir / ("x" * 200)), 0o600)


# -- where it is -----------------------------------------------------------------------------------


def test_the_order_of_the_directories() -> None:
    environ = {"RUNTIME_DIRECTORY": "/run/web:/run/web/more", "XDG_RUNTIME_DIR": "/run/user/5"}
    assert [str(path) for path in directories(environ, 5)] == [
        "/run/web",
        "/run/user/5/bicorn",
        "/run/user/5/bicorn",
        "/tmp/bicorn-5",
    ]
    assert "/run/bicorn" in [str(path) for path in directories({}, 0)]


def test_the_best_directory_is_made_and_named_after_the_process(short_dir: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(short_dir)}
    assert default_path(environ, os.geteuid(), 7) == f"{short_dir}/bicorn/7.ctl"
    assert (short_dir / "bicorn").stat().st_mode & 0o777 == 0o700


def test_a_directory_where_others_can_write_is_not_used(short_dir: Path) -> None:
    (short_dir / "bicorn").mkdir()
    (short_dir / "bicorn").chmod(0o777)
    chosen = default_path({"XDG_RUNTIME_DIR": str(short_dir)}, os.geteuid(), 7)
    assert not chosen.startswith(str(short_dir))
    (short_dir / "bicorn").rmdir()
    (short_dir / "bicorn").symlink_to("/tmp")
    assert not default_path({"XDG_RUNTIME_DIR": str(short_dir)}, os.geteuid(), 7).startswith(str(short_dir))


def test_what_killed_servers_left_is_removed(short_dir: Path) -> None:
    directory = short_dir / "bicorn"
    directory.mkdir(mode=0o700)
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    with socket.socket(socket.AF_UNIX) as dead, socket.socket(socket.AF_UNIX) as alive:
        dead.bind(str(directory / f"{gone}.ctl"))
        alive.bind(str(directory / f"{os.getpid()}.ctl"))  # Not listening yet, but its process is there.
        default_path({"XDG_RUNTIME_DIR": str(short_dir)}, os.geteuid(), 7)
        assert [path.name for path in directory.iterdir()] == [f"{os.getpid()}.ctl"]


def test_servers_are_found(short_dir: Path, echo: Echo) -> None:
    environ = {"XDG_RUNTIME_DIR": str(short_dir)}
    made = []
    for pid in (1, 2):
        server = ControlSocket(echo)
        server.listen(default_path(environ, os.geteuid(), pid), 0o600)
        made.append(server)
    found = find_sockets(environ, os.geteuid())
    assert {path for path in found if short_dir in path.parents} == {short_dir / "bicorn" / f"{n}.ctl" for n in (1, 2)}
    assert find_socket_of(os.getpid()) in found
    for server in made:
        server.close()
    assert not {path for path in find_sockets(environ, os.geteuid()) if short_dir in path.parents}


def test_a_process_without_one_has_none() -> None:
    assert find_socket_of(1) is None
