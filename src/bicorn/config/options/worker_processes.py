"""How many workers of which class there are, how long they live, and what a request may take."""

from __future__ import annotations

from bicorn.config.callables import CLASS
from bicorn.config.setting import Absent, EnvironmentDefault, Options, Setting
from bicorn.config.values import COUNT, WORKERS, choice


class WorkerProcessesOptions(Options, section="Worker Processes"):
    """Settings of the workers."""

    workers = Setting(
        default=1,
        kind=WORKERS,
        cli=("-w", "--workers"),
        environment=EnvironmentDefault("WEB_CONCURRENCY"),
        default_text="1, or $WEB_CONCURRENCY",
        unit="processes",
        doc='The number of worker processes. "auto" takes two for each CPU that this process may use (its affinity '
        "mask, cut by its cgroup's CPU quota) and one more, at most 64.",
    )
    worker_class = Setting[str | type](
        default="sync",
        kind=CLASS,
        cli=("-k", "--worker-class"),
        doc="The class of the workers: sync, gthread, gevent, eventlet, tornado or asgi, the dotted path of another "
        "one, or (in a configuration file) a class.",
    )
    threads = Setting(
        default=1,
        kind=COUNT,
        cli=("--threads",),
        unit="threads",
        doc="The number of threads of each worker that run the application. More than one turns sync into gthread. An "
        "asgi worker calls a WSGI application in so many threads, 10 if this is not set, and an ASGI one in none.",
    )
    worker_connections = Setting(
        default=1000,
        kind=COUNT,
        cli=("--worker-connections",),
        unit="connections",
        doc="How many clients one worker may serve at a time. A worker that has so many accepts no more until one "
        "leaves. It concerns all classes but sync, which has no use for it.",
    )
    max_requests = Setting(
        default=0,
        kind=COUNT,
        cli=("--max-requests",),
        unit="requests",
        doc="After how many requests a worker is replaced, against leaks of memory. 0 means never.",
    )
    max_requests_jitter = Setting(
        default=0,
        kind=COUNT,
        cli=("--max-requests-jitter",),
        unit="requests",
        doc="The most that is added to max_requests, at random for each worker, so that not all restart at once.",
    )
    timeout = Setting(
        default=30,
        kind=COUNT,
        cli=("-t", "--timeout"),
        unit="seconds",
        doc="How long a worker may be silent before it is aborted and replaced. In a sync worker that is the longest "
        "time for a request. 0 means for ever.",
    )
    graceful_timeout = Setting(
        default=30,
        kind=COUNT,
        cli=("--graceful-timeout",),
        unit="seconds",
        doc="How long a worker may go on with the requests it holds after it was told to stop. Then it is killed.",
    )
    keepalive = Setting(
        default=2,
        kind=COUNT,
        cli=("--keep-alive",),
        unit="seconds",
        doc="How long an idle connection is kept for its next request.",
    )
    asgi_loop = Setting(
        default="auto",
        kind=choice("auto", "asyncio", "uvloop"),
        cli=("--asgi-loop",),
        doc="The event loop of the asgi worker. auto is uvloop where it is installed.",
    )
    asgi_lifespan = Setting(
        default="auto",
        kind=choice("auto", "on", "off"),
        cli=("--asgi-lifespan",),
        doc="Whether the application gets the lifespan events of ASGI. auto asks the application.",
    )
    asgi_disconnect_grace_period = Setting(
        default=3,
        kind=COUNT,
        cli=("--asgi-disconnect-grace-period",),
        unit="seconds",
        doc="How long the application may go on with a request after its client has left; then its task is cancelled.",
    )
    websocket_max_message_size = Setting(
        default=16 * 1024 * 1024,
        kind=COUNT,
        cli=("--websocket-max-message-size",),
        unit="bytes",
        doc="The longest WebSocket message, after decompression; a longer one is answered by a close with 1009. 0 "
        "means no limit.",
    )
    http_parser = Setting(
        default="auto",
        kind=choice("auto", "fast", "python"),
        cli=("--http-parser",),
        absent=Absent("a choice of HTTP parsers", "which Bicorn does not offer: one parser serves every worker class"),
        doc="Which HTTP parser is used. Bicorn has one, so only auto is accepted.",
    )
