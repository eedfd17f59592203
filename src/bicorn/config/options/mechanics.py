"""What the processes are to the operating system, and how far a client and a proxy are believed."""

from __future__ import annotations

import os

from bicorn.config.setting import Absent, EnvironmentDefault, Options, Setting
from bicorn.config.values import (
    COMMA_LIST,
    DICT,
    DIRECTORY,
    FILE_MODE,
    FLAG,
    FLAG_OFF,
    GROUP,
    NETWORKS,
    PROXY_PROTOCOL,
    USER,
    choice,
    current_directory,
    optional_text,
    text,
    texts,
)

LOOPBACK = "127.0.0.1,::1"


class ProcessOptions(Options, section="Server Mechanics"):
    """Settings of the processes."""

    preload_app = Setting(
        default=False,
        kind=FLAG,
        cli=("--preload",),
        doc="Load the application once, in a process that the workers are then forked from, so that they share its "
        "memory. A reload loads it anew in another such process.",
    )
    sendfile = Setting(
        default=True,
        kind=FLAG_OFF,
        cli=("--no-sendfile",),
        environment=EnvironmentDefault("SENDFILE", lambda word: word.lower() in ("y", "1", "yes", "true")),
        default_text="True, or $SENDFILE",
        doc="Let the kernel copy files to the socket (wsgi.file_wrapper). The flag turns it off.",
    )
    reuse_port = Setting(
        default=False,
        kind=FLAG,
        cli=("--reuse-port",),
        doc="Let other servers of the same user listen on the same addresses beside this one (SO_REUSEPORT). The "
        "workers of one server share its sockets all the same, so that no connection waits in the queue of a "
        "worker that died.",
    )
    chdir = Setting(
        compute_default=current_directory,
        kind=DIRECTORY,
        cli=("--chdir",),
        default_text="the directory in which the server was started",
        doc="The directory to change to before the application is loaded. It is put at the head of sys.path.",
    )
    daemon = Setting(
        default=False,
        kind=FLAG,
        cli=("-D", "--daemon"),
        doc="Leave the terminal and run in the background. The command returns when the server listens, or fails with "
        "the reason.",
    )
    raw_env = Setting(
        default=[],
        kind=texts("ENV"),
        cli=("-e", "--env"),
        doc="Variables (KEY=VALUE) for the environment of the application. May be given several times.",
    )
    pidfile = Setting(
        default=None,
        kind=optional_text("FILE"),
        cli=("-p", "--pid"),
        doc="The file that the arbiter's process id is written to.",
    )
    worker_tmp_dir = Setting(
        default=None,
        kind=optional_text("DIR"),
        cli=("--worker-tmp-dir",),
        doc="The directory for the temporary file that worker classes written for Gunicorn expect. Heartbeats are "
        "kept in shared memory, so nothing slow happens there.",
    )
    user = Setting(
        compute_default=os.geteuid,
        kind=USER,
        cli=("-u", "--user"),
        default_text="the user who starts the server",
        doc="The user that the workers run as, by id or by name.",
    )
    group = Setting(
        compute_default=os.getegid,
        kind=GROUP,
        cli=("-g", "--group"),
        default_text="the group of who starts the server",
        doc="The group that the workers run as, by id or by name.",
    )
    umask = Setting(
        default=0,
        kind=FILE_MODE,
        cli=("-m", "--umask"),
        doc="The permission bits that unix sockets and files made by the server do not get.",
    )
    initgroups = Setting(
        default=False,
        kind=FLAG,
        cli=("--initgroups",),
        doc="Give the workers all groups of their user.",
    )
    tmp_upload_dir = Setting(
        default=None,
        kind=optional_text("DIR"),
        default_text="the system's directory for temporary files",
        doc="The directory in which request bodies are spooled that are larger than body_buffer_size.",
    )
    pythonpath = Setting(
        default=None,
        kind=optional_text(),
        cli=("--pythonpath",),
        doc="Directories to put on sys.path, with commas between them.",
    )
    paste = Setting(
        default=None,
        kind=optional_text(),
        cli=("--paste", "--paster"),
        doc="A PasteDeploy file to load the application from, as FILE or FILE#SECTION. If it configures logging, it is "
        "the default of logconfig. Needs the extra `paste`.",
    )
    raw_paste_global_conf = Setting(
        default=[],
        kind=texts("CONF"),
        cli=("--paste-global",),
        doc="Variables (KEY=VALUE) of the PasteDeploy configuration. May be given several times.",
    )


class ProxyOptions(Options, section="Server Mechanics"):
    """Settings that say whom to believe."""

    secure_scheme_headers = Setting[dict[str, object]](
        default={"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"},
        kind=DICT,
        doc="Fields, with the value that means https, by which a trusted proxy says how the client came.",
    )
    forwarded_allow_ips = Setting(
        default=LOOPBACK.split(","),
        kind=NETWORKS,
        cli=("--forwarded-allow-ips",),
        environment=EnvironmentDefault("FORWARDED_ALLOW_IPS", empty_is_unset=False),
        default_text=f"{LOOPBACK}, or $FORWARDED_ALLOW_IPS",
        doc="The proxies whose forwarding fields are believed: addresses and networks with commas between them, or "
        "* for all. Peers on a unix socket are always believed.",
    )
    proxy_protocol = Setting(
        default="off",
        kind=PROXY_PROTOCOL,
        cli=("--proxy-protocol",),
        doc="Which version of the PROXY protocol may begin a connection: off, v1 (a line), v2 (binary) or auto, which "
        "is both; the flag alone means auto. The client's address is then REMOTE_ADDR. A connection without the header "
        "is served as what it is, so only let proxies connect that always send it.",
    )
    proxy_allow_ips = Setting(
        default=LOOPBACK.split(","),
        kind=NETWORKS,
        cli=("--proxy-allow-from",),
        doc="The peers that may send a PROXY header, addresses and networks with commas between them, or * for all; "
        "from others it is answered 403. Peers on a unix socket always may. Idle while proxy_protocol is off.",
    )
    protocol = Setting(
        default="http",
        kind=choice("http", "uwsgi"),
        cli=("--protocol",),
        absent=Absent("the uwsgi protocol"),
        doc="The protocol that connections speak.",
    )
    uwsgi_allow_ips = Setting(
        default=LOOPBACK.split(","),
        kind=NETWORKS,
        cli=("--uwsgi-allow-from",),
        doc="The peers that may speak the uwsgi protocol. Idle while protocol is http.",
    )


class LeniencyOptions(Options, section="Server Mechanics"):
    """Settings that let through what the parser otherwise refuses, and how names become environ keys."""

    permit_obsolete_folding = Setting(
        default=False,
        kind=FLAG,
        cli=("--permit-obsolete-folding",),
        doc="Accept a header field that goes on in a second line (obs-fold, RFC 9112 section 5.2).",
    )
    strip_header_spaces = Setting(
        default=False,
        kind=FLAG,
        cli=("--strip-header-spaces",),
        doc="Accept white space between a field's name and its colon. Dangerous behind a proxy that reads it "
        "otherwise.",
    )
    permit_unconventional_http_method = Setting(
        default=False,
        kind=FLAG,
        cli=("--permit-unconventional-http-method",),
        doc="Accept methods with lower case letters or `#`, or shorter than 3 or longer than 20 characters.",
    )
    permit_unconventional_http_version = Setting(
        default=False,
        kind=FLAG,
        cli=("--permit-unconventional-http-version",),
        doc="Accept HTTP/1.x versions other than 1.0 and 1.1.",
    )
    casefold_http_method = Setting(
        default=False,
        kind=FLAG,
        cli=("--casefold-http-method",),
        doc="Turn methods into upper case.",
    )
    forwarder_headers = Setting(
        default=["SCRIPT_NAME", "PATH_INFO"],
        kind=COMMA_LIST,
        cli=("--forwarder-headers",),
        default_text="SCRIPT_NAME,PATH_INFO",
        doc="Fields with underscores in their names that a trusted proxy may set, * for any.",
    )
    header_map = Setting(
        default="drop",
        kind=choice("drop", "refuse", "dangerous"),
        cli=("--header-map",),
        doc="What happens to fields with underscores in their names, which look like others in environ: drop them, "
        "refuse the request with 400, or take them (dangerous).",
    )
    root_path = Setting(
        default="",
        kind=text("STRING"),
        cli=("--root-path",),
        doc="The path below which an ASGI application is mounted: `root_path` of its scopes.",
    )
