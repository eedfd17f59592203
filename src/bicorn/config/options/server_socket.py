"""Where connections come in."""

from __future__ import annotations

from bicorn.config.setting import EnvironmentDefault, Options, Setting
from bicorn.config.values import COUNT, texts


class ServerSocketOptions(Options, section="Server Socket"):
    """Settings of the listeners."""

    bind = Setting(
        default=["127.0.0.1:8000"],
        kind=texts("ADDRESS"),
        cli=("-b", "--bind"),
        environment=EnvironmentDefault("PORT", lambda port: [f"0.0.0.0:{port}"]),
        default_text="127.0.0.1:8000, or 0.0.0.0:$PORT",
        doc="The address to listen on: HOST, HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N. May be given several "
        "times; a comma does not separate addresses.",
    )
    backlog = Setting(
        default=2048,
        kind=COUNT,
        cli=("--backlog",),
        unit="connections",
        doc="How many connections the kernel may hold that nobody has accepted yet. The kernel caps it at "
        "net.core.somaxconn.",
    )
