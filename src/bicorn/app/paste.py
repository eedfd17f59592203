"""Loading the application that a PasteDeploy file describes.

Owns       the call of PasteDeploy, and the words of its failures.
Never      looks at the server's sections of the file: config.paste does, and gunicorn.app.pasterapp.
Invariant  gives a callable or raises an error that names the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from bicorn.app.importer import AppModuleError, files_of, user_traceback
from bicorn.errors import ConfigError
from bicorn.extras import install_command


def load_paste_app(
    uri: str, name: str | None = None, defaults: Mapping[str, str] | None = None
) -> Callable[..., object]:
    """Give the application of `FILE`, `FILE#SECTION` or `egg:DISTRIBUTION`; `defaults` join its global variables."""
    try:
        from paste.deploy import loadapp
    except ModuleNotFoundError:
        raise ConfigError(
            f"paste: the package PasteDeploy is not installed: {install_command('pastedeploy')}"
        ) from None
    try:
        app: Callable[..., object] = loadapp(
            uri if ":" in uri else f"config:{uri}", name=name, relative_to=os.getcwd(), global_conf=dict(defaults or {})
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the file's factories raise anything
        # Without the frame of this function, which tells nobody anything.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        text = f"{user_traceback(error)}\nCannot load the PasteDeploy application {uri!r}: {type(error).__name__}."
        raise AppModuleError(text, files_of(error)) from None
    if not callable(app):
        raise AppModuleError(
            f"Cannot load the PasteDeploy application {uri!r}: its factory gave {app!r}, not a callable."
        )
    return app
