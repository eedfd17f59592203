"""The addresses of `bind`."""

from __future__ import annotations

import pytest
from gunicorn.util import parse_address as gunicorns

from bicorn.config.addresses import parse_address
from bicorn.config.kind import Invalid


@pytest.mark.parametrize(
    "text",
    [
        *("", "127.0.0.1", "127.0.0.1:8000", ":80", "LocalHost:1", "tcp://127.0.0.1:80", "[::1]", "[::1]:80"),
        *("[FE80::1]:80", "unix:/run/x.sock", "unix:///run/x.sock", "unix:x.sock", "fd://3", "example.org:65535"),
        *("unix:\0abstract", "unix:80", "tcp://[::]:80"),
    ],
)
def test_an_address_is_read_as_gunicorn_reads_it(text: str) -> None:
    assert parse_address(text) == gunicorns(text)


@pytest.mark.parametrize(
    "text",
    ["fd://x", "fd://", "fd://-1", "a:b", "a:", "a:-1", "a:65536", "a:1:2", "::1", "[::1", "[::1]80", "a:٣"],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"."):
        parse_address(text)
