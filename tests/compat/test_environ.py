"""The environ of the same request in Gunicorn and in Bicorn: the same key by key, but for docs/differences.md."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.environ_cases import GROUPS, Group
from harness.answers import Answer, AnswerReader
from harness.server import Kind, Serve, Server

DIFFERENCES = Path(__file__).resolve().parents[2] / "docs" / "differences.md"

#: What differs by its nature, the name of the program and this connection's port: only its type is compared.
OWN = ("SERVER_SOFTWARE", "REMOTE_PORT")

CASES = [(group, name) for group in GROUPS for name in group.cases]

Pair = Callable[[Group], tuple[Server, Server]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Give both servers with the settings of a group."""
    serve = Serve(tmp_path_factory.mktemp("environ"))
    pairs: dict[str, tuple[Server, Server]] = {}

    def start(group: Group, kind: Kind) -> Server:
        return serve("environ_dump:app", config=group.config, bind=group.bind, env=group.env, kind=kind)

    def pair_of(group: Group) -> tuple[Server, Server]:
        if group.name not in pairs:
            pairs[group.name] = start(group, "gunicorn"), start(group, "bicorn")
        return pairs[group.name]

    yield pair_of
    serve.close()


def listed() -> dict[str, list[tuple[str, str, str, str]]]:
    """The rows of the documentation, by case: (groups, key, Gunicorn's value, Bicorn's)."""
    section = DIFFERENCES.read_text("utf-8").partition("### The environ")[2].partition("\n### ")[0]
    rows: dict[str, list[tuple[str, str, str, str]]] = {}
    for line in section.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 5 and cells[0].startswith("`"):
            cases, key, theirs, ours, _ = cells
            for case in re.findall(r"`([^`]+)`", cases):
                group, _, name = case.rpartition("/")
                rows.setdefault(name, []).append((group, key.strip("`"), theirs.strip("`"), ours.strip("`")))
    return rows


LISTED = listed()


def expected_differences(group: Group, case: str) -> dict[str, tuple[str, str]]:
    return {key: (theirs, ours) for wanted, key, theirs, ours in LISTED.get(case, ()) if wanted in ("", group.name)}


@pytest.mark.parametrize(("group", "case"), CASES, ids=[f"{group.name}/{name}" for group, name in CASES])
def test_a_request_has_the_environ_that_gunicorn_gives_it(pair: Pair, group: Group, case: str) -> None:
    theirs, ours = (ask(server, group, group.cases[case]) for server in pair(group))
    if theirs["status"] != ours["status"]:
        theirs, ours = {"status": theirs["status"]}, {"status": ours["status"]}
    found = {key: (theirs.get(key, "-"), ours.get(key, "-")) for key in theirs | ours}
    different = {key: values for key, values in found.items() if values[0] != values[1]}
    assert different == expected_differences(group, case)


#: What a worker that runs several threads says of itself.
OWN_OF_ASGI = ("wsgi.multithread", "gunicorn.socket")

#: A handshake is the asgi worker's to answer, whatever the application is; this one is no good.
HANDSHAKE = "upgrade-websocket"


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Give a server with the sync worker and one with the asgi worker, with the settings of a group."""
    serve = Serve(tmp_path_factory.mktemp("workers"))
    pairs: dict[str, tuple[Server, Server]] = {}

    def start(group: Group, worker: str) -> Server:
        return serve("environ_dump:app", "-k", worker, config=group.config, bind=group.bind, env=group.env)

    def pair_of(group: Group) -> tuple[Server, Server]:
        if group.name not in pairs:
            pairs[group.name] = start(group, "sync"), start(group, "asgi")
        return pairs[group.name]

    yield pair_of
    serve.close()


@pytest.mark.parametrize(
    ("group", "case"),
    [(group, name) for group, name in CASES if name != HANDSHAKE],
    ids=[f"{group.name}/{name}" for group, name in CASES if name != HANDSHAKE],
)
def test_a_request_has_the_same_environ_under_the_asgi_worker(workers: Pair, group: Group, case: str) -> None:
    sync, asgi = (ask(server, group, group.cases[case]) for server in workers(group))
    for key in OWN_OF_ASGI:
        sync.pop(key, None)
        asgi.pop(key, None)
    assert asgi == sync


def ask(server: Server, group: Group, request: bytes) -> dict[str, str]:
    """The environ as texts; of a refusal only its status."""
    address = f"unix:{server.directory / group.bind[5:]}" if group.bind.startswith("unix") else None
    with server.connection(address) as (sock, reader):
        sock.sendall(request)
        answer = final_answer(reader, request)
        if answer.status != 200:
            return {"status": str(answer.status)}
        dump = json.loads(answer.header("X-Environ") or "")
        port = "" if address else str(server.port)
        name = sock.getpeername() if address else ""
    return {
        "status": "200",
        **{key: shown(value, port, str(name)) for key, value in dump.items() if key not in OWN},
        **{key: dump[key][0] for key in OWN if key in dump},
    }


def final_answer(reader: AnswerReader, request: bytes) -> Answer:
    method = request.split(b" ", 1)[0].decode("latin-1")
    answer = reader.read_answer("HEAD" if method in ("HEAD", "CONNECT") else "GET")
    return reader.read_answer() if answer.status == 100 else answer


def shown(value: list[Any], port: str, name: str) -> str:
    """A value as the documentation writes it; this server's own port and socket are called so."""
    if len(value) == 2 and value[0] == "str":
        text = str(value[1])
        return "PORT" if port and text == port else "SOCKET" if name and text == name else json.dumps(text)[1:-1]
    return json.dumps(value)


def test_the_documentation_lists_only_requests_that_are_sent() -> None:
    sent = {name for _, name in CASES} | {f"{group.name}/{name}" for group, name in CASES}
    rows = {f"{group}/{name}" if group else name for name, listed in LISTED.items() for group, *_ in listed}
    assert rows and rows <= sent
