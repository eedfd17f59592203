"""What a running server tells of itself."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import SECONDS


class ObservationOptions(Options, section="Observation", ours=True):
    """Settings of what is looked at while the server runs."""

    slow_request_log = Setting(
        default=0.0,
        kind=SECONDS,
        cli=("--slow-request-log",),
        unit="seconds",
        precedent="PHP-FPM: request_slowlog_timeout, off by default",
        doc="Log a request that has been in the application for this long, while it still runs, with the Python stacks "
        "of its worker: once for a request, and at most once a second for the whole server. 0 means never.",
    )
