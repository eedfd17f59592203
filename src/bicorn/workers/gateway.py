"""What a WSGI application and the hooks see of a request, as far as Python makes it.

Owns       the constant part of the environ, the error stream in it, and the request and response objects of hooks.
Never      runs once a request, unless a hook or a Python access log asks for that.
Invariant  the template holds every key that a request sets, so that its copy has the room for all of them.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TextIO

from bicorn import __version__
from bicorn._core import EmptyInput, FileWrapper

if TYPE_CHECKING:
    from bicorn.config import Settings
    from bicorn.net.listener import Listener
    from bicorn.workers.base import Worker

#: Settings that say how a request is read; every native driver takes them as they are.
WIRE_SETTINGS: Final = (
    "limit_request_line",
    "limit_request_fields",
    "limit_request_field_size",
    "limit_request_head",
    "limit_request_body",
    "limit_chunk_extension",
    "limit_request_trailers",
    "permit_obsolete_folding",
    "strip_header_spaces",
    "permit_unconventional_http_method",
    "permit_unconventional_http_version",
    "casefold_http_method",
    "header_map",
    "forwarder_headers",
    "forwarded_allow_ips",
    "proxy_protocol",
    "proxy_allow_ips",
    "limit_proxy_header",
)

#: How long an idle keep-alive connection of a draining worker stays open, in seconds: a request that the client sent
#: before it could know is still answered. Longer than a round trip across a continent, shorter than anybody waits for.
DRAIN_IDLE_TIMEOUT_S: Final = 0.2

SERVER_SOFTWARE = f"bicorn/{__version__}"


class ErrorStream(io.TextIOBase):
    """`wsgi.errors`: whatever the error log's handlers write to."""

    def __init__(self, errorlog: str | None) -> None:
        super().__init__()
        handlers = logging.getLogger("gunicorn.error").handlers
        streams = [handler.stream for handler in handlers if isinstance(handler, logging.StreamHandler)]
        # Not handler by handler at each write: an application may attach one that writes here.
        self._streams: list[TextIO] = streams or ([sys.stderr] if errorlog == "-" else [])

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for stream in self._streams:
            stream.write(text)
            stream.flush()
        return len(text)


def environ_template(cfg: Settings, listener: Listener, errors: ErrorStream, *, multithread: bool) -> dict[str, Any]:
    """The environ of a request that came in on `listener`, as far as it is known before the request (PEP 3333)."""
    host, port = server_name(listener)
    return {
        "wsgi.errors": errors,
        "wsgi.version": (1, 0),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": cfg.workers > 1,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        "wsgi.input_terminated": True,
        "SERVER_SOFTWARE": SERVER_SOFTWARE,
        "wsgi.input": EmptyInput(),
        "gunicorn.socket": None,
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": "",
        "RAW_URI": "",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "",
        # The peer of a unix socket has no port, and then the key is not there either.
        **({} if is_nameless(listener) else {"REMOTE_PORT": ""}),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "PATH_INFO": "",
        "SCRIPT_NAME": "",
        "wsgi.early_hints": None,
    }


def is_nameless(listener: Listener) -> bool:
    """Whether the listener is a unix socket, whose name and port only a request's Host tells."""
    return not isinstance(listener.getsockname(), tuple)


def server_name(listener: Listener) -> tuple[str, str]:
    """SERVER_NAME and SERVER_PORT of requests that came in on `listener`."""
    address = listener.getsockname()
    if isinstance(address, tuple):
        return address[0], str(address[1])
    return address if isinstance(address, str) else "", ""


@dataclass
class Request:
    """A request as pre_request, post_request and a Python access log see it; names as in Gunicorn."""

    method: str
    uri: str
    path: str
    query: str
    fragment: str
    version: tuple[int, int]
    headers: list[tuple[str, str]]
    scheme: str
    body: Any  # Any: whatever file wsgi.input is
    remote_addr: tuple[str, int] | str
    trailers: list[tuple[str, str]] = field(default_factory=list)
    proxy_protocol_info: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, environ: dict[str, Any]) -> Request:
        """The request that `environ` was made from."""
        uri = environ["RAW_URI"]
        path, _, query = uri.partition("?")
        major, _, minor = environ["SERVER_PROTOCOL"].removeprefix("HTTP/").partition(".")
        address, port = environ["REMOTE_ADDR"], environ.get("REMOTE_PORT")
        return cls(
            method=environ["REQUEST_METHOD"],
            uri=uri,
            path=path,
            query=query,
            fragment="",
            version=(int(major), int(minor)),
            headers=list(request_fields(environ)),
            scheme=environ["wsgi.url_scheme"],
            body=environ["wsgi.input"],
            remote_addr=(address, int(port)) if port else address,
            proxy_protocol_info=proxy_protocol_info(environ),
        )


def proxy_protocol_info(environ: dict[str, Any]) -> dict[str, Any] | None:
    """What the connection's PROXY header said, under Gunicorn's names; None without one."""
    if "PROXY_PROTOCOL" not in environ:
        return None
    is_relayed = "PROXY_ADDR" in environ
    return {
        "proxy_protocol": environ["PROXY_PROTOCOL"],
        "client_addr": environ["REMOTE_ADDR"] if is_relayed else None,
        "client_port": int(environ["REMOTE_PORT"]) if is_relayed else None,
        "proxy_addr": environ["PROXY_ADDR"] if is_relayed else None,
        "proxy_port": int(environ["PROXY_PORT"]) if is_relayed else None,
    }


def request_fields(environ: dict[str, Any]) -> list[tuple[str, str]]:
    """The request's fields, named in upper case with dashes."""
    fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    for key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if key in environ:
            fields.append((key.replace("_", "-"), environ[key]))
    return fields


@dataclass
class Response:
    """A finished response as post_request and a Python access log see it; names as in Gunicorn."""

    status: str
    headers: list[tuple[str, str]]
    sent: int
    headers_sent: bool = True

    @property
    def status_code(self) -> int:
        """The status as a number."""
        return int(self.status.split(None, 1)[0])

    @property
    def response_length(self) -> int | None:
        """What Content-Length said."""
        return next((int(value) for name, value in self.headers if name.lower() == "content-length"), None)


def show_left(
    worker: Worker, request: Request, environ: dict[str, Any], response: Response, elapsed: timedelta | None
) -> None:
    """Show an answered request to who looks: its access line, `elapsed` being None if that is written elsewhere, and
    `post_request`, which cannot harm it any more.
    """
    if elapsed is not None:
        worker.log.access(response, request, environ, elapsed)
    try:
        worker.cfg.post_request(worker, request, environ, response)
    except Exception:
        worker.log.exception("Exception in post_request hook")
