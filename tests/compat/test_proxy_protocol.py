"""PROXY headers, as Gunicorn takes them, and where the specification is clearer than Gunicorn is."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.answers import Answer, AnswerReader
from harness.proxy import haproxy
from harness.server import DEADLINE_S, Kind, Serve, Server

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
REQUEST = b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n"
#: What a PROXY header decides in an environ.
KEYS = ("REMOTE_ADDR", "REMOTE_PORT", "PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT")

ServerOf = Callable[[Kind, str], Server]


@pytest.fixture(scope="module")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerOf]:
    """Give the server of this kind with this configuration."""
    serve = Serve(tmp_path_factory.mktemp("proxy"))
    servers: dict[tuple[Kind, str], Server] = {}

    def get(kind: Kind, config: str) -> Server:
        if (kind, config) not in servers:
            # Gunicorn's sync worker closes after each answer, so its connections are compared by their first request.
            servers[kind, config] = serve("environ_dump:app", kind=kind, config=config)
        return servers[kind, config]

    yield get
    serve.close()


def binary(command: int, kind: int, block: bytes) -> bytes:
    """A header of version 2."""
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, kind, len(block)) + block


V4 = socket.inet_aton("192.0.2.1") + socket.inet_aton("198.51.100.7") + struct.pack(">HH", 56324, 443)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::2")
    + struct.pack(">HH", 56324, 443)
)

ALIKE = {
    "none": b"",
    "v1-tcp4": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
    "v1-tcp6": b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n",
    "v1-broken": b"PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
    "v1-address": b"PROXY TCP4 192.0.2.999 198.51.100.7 56324 443\r\n",
    "v1-port": b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n",
    "v2-tcp4": binary(1, 0x11, V4),
    "v2-tcp6": binary(1, 0x21, V6),
    "v2-tlv": binary(1, 0x11, V4 + b"\x02\0\x0btest.exampl"),
}


@pytest.mark.parametrize("mode", ["'auto'", "'v1'", "'v2'", "'off'"])
@pytest.mark.parametrize("name", ALIKE)
def test_a_header_is_taken_as_gunicorn_takes_it(server_of: ServerOf, mode: str, name: str) -> None:
    config = f"proxy_protocol = {mode}\n"
    ours, theirs = (ask(server_of(kind, config), ALIKE[name]) for kind in ("bicorn", "gunicorn"))
    assert ours.status == theirs.status
    if ours.status == 200:
        assert seen(ours, name) == seen(theirs, name)


def test_a_wsgi_application_under_the_asgi_worker_sees_what_it_sees_under_sync(serve: Serve) -> None:
    servers = [serve("environ_dump:app", "-k", worker, "--proxy-protocol=auto") for worker in ("sync", "asgi")]
    for name, header in {**ALIKE, **DIRECT}.items():
        sync, asgi = (ask(server, header) for server in servers)
        assert asgi.status == sync.status
        if asgi.status == 200:
            sync_seen, asgi_seen = seen(sync, name), seen(asgi, name)
            if sync_seen["PROXY_PROTOCOL"] in DIRECT:  # The port is the connection's own.
                assert asgi_seen.pop("REMOTE_PORT") and sync_seen.pop("REMOTE_PORT")
            assert asgi_seen == sync_seen


@pytest.mark.parametrize("header", [ALIKE["v1-tcp4"], ALIKE["v2-tcp4"]])
@pytest.mark.parametrize("allowed", ["10.0.0.0/8", "127.0.0.0/8", "*", ""])
def test_only_peers_that_are_allowed_may_send_one(server_of: ServerOf, allowed: str, header: bytes) -> None:
    config = f"proxy_protocol = True\nproxy_allow_ips = {allowed!r}\n"
    ours, theirs = (ask(server_of(kind, config), header) for kind in ("bicorn", "gunicorn"))
    assert ours.status == theirs.status == (200 if allowed in ("127.0.0.0/8", "*") else 403)


#: Accepted, with the connection's own address, because the specification says so.
DIRECT = {
    "UNKNOWN": b"PROXY UNKNOWN\r\n",
    "LOCAL": binary(0, 0, b""),
    "UNSPEC": binary(1, 0, b""),
}


@pytest.mark.parametrize("protocol", DIRECT)
def test_a_header_without_a_client_leaves_the_peers_own_address(server_of: ServerOf, protocol: str) -> None:
    answer = ask(server_of("bicorn", "proxy_protocol = 'auto'\n"), DIRECT[protocol])
    environ = seen(answer, protocol)
    assert environ["REMOTE_ADDR"] == "127.0.0.1" and environ["PROXY_PROTOCOL"] == protocol
    assert environ["PROXY_ADDR"] is environ["PROXY_PORT"] is None


@pytest.mark.parametrize(
    "header",
    [binary(1, 0x41, V4), binary(2, 0x11, V4), binary(1, 0x11, V4[:11]), binary(1, 0x11, V4 + b"\x03\0\x04abcd")],
)
def test_a_binary_header_that_is_wrong_is_the_clients_fault(server_of: ServerOf, header: bytes) -> None:
    assert ask(server_of("bicorn", "proxy_protocol = 'v2'\n"), header).status == 400


def test_a_header_is_as_long_as_its_limit_lets_it_be(server_of: ServerOf) -> None:
    server = server_of("bicorn", "proxy_protocol = 'v2'\nlimit_proxy_header = 100\n")
    assert ask(server, binary(0, 0, bytes(84))).status == 200
    assert ask(server, binary(0, 0, bytes(85))).status == 400


def test_the_client_holds_for_all_requests_of_the_connection_and_in_logs_and_hooks(serve: Serve) -> None:
    config = (
        "proxy_protocol = True\n"
        "def post_request(worker, req, environ, resp):\n"
        "    print('hook', req.remote_addr, req.proxy_protocol_info, flush=True)\n"
    )
    server = serve("environ_dump:app", "--access-logfile", "-", config=config)
    with server.connection() as (sock, reader):
        sock.sendall(ALIKE["v2-tcp4"] + REQUEST + REQUEST)
        for _ in range(2):
            assert seen(reader.read_answer(), "")["REMOTE_ADDR"] == "192.0.2.1"
    server.wait_for_log(r'192\.0\.2\.1 - - .* "GET / HTTP/1\.1" 200', stream="stdout", count=2)
    match = server.wait_for_log(r"hook (.*)", stream="stdout")
    info = "{'proxy_protocol': 'TCP4', 'client_addr': '192.0.2.1', 'client_port': 56324, 'proxy_addr': '198.51.100.7', "
    assert match[1] == f"('192.0.2.1', 56324) {info}'proxy_port': 443}}"


def test_a_unix_socket_may_relay_as_well(serve: Serve) -> None:
    server = serve("environ_dump:app", "--proxy-protocol=v1", bind="unix:s.sock")
    with server.connect(f"unix:{server.directory}/s.sock") as sock:
        sock.sendall(ALIKE["v1-tcp6"] + REQUEST)
        environ = seen(AnswerReader(sock).read_answer(), "")
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("2001:db8::1", "56324")


def test_a_worker_class_that_reads_requests_itself_is_refused(serve: Serve) -> None:
    server = serve("hello:app", "--proxy-protocol", "--workers", "1", "-k", "plain_worker.PlainWorker", wait=False)
    assert server.wait_exit() == 1
    assert "proxy_protocol = 'auto' (--proxy-protocol): the worker class 'plain_worker.PlainWorker'" in server.log


#: The `client` of an ASGI scope, as the body.
CLIENT = (
    "import json\n"
    "async def app(scope, receive, send):\n"
    "    assert scope['type'] == 'http'\n"
    "    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'100')]})\n"
    "    body = json.dumps(scope['client']).encode().ljust(100)\n"
    "    await send({'type': 'http.response.body', 'body': body})\n"
)


def test_the_client_of_an_asgi_scope_is_the_headers_too(serve: Serve) -> None:
    server = serve(
        "mine:app", "-k", "asgi", "--proxy-protocol=auto", "--access-logfile", "-", files={"mine.py": CLIENT}
    )
    clients = {
        ALIKE["v1-tcp4"]: ["192.0.2.1", 56324],
        ALIKE["v2-tcp6"]: ["2001:db8::1", 56324],
        DIRECT["LOCAL"]: None,
        b"": None,
    }
    for header, client in clients.items():
        data = header + REQUEST + REQUEST
        for cut in (0, 3, len(header), len(header) + 5):
            with server.connection() as (sock, reader):
                own = client or list(sock.getsockname())
                sock.sendall(data[:cut])
                # What is sent in two writes need not be read in two; that it is the same is what counts.
                sock.sendall(data[cut:])
                assert [json.loads(reader.read_answer().body) for _ in range(2)] == [own, own]
    server.wait_for_log(r"(?m)^2001:db8::1 - - ", stream="stdout")
    assert ask(server, ALIKE["v1-broken"]).status == 400


def test_the_asgi_worker_asks_who_may_send_one(serve: Serve) -> None:
    arguments = ("-k", "asgi", "--proxy-protocol=v2", "--proxy-allow-from", "10.0.0.0/8")
    server = serve("mine:app", *arguments, files={"mine.py": CLIENT})
    assert ask(server, ALIKE["v2-tcp4"]).status == 403
    assert ask(server, b"").status == 200


def test_every_thread_sees_the_client(serve: Serve) -> None:
    server = serve("environ_dump:app", "-k", "gthread", "--threads", "3", "--proxy-protocol=v2")
    for _ in range(10):
        assert seen(ask(server, ALIKE["v2-tcp4"]), "")["REMOTE_ADDR"] == "192.0.2.1"


@pytest.mark.parametrize("words", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options crc32c,unique-id"])
def test_haproxy_tells_who_the_client_is(server_of: ServerOf, words: str) -> None:
    server = server_of("bicorn", "proxy_protocol = 'auto'\n")
    with (
        haproxy(f"127.0.0.1:{server.port}", words) as front,
        socket.create_connection(front.getsockname(), DEADLINE_S) as sock,
    ):
        sock.sendall(REQUEST)
        environ = seen(AnswerReader(sock).read_answer(), "")
        client_port, front_port = sock.getsockname()[1], front.getsockname()[1]
    assert environ == {
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": str(client_port),
        "PROXY_PROTOCOL": "TCP4",
        "PROXY_ADDR": "127.0.0.1",
        "PROXY_PORT": str(front_port),
    }


def ask(server: Server, header: bytes) -> Answer:
    """One request behind a header."""
    with server.connection() as (sock, reader):
        sock.sendall(header + REQUEST)
        return reader.read_answer()


def seen(answer: Answer, name: str) -> dict[str, Any]:
    """What a PROXY header decides; without one, the port is the connection's own."""
    environ = json.loads(answer.body)
    values = {key: environ[key][1] if key in environ else None for key in KEYS}
    return values if values["PROXY_PROTOCOL"] is not None else {**values, "REMOTE_PORT": name}
