"""Gunicorn's limits on the head of a request."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import COUNT


class SecurityOptions(Options, section="Security"):
    """Settings that keep a request's head small; limit_request_head bounds the sum of all parts."""

    limit_request_line = Setting(
        default=4094,
        kind=COUNT,
        cli=("--limit-request-line",),
        unit="bytes",
        doc="The longest request line; a longer one is answered 414. 0 leaves it to limit_request_head.",
    )
    limit_request_fields = Setting(
        default=100,
        kind=COUNT,
        cli=("--limit-request-fields",),
        unit="fields",
        doc="The most header fields of a request; more are answered 431.",
    )
    limit_request_field_size = Setting(
        default=8190,
        kind=COUNT,
        # The underscore is Gunicorn's own slip; scripts have it, so it stays.
        cli=("--limit-request-field_size",),
        unit="bytes",
        doc="The longest header field, name and value together; a longer one is answered 431. 0 leaves it to "
        "limit_request_head.",
    )
