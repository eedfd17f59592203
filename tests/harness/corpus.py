"""The corpus as values: what a client sends, and what a whole server makes of it.

Owns       the reading of the expectations, and the step from the parser's view to the environ's.
Never      asks the server under test how something is meant.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import urllib.parse
from pathlib import Path
from typing import Any

CORPUS = Path(__file__).resolve().parent.parent / "wire" / "corpus"


@dataclasses.dataclass(frozen=True)
class Expected:
    """One `[[request]]` of an expectation."""

    method: str
    target: str
    path: str
    query: str
    version: str
    fields: list[str]
    body: str
    keep_alive: bool
    trailers: list[str]
    host: str | None = None
    expects_continue: bool = False
    upgrade: bool = False

    @functools.cached_property
    def environ(self) -> dict[str, str]:
        """The part of the environ that comes from the request alone."""
        environ = {
            "REQUEST_METHOD": self.method,
            "RAW_URI": self.target,
            "PATH_INFO": urllib.parse.unquote_to_bytes(self.path.encode("latin-1")).decode("latin-1"),
            "QUERY_STRING": self.query,
            "SERVER_PROTOCOL": self.version,
        }
        for line in self.fields:
            name, _, value = line.partition(":")
            if "_" not in name:  # header_map = drop
                _add_field(environ, name.upper().replace("-", "_"), value.strip(" \t"))
        if self.host is not None and "://" in self.target:
            environ["HTTP_HOST"] = self.host
        return environ


def _add_field(environ: dict[str, str], name: str, value: str) -> None:
    key = name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"
    separator = "; " if name == "COOKIE" else ","
    environ[key] = f"{environ[key]}{separator}{value}" if key in environ else value


@dataclasses.dataclass(frozen=True)
class CorpusFile:
    """One `.http` file with its expectation."""

    name: str
    data: bytes
    requests: list[Expected]
    settings: tuple[str, ...]
    closes: bool
    pending: bool
    status: int | None
    to_head: bool

    @property
    def is_rejected(self) -> bool:
        """Whether the last answer is a refusal."""
        return self.status is not None

    @property
    def config(self) -> str:
        """Its settings as a configuration file."""
        return "".join(f"{setting.replace('=true', '=True')}\n" for setting in self.settings)


def _parse(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    whole: dict[str, Any] = {}
    requests: list[dict[str, Any]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if line == "[[request]]":
            requests.append({})
        else:
            key, _, value = line.partition("=")
            (requests[-1] if requests else whole)[key.strip()] = json.loads(value)
    return whole, requests


def _read(path: Path) -> CorpusFile:
    whole, requests = _parse(path.with_suffix(".toml").read_text("utf-8"))
    return CorpusFile(
        name=f"{path.parent.name}/{path.stem}",
        data=path.read_bytes(),
        requests=[Expected(**request) for request in requests],
        settings=tuple(whole.get("settings", ())),
        closes=whole["closes"],
        pending=whole.get("pending", False),
        status=whole.get("status"),
        to_head=whole.get("to_head", False),
    )


def corpus_files() -> list[CorpusFile]:
    """Every file, in the order of their numbers."""
    return [_read(path) for path in sorted(CORPUS.glob("*/*.http"))]
