"""What the processes are called."""

from __future__ import annotations

from bicorn.config.setting import Options, Setting
from bicorn.config.values import optional_text, text


class ProcessNamingOptions(Options, section="Process Naming"):
    """Settings of the process titles."""

    proc_name = Setting(
        default=None,
        kind=optional_text("STRING"),
        cli=("-n", "--name"),
        default_text="default_proc_name",
        doc="The name in the titles of the processes.",
    )
    default_proc_name = Setting(
        default="bicorn",
        kind=text(),
        doc="The name when proc_name is not given. The server sets it to the application of the command line.",
    )
