"""What is logged, where to, and how it looks."""

from __future__ import annotations

import sys

from bicorn.config.callables import CLASS
from bicorn.config.setting import Absent, Options, Setting
from bicorn.config.values import DICT, FLAG, STATSD_HOST, optional_text, text

STATSD = Absent("statsd metrics")

SYSLOG_ADDRESSES = {"darwin": "unix:///var/run/syslog", "freebsd": "unix:///var/run/log"}


class LoggingOptions(Options, section="Logging"):
    """Settings of the error log, the access log, and where else they go."""

    accesslog = Setting(
        default=None,
        kind=optional_text("FILE"),
        cli=("--access-logfile",),
        doc="The file of the access log, - for standard output. None writes no access log.",
    )
    disable_redirect_access_to_syslog = Setting(
        default=False,
        kind=FLAG,
        cli=("--disable-redirect-access-to-syslog",),
        doc="Keep the access log out of syslog.",
    )
    access_log_format = Setting(
        default='%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        kind=text("STRING"),
        cli=("--access-logformat",),
        doc="The format of a line of the access log.",
    )
    errorlog = Setting(
        default="-",
        kind=optional_text("FILE"),
        cli=("--error-logfile", "--log-file"),
        doc="The file of the error log, - for standard error.",
    )
    loglevel = Setting(
        default="info",
        kind=text("LEVEL"),
        cli=("--log-level",),
        doc="The least severe level that the error log holds: debug, info, warning, error or critical.",
    )
    capture_output = Setting(
        default=False,
        kind=FLAG,
        cli=("--capture-output",),
        doc="Send what the application writes to standard output and standard error into the error log.",
    )
    logger_class = Setting[str | type](
        default="bicorn.observe.log.Logger",
        kind=CLASS,
        cli=("--logger-class",),
        doc="The class that writes the logs: a dotted path, or (in a configuration file) a class.",
    )
    logconfig = Setting(
        default=None,
        kind=optional_text("FILE"),
        cli=("--log-config",),
        doc="A file in the format of logging.config.fileConfig.",
    )
    logconfig_dict = Setting[dict[str, object]](
        default={},
        kind=DICT,
        doc="A dict for logging.config.dictConfig. It wins over logconfig_json and logconfig.",
    )
    logconfig_json = Setting(
        default=None,
        kind=optional_text("FILE"),
        cli=("--log-config-json",),
        doc="A JSON file that holds a dict for logging.config.dictConfig. It wins over logconfig.",
    )
    syslog_addr = Setting(
        default=SYSLOG_ADDRESSES.get(sys.platform, "udp://localhost:514"),
        kind=text("SYSLOG_ADDR"),
        cli=("--log-syslog-to",),
        doc="Where syslog listens: udp://HOST:PORT, tcp://HOST:PORT, unix://PATH#dgram or unix://PATH#stream.",
    )
    syslog = Setting(
        default=False,
        kind=FLAG,
        cli=("--log-syslog",),
        doc="Send the logs to syslog.",
    )
    syslog_prefix = Setting(
        default=None,
        kind=optional_text("SYSLOG_PREFIX"),
        cli=("--log-syslog-prefix",),
        doc="The name of the program in syslog. None is the name of the process.",
    )
    syslog_facility = Setting(
        default="user",
        kind=text("SYSLOG_FACILITY"),
        cli=("--log-syslog-facility",),
        doc="The facility of the messages in syslog.",
    )
    enable_stdio_inheritance = Setting(
        default=False,
        kind=FLAG,
        cli=("-R", "--enable-stdio-inheritance"),
        doc="Let a daemon keep standard output and standard error where they were redirected to.",
    )
    statsd_host = Setting(
        default=None,
        kind=STATSD_HOST,
        cli=("--statsd-host",),
        absent=STATSD,
        doc="Where statsd listens: HOST:PORT or unix://PATH.",
    )
    dogstatsd_tags = Setting(
        default="",
        kind=text("DOGSTATSD_TAGS"),
        cli=("--dogstatsd-tags",),
        absent=STATSD,
        doc="Tags (KEY:VALUE, with commas between them) for every metric.",
    )
    statsd_prefix = Setting(
        default="",
        kind=text("STATSD_PREFIX"),
        cli=("--statsd-prefix",),
        absent=STATSD,
        doc="What the names of the metrics begin with.",
    )
    enable_backlog_metric = Setting(
        default=False,
        kind=FLAG,
        cli=("--enable-backlog-metric",),
        absent=STATSD,
        doc="Measure how many connections wait in the listen queue.",
    )
