"""Bicorn's own bounds: on memory, on what a client may send, and on how long it may take.

Gunicorn leaves these to a proxy in front, or has them fixed in its code; here each has a name.
"""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import COUNT, SECONDS

KIB = 1024
MIB = 1024 * KIB


class LimitOptions(Options, section="Limits", ours=True):
    """Settings that keep memory and time bounded whatever a client does."""

    body_buffer_size = Setting(
        default=MIB,
        kind=COUNT,
        cli=("--body-buffer-size",),
        unit="bytes",
        precedent="waitress 512 KiB, nginx 8 or 16 KiB",
        doc="The largest request body that is kept in memory. A larger one goes to an unlinked temporary file in "
        "tmp_upload_dir.",
    )
    body_buffer_total = Setting(
        default=64 * MIB,
        kind=COUNT,
        cli=("--body-buffer-total",),
        unit="bytes per worker",
        precedent="64 bodies of the default body_buffer_size",
        doc="The most memory that the request bodies of one worker take together. While it is used up, further bodies "
        "go to files whatever their size.",
    )
    limit_request_body = Setting(
        default=0,
        kind=COUNT,
        cli=("--limit-request-body",),
        unit="bytes",
        precedent="Apache 1 GiB, nginx 1 MiB, Gunicorn none",
        doc="The largest request body; a larger one is answered 413. 0 means no limit, as in Gunicorn.",
    )
    limit_request_head = Setting(
        default=128 * KIB,
        kind=COUNT,
        cli=("--limit-request-head",),
        unit="bytes",
        precedent="nginx 32 KiB, hyper about 400 KiB, Gunicorn about 800 KiB (100 fields of 8190)",
        doc="The largest head of a request, its line and all its fields; a larger one is answered 431.",
    )
    limit_request_trailers = Setting(
        default=8190,
        kind=COUNT,
        cli=("--limit-request-trailers",),
        unit="bytes",
        precedent="one field of limit_request_field_size",
        doc="The most bytes of trailer fields after a chunked body.",
    )
    limit_proxy_header = Setting(
        default=4096,
        kind=COUNT,
        cli=("--limit-proxy-header",),
        unit="bytes",
        precedent="nginx 4096; the specification wants them to fit a TCP segment of 536",
        doc="The longest binary PROXY header (proxy_protocol v2), with what it carries of the client's TLS; a longer "
        "one is answered 400. The line of v1 has its own bound, 107 bytes.",
    )
    limit_chunk_extension = Setting(
        default=256,
        kind=COUNT,
        cli=("--limit-chunk-extension",),
        unit="bytes per chunk",
        precedent="hyper 16 KiB for a whole body",
        doc="The longest extension of one chunk of a body. Nobody uses them, and they cost as much as a body.",
    )
    header_timeout = Setting(
        default=30,
        kind=SECONDS,
        cli=("--header-timeout",),
        unit="seconds",
        precedent="nginx 60, hyper 30, Apache 20 to 40",
        doc="How long the head of a request may take from its first byte, or from the accept for the first request; "
        "then 408. 0 means for ever.",
    )
    body_timeout = Setting(
        default=30,
        kind=SECONDS,
        cli=("--body-timeout",),
        unit="seconds",
        precedent="nginx 60 between two reads, Apache 20",
        doc="How long a client may be silent in the middle of a request body; then 408. 0 means for ever.",
    )
    write_timeout = Setting(
        default=30,
        kind=SECONDS,
        cli=("--write-timeout",),
        unit="seconds",
        precedent="nginx 60 between two writes",
        doc="How long a client may take nothing of its response before the connection is closed. 0 means for ever.",
    )
    open_files = Setting(
        default=65536,
        kind=COUNT,
        cli=("--open-files",),
        unit="descriptors",
        precedent="nginx worker_rlimit_nofile; shells and many containers start with 1024",
        doc="The server raises its limit of open files to this, as far as the hard limit lets it (`ulimit -Hn`), and "
        "says so in the log. A lower number than what is in force changes nothing, so 0 leaves the limit alone.",
    )
    linger_timeout = Setting(
        default=2,
        kind=SECONDS,
        cli=("--linger-timeout",),
        unit="seconds",
        precedent="nginx 5, Apache 2",
        doc="How long a refused client is still read from, so that it gets the answer instead of a reset.",
    )
    access_log_flush_interval = Setting(
        default=100,
        kind=COUNT,
        cli=("--access-log-flush-interval",),
        unit="milliseconds",
        precedent="short enough for tail -f, long enough for a batch",
        doc="How long a line of the access log may wait for others before all are written at once.",
    )
    limit_concurrency = Setting(
        default=0,
        kind=COUNT,
        cli=("--limit-concurrency",),
        unit="requests per worker",
        precedent="uvicorn's setting of this name, unlimited by default",
        doc="How many requests a worker holds at a time, those that wait for a thread included; one more is answered "
        "503 with Retry-After. An answer that waits for its slow reader does not count, but in asgi and tornado. 0 "
        "means no limit, and then worker_connections bounds them.",
    )
    queue_timeout = Setting(
        default=0,
        kind=SECONDS,
        cli=("--queue-timeout",),
        unit="seconds",
        precedent="HAProxy timeout queue, Heroku's router 30",
        doc="How long a request may have waited for its turn, in the listen queue, in its socket and in the worker: "
        "after that it is answered 503 with Retry-After, because its client has probably gone. On a unix socket "
        "only the time in the worker is known. 0 means for ever.",
    )
    asgi_read_ahead = Setting(
        default=64 * KIB,
        kind=COUNT,
        cli=("--asgi-read-ahead",),
        unit="bytes per connection",
        precedent="uvicorn 64 KiB, Gunicorn 256 KiB",
        doc="How much of a request body, or of further requests, an asgi worker reads before the application asks for "
        "it. With more than that waiting, the client has to wait, too.",
    )
    lifespan_startup_timeout = Setting(
        default=30,
        kind=SECONDS,
        cli=("--lifespan-startup-timeout",),
        unit="seconds",
        precedent="Gunicorn 30, fixed",
        doc="How long an ASGI application may take to start (lifespan.startup); then the worker fails to boot. 0 means "
        "for ever.",
    )
    lifespan_shutdown_timeout = Setting(
        default=30,
        kind=SECONDS,
        cli=("--lifespan-shutdown-timeout",),
        unit="seconds",
        precedent="Gunicorn 30, fixed",
        doc="How long an ASGI application may take to end (lifespan.shutdown); graceful_timeout bounds it, too. 0 "
        "means no bound of its own.",
    )
