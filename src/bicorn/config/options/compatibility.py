"""What stands in for Gunicorn inside our process."""

from __future__ import annotations

from typing import Final

from bicorn.config.setting import EnvironmentDefault, Options, Setting
from bicorn.config.values import FLAG_OFF

#: What people write to say that a switch is not on.
NOT_ON: Final = ("0", "false", "no", "off")


class CompatibilityOptions(Options, section="Compatibility", ours=True):
    """Settings for code that was written for Gunicorn."""

    gunicorn_namespace = Setting(
        default=True,
        kind=FLAG_OFF,
        cli=("--no-gunicorn-namespace",),
        environment=EnvironmentDefault("BICORN_NO_GUNICORN_NAMESPACE", lambda word: word.lower() in NOT_ON),
        default_text="True, or the contrary of $BICORN_NO_GUNICORN_NAMESPACE",
        precedent="Pillow answers to `import PIL`, the name of the library whose place it took",
        doc="Let `import gunicorn` give Bicorn's own modules inside this process, so that worker classes, loggers and "
        "configurations written for Gunicorn work. The flag turns it off once the configuration has been read, the "
        "environment variable before; what a running server has turned off stays off until it is started again.",
    )
