"""HTTP/2, which this version does not serve: the settings are known, and refused unless they ask for nothing."""

from __future__ import annotations

from bicorn.config.setting import Absent, Options, Setting
from bicorn.config.values import COUNT, HTTP2_CLEARTEXT, HTTP_PROTOCOLS, POSITIVE, bounded

HTTP2 = Absent("HTTP/2")

# RFC 9113, sections 4.2 and 6.9.1.
FRAME_BYTES_MIN, FRAME_BYTES_MAX = 2**14, 2**24 - 1
WINDOW_BYTES_MAX = 2**31 - 1


class HTTP2Options(Options, section="HTTP/2"):
    """Settings of HTTP/2."""

    http_protocols = Setting(
        default=["h1"],
        kind=HTTP_PROTOCOLS,
        cli=("--http-protocols",),
        default_text="h1",
        absent=HTTP2,
        doc="The versions of HTTP, h1 and h2, in order of preference.",
    )
    http2_cleartext = Setting(
        default="off",
        kind=HTTP2_CLEARTEXT,
        cli=("--http2-cleartext",),
        absent=HTTP2,
        doc="How HTTP/2 may begin without TLS.",
    )
    http2_max_concurrent_streams = Setting(
        default=100,
        kind=POSITIVE,
        cli=("--http2-max-concurrent-streams",),
        unit="streams",
        absent=HTTP2,
        doc="How many requests one connection may carry at a time.",
    )
    http2_initial_window_size = Setting(
        default=65535,
        kind=bounded(0, WINDOW_BYTES_MAX),
        cli=("--http2-initial-window-size",),
        unit="bytes",
        absent=HTTP2,
        doc="How much a client may send on a stream before it has to wait.",
    )
    http2_max_frame_size = Setting(
        default=FRAME_BYTES_MIN,
        kind=bounded(FRAME_BYTES_MIN, FRAME_BYTES_MAX),
        cli=("--http2-max-frame-size",),
        unit="bytes",
        absent=HTTP2,
        doc="The largest frame that is accepted.",
    )
    http2_max_header_list_size = Setting(
        default=65536,
        kind=COUNT,
        cli=("--http2-max-header-list-size",),
        unit="bytes",
        absent=HTTP2,
        doc="The largest set of header fields, after decompression. 0 means no limit.",
    )
