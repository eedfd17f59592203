"""What the server adds to responses."""

from __future__ import annotations

from typing import Final

from bicorn.config.kind import Invalid, Kind
from bicorn.config.setting import Options, Setting
from bicorn.config.values import parse_text


def parse_field_value(raw: object) -> str:
    """Read what may stand in a field of a response: printable ASCII (RFC 9110, section 5.5)."""
    text = parse_text(raw)
    if not (text.isascii() and (text.isprintable() or not text)):
        raise Invalid
    return text


FIELD_VALUE: Final = Kind[str](
    name="string",
    allowed="printable ASCII, or the empty string",
    parse=parse_field_value,
    metavar="STRING",
    none_is_default=True,
)


class ResponseOptions(Options, section="Responses", ours=True):
    """Settings of the fields that are not the application's."""

    server_header = Setting(
        default="bicorn",
        kind=FIELD_VALUE,
        cli=("--server-header",),
        precedent="nginx: server_tokens; in Gunicorn a configuration file assigns gunicorn.SERVER, which works as well",
        doc="What stands in the field Server of responses. Empty means that there is no such field.",
    )
