"""`python -m bicorn.compat SCRIPT [ARGUMENTS]`: runs a program that embeds Gunicorn, with Bicorn in its place."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from bicorn.compat import namespace

USAGE = "usage: python -m bicorn.compat SCRIPT [ARGUMENTS] | -m MODULE [ARGUMENTS]\n"


def main() -> None:
    """Run a script or a module as the main program."""
    arguments = sys.argv[1:]
    if not arguments or arguments == ["-m"]:
        sys.stderr.write(USAGE)
        sys.exit(2)
    namespace.install()
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        return
    sys.argv = arguments
    # As python does for a script; the directory in which `-m` put us stays behind it.
    sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
