"""A real proxy in front of a server: nginx, or HAProxy where the address of the client counts.

Owns       the proxy's process and its configuration file.
Never      picks a port: a socket in the file system, or one that is bound before, is nobody else's.
Invariant  a proxy that is given out accepts connections.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import DEADLINE_S, wait_until

#: One process, which stays in the foreground; `upstream` is the server, keep-alive as its documentation wants it,
#: and WebSockets as docs/how-to/websockets-behind-nginx.md has them.
NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        ''      "";
    }}
    upstream app {{
        server {upstream};
        keepalive 16;
    }}
    server {{
        listen unix:{directory}/front.sock;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
        }}
    }}
}}
"""

#: The frontend's socket is inherited. `unique-id` is one of the TLVs of version 2.
HAPROXY = """
global
    maxconn 100
defaults
    mode http
    timeout connect 10s
    timeout client 30s
    timeout server 30s
    unique-id-format %[uuid()]
frontend front
    bind fd@{fd}
    default_backend app
backend app
    server app {upstream} {words}
"""


class Proxy:
    """nginx, on a unix socket."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = f"unix:{directory}/front.sock"

    @property
    def errors(self) -> str:
        """What it logged."""
        log = self.directory / "error.log"
        return log.read_text() if log.exists() else ""


@contextlib.contextmanager
def nginx(upstream: str) -> Iterator[Proxy]:
    """Run nginx before `upstream`, host:port or unix:path, with connections to it that are kept."""
    # A directory of its own: a test's own one is too long for the address of a unix socket.
    with tempfile.TemporaryDirectory(prefix="nginx-") as path:
        proxy = Proxy(Path(path))
        configuration = NGINX.format(directory=path, upstream=upstream)
        with _running("nginx", ["-c"], configuration, proxy.directory) as process:
            wait_until(lambda: process.poll() is not None or _answers(proxy), lambda: proxy.errors)
            assert process.poll() is None, proxy.errors
            yield proxy


@contextlib.contextmanager
def haproxy(upstream: str, words: str) -> Iterator[socket.socket]:
    """Run HAProxy before `upstream`, host:port; `words` end its server line. Gives the socket on which it listens."""
    with tempfile.TemporaryDirectory(prefix="haproxy-") as path, socket.create_server(("127.0.0.1", 0)) as front:
        configuration = HAPROXY.format(fd=front.fileno(), upstream=upstream, words=words)
        # What connects before it runs waits in the queue.
        with _running("haproxy", ["-db", "-f"], configuration, Path(path), pass_fds=(front.fileno(),)):
            yield front


@contextlib.contextmanager
def _running(
    program: str, arguments: list[str], configuration: str, directory: Path, pass_fds: tuple[int, ...] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    file = directory / "proxy.conf"
    file.write_text(configuration)
    with open(directory / "error.log", "ab") as log:
        process = subprocess.Popen([program, *arguments, str(file)], stdout=log, stderr=log, pass_fds=pass_fds)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(DEADLINE_S)


def _answers(proxy: Proxy) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(proxy.address.removeprefix("unix:")) == 0
