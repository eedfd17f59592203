"""A real proxy in front of a server: nginx, listening on a unix socket of its own.

Owns       the proxy's process and its configuration file.
Never      picks a port: a socket in the file system is nobody else's.
Invariant  a Proxy that was made accepts connections.
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

#: One process, which stays in the foreground; `upstream` is the server, keep-alive as its documentation wants it.
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
    upstream app {{
        server {upstream};
        keepalive 16;
    }}
    server {{
        listen unix:{directory}/front.sock;
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $host;
        }}
    }}
}}
"""


class Proxy:
    """A proxy that runs."""

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
    with _run("nginx", NGINX.format(directory="{directory}", upstream=upstream), "-c") as proxy:
        yield proxy


@contextlib.contextmanager
def _run(program: str, configuration: str, *arguments: str) -> Iterator[Proxy]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    # A directory of its own: a test's own one is too long for the address of a unix socket.
    with tempfile.TemporaryDirectory(prefix=f"{program}-") as path:
        proxy = Proxy(Path(path))
        file = proxy.directory / "proxy.conf"
        file.write_text(configuration.replace("{directory}", path))
        with open(proxy.directory / "error.log", "ab") as log:
            process = subprocess.Popen([program, *arguments, str(file)], stdout=log, stderr=log)
        try:
            wait_until(lambda: process.poll() is not None or _answers(proxy), lambda: proxy.errors)
            assert process.poll() is None, proxy.errors
            yield proxy
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def _answers(proxy: Proxy) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(proxy.address.removeprefix("unix:")) == 0
