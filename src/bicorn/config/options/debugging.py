"""Settings for development and for looking at the configuration."""

from __future__ import annotations

from bicorn.config.setting import Absent, Options, Setting
from bicorn.config.values import FLAG, RELOAD_ENGINE, WATCHED_FILES


class DebuggingOptions(Options, section="Debugging"):
    """Settings that are off in production."""

    reload = Setting(
        default=False,
        kind=FLAG,
        cli=("--reload",),
        doc="Replace the workers when the application's code changes. For development.",
    )
    reload_engine = Setting(
        default="auto",
        kind=RELOAD_ENGINE,
        cli=("--reload-engine",),
        doc="How changes are noticed. auto is watchfiles where it is installed and polling elsewhere; inotify is "
        "another name for watchfiles.",
    )
    reload_extra_files = Setting(
        default=[],
        kind=WATCHED_FILES,
        cli=("--reload-extra-file",),
        doc="Files and patterns that are watched besides the Python modules. May be given several times.",
    )
    spew = Setting(
        default=False,
        kind=FLAG,
        cli=("--spew",),
        absent=Absent("a trace of every line that runs"),
        doc="Trace every line that the server runs.",
    )
    check_config = Setting(
        default=False,
        kind=FLAG,
        cli=("--check-config",),
        doc="Load the configuration and the application, then exit: 0 if all is well, 1 if not.",
    )
    print_config = Setting(
        default=False,
        kind=FLAG,
        cli=("--print-config",),
        doc="Print every setting with its value and where it came from, check as check_config does, and exit.",
    )
