"""Servers that many corpus files share: one for each worker class and each set of settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from harness.server import Serve, Server

#: Worker classes that the corpus is replayed through.
WORKER_CLASSES = ("sync", "gthread", "gevent", "eventlet", "asgi")

#: What answers with what it saw of a request, by worker class where it is not the WSGI application.
SEEN = {"asgi": "seen_asgi:app"}

#: Replays talk to the server as a client that is nobody's proxy.
NOBODY_IS_TRUSTED = ("--forwarded-allow-ips", "192.0.2.1")

ServerFor = Callable[[str], Server]


@pytest.fixture(scope="module", params=WORKER_CLASSES)
def server_for(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFor]:
    """Give the server with this configuration; at the end every one of them still has its first worker."""
    serve = Serve(tmp_path_factory.mktemp("wire"))
    servers: dict[str, Server] = {}

    def server_with(config: str) -> Server:
        if config not in servers:
            servers[config] = serve(
                SEEN.get(request.param, "seen:app"), "-k", request.param, *NOBODY_IS_TRUSTED, config=config
            )
        return servers[config]

    yield server_with
    restarted = [config for config, server in servers.items() if server.log.count("Booting worker") != 1]
    serve.close()
    assert not restarted, f"a request has ended the worker of the servers with {restarted!r}"
