"""`bicornctl`: chores around an installed Bicorn, and commands to a running one.

Owns       the command line of `bicornctl`, and its exit codes.
Never      does a chore itself.
Invariant  an error is a message on stderr, "bicornctl: …", which says what to do; with --json also JSON on stdout.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from bicorn import __version__
from bicorn.cli import adopt, control
from bicorn.cli.closed_pipe import leave_closed_pipe
from bicorn.errors import BicornError, ExitCode
from bicorn.observe.control_client import ControlClientError
from bicorn.observe.control_protocol import Refused

#: Nobody could be asked, or nobody answered in time: whether the server did what was asked is not known.
EXIT_NO_ANSWER: Final = 3
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT
TIMEOUT_S: Final = 120.0  # longer than any sensible boot_timeout, of which a reload needs one or two
TIMEOUT_MAX_S: Final = 1_000_000  # eleven days; the kernel's own bound depends on the machine


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bicornctl`; the exit code."""
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], str] = arguments.run
    try:
        print(run(arguments), flush=True)
    except Refused as refused:
        return _fail(arguments, refused.code, refused.message, ExitCode.FAILED)
    except ControlClientError as error:
        return _fail(arguments, "no-answer", str(error), EXIT_NO_ANSWER)
    except BicornError as error:
        return _fail(arguments, "failed", str(error), error.exit_code)
    except BrokenPipeError:
        return leave_closed_pipe()
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _fail(arguments, "failed", f"{where}{error.strerror}", ExitCode.FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return ExitCode.OK


def _fail(arguments: argparse.Namespace, code: str, message: str, exit_code: int) -> int:
    if getattr(arguments, "json", False):
        print(json.dumps({"error": {"code": code, "message": message}}), flush=True)
    print(f"bicornctl: {message}", file=sys.stderr)
    return int(exit_code)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bicornctl", description="Commands to a running Bicorn, and chores around an installed one."
    )
    parser.add_argument("-v", "--version", action="version", version=f"%(prog)s (version {__version__})")
    commands = parser.add_subparsers(title="commands", dest="command", required=True)
    _add_control_commands(commands)
    _add_adopt(commands)
    return parser


def _add_control_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    server = _server_options()

    def add(name: str, run: Callable[[argparse.Namespace], str], help_: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_, description=f"{help_[0].upper()}{help_[1:]}.", parents=[server])
        command.set_defaults(run=run)
        return command

    add("status", control.status, "show the server and its workers")
    add("reload", control.reload, "reload configuration and code; fail with the reason if they do not work")
    add(
        "upgrade",
        control.upgrade,
        "replace the arbiter by one of the program as it is now; roll back if that fails",
    )
    stopping = add("stop", control.stop, "stop the server, and wait until it is gone")
    stopping.add_argument("--quick", action="store_true", help="do not finish the requests that are held")
    scaling = add("scale", control.scale, "set the number of workers, until the next reload")
    scaling.add_argument("workers", type=int, metavar="N", help="how many workers there should be")
    stacks = add("stacks", control.stacks, "show the Python stacks of all threads of workers, without stopping them")
    stacks.add_argument("pids", type=int, nargs="*", metavar="PID", help="workers (all of them)")


def _server_options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    which = options.add_mutually_exclusive_group()
    which.add_argument("--socket", metavar="PATH", help="the control socket of the server")
    which.add_argument("--pid", type=int, metavar="PID", help="the pid of its arbiter")
    which.add_argument("--pidfile", metavar="FILE", help="the file that holds that pid")
    options.add_argument("--json", action="store_true", help="print JSON")
    options.add_argument(
        "--timeout", type=_seconds, default=TIMEOUT_S, metavar="SECONDS", help="how long to wait (%(default)g)"
    )
    return options


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds <= TIMEOUT_MAX_S:
        raise argparse.ArgumentTypeError(f"has to be more than 0 and at most {TIMEOUT_MAX_S}, not {text}")
    return seconds


def _add_adopt(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    adopting = commands.add_parser(
        "adopt",
        help="make the command 'gunicorn' of this environment start Bicorn",
        description="Put a 'gunicorn' launcher beside 'bicorn', so that scripts, Dockerfiles and unit files that say "
        "gunicorn start Bicorn unchanged.",
    )
    adopting.add_argument("--undo", action="store_true", help="take the launcher away and restore what it replaced")
    adopting.add_argument(
        "--force", action="store_true", help=f"replace another package's launcher, keeping it as {adopt.BACKUP_NAME}"
    )
    adopting.add_argument(
        "--bin-dir", type=Path, default=adopt.default_bin_dir(), metavar="DIR", help="where commands live (%(default)s)"
    )
    adopting.set_defaults(run=_adopt)


def _adopt(arguments: argparse.Namespace) -> str:
    if arguments.undo:
        return adopt.undo_adopt(arguments.bin_dir)
    return adopt.adopt(arguments.bin_dir, Path(sys.executable), force=arguments.force)


if __name__ == "__main__":
    sys.exit(main())
