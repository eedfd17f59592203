"""The control interface: where `bicornctl` reaches a running server."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import FILE_MODE, FLAG, optional_text


class ControlOptions(Options, section="Control"):
    """Settings of the control socket."""

    control_socket = Setting(
        default=None,
        kind=optional_text("PATH"),
        cli=("--control-socket",),
        default_text="PID.ctl in the first of $RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR/bicorn, /run/user/UID/bicorn, "
        "/run/bicorn (root only) and /tmp/bicorn-UID that can be had",
        doc="The unix socket of the control interface. A name that ends in .ctl is found by `bicornctl --pid`. Where "
        "it cannot be made, the server runs without one.",
    )
    control_socket_mode = Setting(
        default=0o600,
        kind=FILE_MODE,
        cli=("--control-socket-mode",),
        default_text="0o600",
        doc="The permissions of the control socket. Whoever may write to it may stop the server.",
    )
    control_socket_disable = Setting(
        default=False,
        kind=FLAG,
        cli=("--no-control-socket",),
        doc="Have no control interface.",
    )
