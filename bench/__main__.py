"""The bench on the command line: `python -m bench [run|show|report|…]`; --help lists all."""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from bench import (
    distribution,
    machine,
    peers,
    picture,
    profiling,
    report,
    results,
    rounds,
)
from bench.connections import ExchangeFailed
from bench.results import Failure, Run
from bench.rounds import Plan
from bench.running import ServerFailed
from bench.servers import ROOT, SERVERS
from bench.works import WORKS, Work

WHOLE = (5, 3)  # rounds, seconds
QUICK = (2, 1)


def main(arguments: Sequence[str]) -> None:
    # `python -m bench --quick` means `run`; so does nothing at all.
    named = bool(arguments) and (arguments[0] in _CHORES or arguments[0] in ("-h", "--help"))
    options = _parser().parse_args(arguments if named else ["run", *arguments])
    try:
        _CHORES[options.chore](options)
    except (ServerFailed, ExchangeFailed) as error:
        raise SystemExit(f"bench: the server {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a request costs.")
    chores = parser.add_subparsers(dest="chore", required=True)

    run = chores.add_parser("run", help="measure everything (the default)")
    run.add_argument("--quick", action="store_true", help=f"{QUICK[0]} rounds of {QUICK[1]} s")
    run.add_argument("--rounds", type=int, help=f"rounds of each entrant (default {WHOLE[0]})")
    run.add_argument("--seconds", type=int, help=f"seconds of load a round (default {WHOLE[1]})")
    run.add_argument("--works", type=_names(WORKS), default=list(WORKS), help=", ".join(WORKS))
    _add_servers(run)

    for name, purpose in (
        ("show", "print a run"),
        ("report", "write a run into docs/"),
    ):
        again = chores.add_parser(name, help=f"{purpose} again, by default the newest whole one")
        again.add_argument("file", nargs="?", help="a file of bench/results/")

    _add_servers(chores.add_parser("distribution", help="count the connections of each of four workers"))
    for name, purpose in (
        ("profile", "sample with perf"),
        ("instructions", "count with callgrind"),
    ):
        look = chores.add_parser(name, help=f"{purpose} where a request's time goes")
        look.add_argument("--server", choices=list(SERVERS), default="bicorn")
        look.add_argument("--work", choices=list(WORKS), default="hello")
        look.add_argument("--seconds", type=int, default=5)
    chores.add_parser("setup", help="make .venv-bench with the peers")
    return parser


def _add_servers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--servers",
        type=_names(SERVERS),
        default=list(SERVERS),
        help=", ".join(SERVERS),
    )


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """A comma-separated choice of known names, in their own order."""

    def parse(text: str) -> list[str]:
        asked = text.split(",")
        unknown = [name for name in asked if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [name for name in known if name in asked]

    return parse


def _run(options: argparse.Namespace) -> None:
    troubles = peers.ensure()
    rounds_asked, seconds = QUICK if options.quick else WHOLE
    plan = Plan(options.rounds or rounds_asked, options.seconds or seconds, machine.cores())
    run = Run(_now(), _mode(options), plan.rounds, plan.seconds, machine.describe(), troubles)
    try:
        for key in options.works:
            _measure(run, WORKS[key], options.servers, plan)
        if "hello" in options.works:
            _distribute(run, options.servers)
    except KeyboardInterrupt:
        # What was measured so far is worth showing, but it is not a whole run.
        run.mode = "partial"
    path = run.save()
    print(f"\n{report.terminal(run)}\n\nsaved {path.relative_to(ROOT)}")
    if run.mode == "whole":
        _publish(run, path)


def _measure(run: Run, work: Work, servers: Sequence[str], plan: Plan) -> None:
    entrants = [entrant for entrant in work.entrants if entrant.server in servers]
    outcome = rounds.measure(work, entrants, plan, lambda line: print(line, flush=True))
    run.rounds += outcome.rounds
    run.failures += outcome.failures


def _distribute(run: Run, servers: Sequence[str]) -> None:
    for name in distribution.COMPARED:
        if name in servers:
            try:
                run.distributions.append(distribution.count(name))
            except (ServerFailed, ExchangeFailed) as error:
                run.failures.append(Failure("distribution", name, str(error)))


def _publish(run: Run, path: Path) -> None:
    for drawn in picture.draw(run):
        print(f"drew {drawn.relative_to(ROOT)}")
    report.publish(run, path)
    print(f"wrote {report.DOCUMENT.relative_to(ROOT)}")


def _show(options: argparse.Namespace) -> None:
    print(report.terminal(results.load(_chosen(options))))


def _report(options: argparse.Namespace) -> None:
    path = _chosen(options)
    _publish(results.load(path), path)


def _chosen(options: argparse.Namespace) -> Path:
    return Path(options.file).resolve() if options.file else results.newest()


def _distribution(options: argparse.Namespace) -> None:
    run = Run(_now(), "partial", 0, 0, machine.describe())
    _distribute(run, options.servers)
    print(report.terminal(run))


def _profile(options: argparse.Namespace) -> None:
    print(
        profiling.sample(
            SERVERS[options.server],
            WORKS[options.work],
            options.seconds,
            machine.cores(),
        )
    )


def _instructions(options: argparse.Namespace) -> None:
    print(profiling.count_instructions(SERVERS[options.server], WORKS[options.work], machine.cores()))


def _setup(_: argparse.Namespace) -> None:
    for trouble in peers.ensure():
        print(f"bench: {trouble}")


def _mode(options: argparse.Namespace) -> str:
    if options.works != list(WORKS) or options.servers != list(SERVERS):
        return "partial"
    shorter = options.quick or (options.rounds or WHOLE[0]) < WHOLE[0] or (options.seconds or WHOLE[1]) < WHOLE[1]
    return "quick" if shorter else "whole"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


_CHORES: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "run": _run,
    "show": _show,
    "report": _report,
    "distribution": _distribution,
    "profile": _profile,
    "instructions": _instructions,
    "setup": _setup,
}

if __name__ == "__main__":
    main(sys.argv[1:])
