"""How addresses are written."""

from __future__ import annotations

import pytest

from bicorn.net.address import Address, format_address, is_ipv6, parse_address


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (("127.0.0.1", 8000), "127.0.0.1:8000"),
        (("::1", 80), "[::1]:80"),
        (("localhost", 0), "localhost:0"),
        ("/run/app.sock", "unix:/run/app.sock"),
        ("\0name", "unix:\0name"),
        (3, "fd://3"),
    ],
)
def test_an_address_is_written_as_bind_reads_it(address: Address, text: str) -> None:
    assert format_address(address) == text
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("host", "expected"),
    [("::1", True), ("::", True), ("fe80::1%eth0", True), ("127.0.0.1", False), ("localhost", False), ("", False)],
)
def test_literal_ipv6_hosts(host: str, expected: bool) -> None:
    assert is_ipv6(host) is expected
