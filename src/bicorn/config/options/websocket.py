"""WebSockets of the asgi worker: what they may cost, and when a silent client is given up."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import COUNT, SECONDS, choice


class WebSocketOptions(Options, section="WebSocket", ours=True):
    """Settings beside `websocket_max_message_size`, which is Gunicorn's."""

    websocket_compression = Setting(
        default="message",
        kind=choice("off", "message", "connection"),
        cli=("--websocket-compression",),
        precedent="uvicorn and ws keep a window a connection; granian and Gunicorn do not compress",
        doc="How messages are compressed for clients that offer permessage-deflate (RFC 7692). message: each for "
        "itself, so that a silent connection keeps nothing. connection: messages refer to earlier ones, which makes "
        "small ones smaller, and every connection keeps about 350 KiB. off: not at all.",
    )
    websocket_max_queue = Setting(
        default=32,
        kind=COUNT,
        cli=("--websocket-max-queue",),
        unit="messages per connection",
        precedent="uvicorn 32",
        doc="How many messages are decoded before the application receives them. With so many waiting, or 256 KiB of "
        "them, reading stops and the client has to wait. At least one is.",
    )
    websocket_ping_interval = Setting(
        default=20,
        kind=SECONDS,
        cli=("--websocket-ping-interval",),
        unit="seconds",
        precedent="uvicorn 20; nginx closes after 60 without a byte",
        doc="How long a client may be silent before it gets a Ping, which also keeps proxies from closing the "
        "connection. 0 means no Pings.",
    )
    websocket_ping_timeout = Setting(
        default=20,
        kind=SECONDS,
        cli=("--websocket-ping-timeout",),
        unit="seconds",
        precedent="uvicorn 20",
        doc="How long a client may take to answer a Ping, or the close of the connection, before the connection is "
        "cut.",
    )
