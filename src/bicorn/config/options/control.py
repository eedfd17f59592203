"""The control interface, which this version does not have."""

from __future__ import annotations

from bicorn.config.setting import Absent, Options, Setting
from bicorn.config.values import FILE_MODE, FLAG, optional_text

CONTROL = Absent("the control interface", unless="control_socket_disable")


class ControlOptions(Options, section="Control"):
    """Settings of the control socket."""

    control_socket = Setting(
        default=None,
        kind=optional_text("PATH"),
        cli=("--control-socket",),
        absent=CONTROL,
        doc="The unix socket of the control interface.",
    )
    control_socket_mode = Setting(
        default=0o600,
        kind=FILE_MODE,
        cli=("--control-socket-mode",),
        default_text="0o600",
        absent=CONTROL,
        doc="The permissions of the control socket.",
    )
    control_socket_disable = Setting(
        default=False,
        kind=FLAG,
        cli=("--no-control-socket",),
        doc="Have no control interface, which is so in this version.",
    )
