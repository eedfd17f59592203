"""Requests whose environ is compared with Gunicorn's: for each set of settings, names and bytes.

Owns       the requests and nothing else; what becomes of them is asked of both servers.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Group:
    """One server's settings and the requests that are sent to it."""

    name: str
    cases: dict[str, bytes]
    config: str = ""
    bind: str = "127.0.0.1:0"
    env: dict[str, str] = dataclasses.field(default_factory=dict)


def head(line: str, *fields: str, body: bytes = b"", host: str | None = "www.example:81") -> bytes:
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join([line, *hosts, *fields, "", ""]).encode("latin-1") + body


def get(target: str, *fields: str, host: str | None = "www.example:81") -> bytes:
    return head(f"GET {target} HTTP/1.1", *fields, host=host)


TARGETS = {
    "root": "/",
    "path": "/a/b.c",
    "query": "/a?b=c&d=e",
    "query-empty": "/a?",
    "query-twice": "/a?b?c",
    "query-escaped": "/a?b=%20%C3%A9+c",
    "path-escaped": "/a%20b%2Fc",
    "path-escaped-utf-8": "/caf%C3%A9",
    "path-escaped-latin-1": "/caf%E9",
    "path-escaped-percent": "/100%25",
    "path-escaped-question": "/a%3Fb?c",
    "path-escaped-nul": "/a%00b",
    "path-escaped-lower": "/%c3%a9",
    "path-not-escaped": "/100%",
    "path-half-escaped": "/%4",
    "path-wrongly-escaped": "/%zz%41",
    "path-double-slash": "//a//b",
    "path-double-slash-query": "//a?b",
    "path-triple-slash": "///",
    "path-escaped-slash": "/%2F",
    "path-dots": "/a/../b/./c",
    "path-semicolon": "/a;b=c/d;e",
    "path-colon": "/a:b",
    "path-plus": "/a+b",
    "path-raw-bytes": "/caf\xc3\xa9",
    "query-raw-bytes": "/a?caf\xc3\xa9",
    "path-tilde": "/~a!$&'()*,=@",
    "path-brackets": "/a[b]{c}|d\\e^f`",
    "query-brackets": "/a?b[]=c&d={e}",
    "absolute": "http://other.example/a?b",
    "absolute-port": "http://other.example:8080/a",
    "absolute-bare": "http://other.example",
    "absolute-https": "https://other.example/a",
    "absolute-upper": "HTTP://Other.Example/a",
    "absolute-escaped": "http://other.example/a%20b",
    "fragment": "/a#b",
}

FIELDS: dict[str, tuple[str, ...]] = {
    "field": ("X-One: 1",),
    "field-case": ("x-oNE: 1",),
    "field-empty": ("X-One:",),
    "field-spaces": ("X-One: \t a  b \t ",),
    "field-latin-1": ("X-One: caf\xe9",),
    "field-utf-8": ("X-One: caf\xc3\xa9",),
    "field-repeated": ("X-One: 1", "X-Two: 2", "X-One: 3", "x-one: 4"),
    "field-repeated-empty": ("X-One:", "X-One: 2", "X-One:"),
    "field-repeated-equal": ("X-One: 1", "X-One: 1"),
    "cookie": ("Cookie: a=1; b=2",),
    "cookie-repeated": ("Cookie: a=1", "Cookie: b=2"),
    "content-type": ("Content-Type: text/plain; charset=utf-8",),
    "content-type-repeated": ("Content-Type: text/plain", "Content-Type: text/html"),
    "authorization": ("Authorization: Basic YTpi",),
    "forwarded-for": ("X-Forwarded-For: 10.1.2.3", "X-Real-IP: 10.1.2.3"),
    "forwarded-host": ("X-Forwarded-Host: other.example", "X-Forwarded-Port: 8443", "Forwarded: for=10.1.2.3"),
    "forwarded-proto-https": ("X-Forwarded-Proto: https",),
    "forwarded-proto-http": ("X-Forwarded-Proto: http",),
    "forwarded-proto-upper": ("X-Forwarded-Proto: HTTPS",),
    "forwarded-protocol-ssl": ("X-Forwarded-Protocol: ssl",),
    "forwarded-ssl-on": ("X-Forwarded-Ssl: on",),
    "forwarded-agreeing": ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: on"),
    "forwarded-contradicting": ("X-Forwarded-Proto: https", "X-Forwarded-Ssl: off"),
    "forwarded-repeated": ("X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
    "underscore": ("X_One: 1",),
    "underscore-beside-dash": ("X-One: 1", "X_One: 2"),
    "underscore-host": ("X_Host: 1", "HTTP_HOST: 2", "REMOTE_ADDR: 3"),
    "script-name": ("SCRIPT_NAME: /app",),
    "script-name-lower": ("script_name: /app",),
    "script-name-dash": ("Script-Name: /app",),
    "script-name-wrong": ("SCRIPT_NAME: /other",),
    "script-name-whole": ("SCRIPT_NAME: /app/a",),
    "script-name-empty": ("SCRIPT_NAME:",),
    "path-info": ("PATH_INFO: /elsewhere",),
    "remote-user": ("Remote-User: root", "REMOTE_USER: root"),
    "proxy": ("Proxy: http://evil.example",),
    "connection-keep-alive": ("Connection: keep-alive", "Keep-Alive: timeout=5"),
    "connection-close": ("Connection: close",),
    "te": ("TE: trailers", "Connection: TE"),
    "upgrade-h2c": ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA"),
    "upgrade-websocket": ("Connection: Upgrade", "Upgrade: websocket"),
    "folded": ("X-One: 1\r\n 2",),
    "space-before-colon": ("X-One : 1",),
    "name-odd": ("!#$%&'*+.^`|~: 1",),
    "name-digits": ("123: 1",),
    "value-tab": ("X-One: a\tb",),
    "value-nul": ("X-One: a\x00b",),
    "value-control": ("X-One: a\x01b",),
    "value-del": ("X-One: a\x7fb",),
    "expect-other": ("Expect: miracles",),
}

HOSTS: dict[str, str | None] = {
    "host-port": "a.example:99",
    "host-plain": "a.example",
    "host-empty": "",
    "host-missing": None,
    "host-ipv4": "10.1.2.3:80",
    "host-ipv6": "[2001:db8::1]:8080",
    "host-ipv6-plain": "[2001:db8::1]",
    "host-no-port": "a.example:",
    "host-with-user": "user@a.example",
    "host-with-path": "a.example/b",
    "host-list": "a.example, b.example",
    "host-upper": "A.Example",
}

LINES: dict[str, bytes] = {
    "http-1.0": head("GET /a HTTP/1.0"),
    "http-1.0-without-host": head("GET /a HTTP/1.0", host=None),
    "http-1.2": head("GET /a HTTP/1.2"),
    "http-2.0": head("GET /a HTTP/2.0"),
    "http-0.9": b"GET /a\r\n\r\n",
    "head": head("HEAD /a HTTP/1.1"),
    "options-asterisk": head("OPTIONS * HTTP/1.1"),
    "options-path": head("OPTIONS /a HTTP/1.1"),
    "get-asterisk": head("GET * HTTP/1.1"),
    "connect": head("CONNECT a.example:443 HTTP/1.1"),
    "trace": head("TRACE /a HTTP/1.1"),
    "method-own": head("PURGE /a HTTP/1.1"),
    "method-dash": head("M-SEARCH /a HTTP/1.1"),
    "method-lower": head("get /a HTTP/1.1"),
    "method-two": head("GO /a HTTP/1.1"),
    "method-21": head("A" * 21 + " /a HTTP/1.1"),
    "method-hash": head("A#BC /a HTTP/1.1"),
    "leading-empty-line": b"\r\n" + get("/a"),
    "bare-lf": b"GET /a HTTP/1.1\nHost: a\n\n",
    "two-spaces": head("GET  /a HTTP/1.1"),
    "relative-target": head("GET a HTTP/1.1"),
    "host-twice": get("/a", "Host: b.example"),
}

BODIES: dict[str, bytes] = {
    "body": head("POST /a HTTP/1.1", "Content-Length: 5", body=b"hello"),
    "body-empty": head("POST /a HTTP/1.1", "Content-Length: 0"),
    "body-missing": head("POST /a HTTP/1.1"),
    "body-zeros": head("POST /a HTTP/1.1", "Content-Length: 005", body=b"hello"),
    "body-type": head("PUT /a HTTP/1.1", "content-type: a/b", "content-length: 5", body=b"hello"),
    "body-chunked": head("POST /a HTTP/1.1", "Transfer-Encoding: chunked", body=b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "body-chunked-upper": head("POST /a HTTP/1.1", "Transfer-Encoding: CHUNKED", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "body-chunked-extension": head(
        "POST /a HTTP/1.1", "Transfer-Encoding: chunked", body=b"5;a=b\r\nhello\r\n0\r\n\r\n"
    ),
    "body-chunked-trailers": head(
        "POST /a HTTP/1.1", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\nX-Late: 1\r\n\r\n"
    ),
    "body-chunked-http-1.0": head("POST /a HTTP/1.0", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
    "body-both": head(
        "POST /a HTTP/1.1", "Content-Length: 5", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n"
    ),
    "body-gzip": head("POST /a HTTP/1.1", "Transfer-Encoding: gzip", body=b"x"),
    "body-gzip-chunked": head("POST /a HTTP/1.1", "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "body-identity": head("POST /a HTTP/1.1", "Transfer-Encoding: identity", body=b""),
    "body-length-twice": head("POST /a HTTP/1.1", "Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "body-length-list": head("POST /a HTTP/1.1", "Content-Length: 5, 5", body=b"hello"),
    "body-length-plus": head("POST /a HTTP/1.1", "Content-Length: +5", body=b"hello"),
    "body-get": head("GET /a HTTP/1.1", "Content-Length: 5", body=b"hello"),
    "body-expected": head("POST /a HTTP/1.1", "Content-Length: 5", "Expect: 100-continue", body=b"hello"),
}

ALL = {
    **{name: get(target) for name, target in TARGETS.items()},
    **{name: get("/app/a", *fields) for name, fields in FIELDS.items()},
    **{name: get("/a", host=host) for name, host in HOSTS.items()},
    **LINES,
    **BODIES,
}


def some(*prefixes: str) -> dict[str, bytes]:
    """The cases whose names begin with one of these."""
    return {name: data for name, data in ALL.items() if name.startswith(prefixes)}


TRUST = ("forwarded", "underscore", "script-name", "path-info", "remote-user")

GROUPS = [
    Group("plain", ALL),
    Group("workers", some("root"), config="workers = 2\n"),
    Group("ipv6", some("root", "host", "forwarded-proto"), bind="[::1]:0"),
    Group("unix", some("root", "host", "forwarded-proto", "http-1.0", "script-name"), bind="unix:serve.sock"),
    Group("untrusted", some(*TRUST), config="forwarded_allow_ips = '10.0.0.1'\n"),
    Group("nobody", some(*TRUST), config="forwarded_allow_ips = ''\n"),
    Group("network", some("forwarded"), config="forwarded_allow_ips = '10.0.0.0/8,127.0.0.0/8'\n"),
    Group("other-network", some("forwarded"), config="forwarded_allow_ips = '10.0.0.0/8'\n"),
    Group("everybody", some("forwarded"), config="forwarded_allow_ips = '*'\n"),
    Group("unix-untrusted", some("forwarded", "script-name"), "forwarded_allow_ips = '10.0.0.1'\n", "unix:serve.sock"),
    Group(
        "schemes",
        {
            "own-scheme": get("/", "X-Tls: Yes"),
            "own-scheme-case": get("/", "x-tls: yes"),
            "default-scheme": get("/", "X-Forwarded-Proto: https"),
        },
        config="secure_scheme_headers = {'X-TLS': 'Yes'}\n",
    ),
    Group("map-refuse", some(*TRUST), config="header_map = 'refuse'\n"),
    Group("map-dangerous", some(*TRUST), config="header_map = 'dangerous'\n"),
    Group(
        "map-dangerous-untrusted",
        some(*TRUST),
        config="header_map = 'dangerous'\nforwarded_allow_ips = '10.0.0.1'\n",
    ),
    Group("map-refuse-untrusted", some(*TRUST), config="header_map = 'refuse'\nforwarded_allow_ips = '10.0.0.1'\n"),
    Group("forwarder-own", some(*TRUST), config="forwarder_headers = 'X_ONE,REMOTE_USER'\n"),
    Group("forwarder-all", some(*TRUST), config="forwarder_headers = '*'\n"),
    Group("mounted", some("path", "script-name", "absolute", "options"), env={"SCRIPT_NAME": "/app"}),
    Group("folding", some("folded", "field"), config="permit_obsolete_folding = True\n"),
    Group("header-spaces", some("space-before", "field"), config="strip_header_spaces = True\n"),
    Group("methods", some("method", "head"), config="permit_unconventional_http_method = True\n"),
    Group("casefolded", some("method"), config="casefold_http_method = True\n"),
    Group(
        "methods-casefolded",
        some("method"),
        config="casefold_http_method = permit_unconventional_http_method = True\n",
    ),
    Group("versions", some("http-"), config="permit_unconventional_http_version = True\n"),
]
