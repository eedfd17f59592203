"""What a listener's address is, and how it is written.

Owns       the text of an address in log lines and errors.
Never      reads one (`config.addresses` does), resolves a name, or opens a socket.
Invariant  what format_address gives is a valid value of `bind`.
"""

from __future__ import annotations

import ipaddress

from bicorn.config.addresses import Address, parse_address

__all__ = ["Address", "format_address", "is_ipv6", "parse_address"]


def format_address(address: Address) -> str:
    """Write an address the way `bind` would."""
    if isinstance(address, int):
        return f"fd://{address}"
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    return f"[{host}]:{port}" if is_ipv6(host) else f"{host}:{port}"


def is_ipv6(host: str) -> bool:
    """Tell whether a host is a literal IPv6 address, with or without a zone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).version == 6
    except ValueError:
        return False
