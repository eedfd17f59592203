"""The bench on the command line: `python -m bench [run|show|report|…]`; --help lists all."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import (
    distribution,
    estimate,
    machine,
    pair,
    peers,
    picture,
    profiling,
    report,
    results,
    rounds,
)
from bench.connections import ExchangeFailed
from bench.load import LoadFailed
from bench.results import Failure, Run
from bench.rounds import Plan
from bench.running import ServerFailed
from bench.servers import ROOT, SERVERS
from bench.works import WORKS, Work

WHOLE: Final = (3, 2)  # rounds, seconds
QUICK: Final = (1, 1)

# Counts connections instead of costs, but is chosen like a work.
DISTRIBUTION: Final = "distribution"
EVERYTHING: Final = (*WORKS, DISTRIBUTION)


def main(arguments: Sequence[str]) -> None:
    # `python -m bench --quick` means `run`; so does nothing at all.
    named = bool(arguments) and (arguments[0] in _CHORES or arguments[0] in ("-h", "--help"))
    options = _parser().parse_args(arguments if named else ["run", *arguments])
    try:
        _CHORES[options.chore](options)
    except (ServerFailed, ExchangeFailed) as error:
        raise SystemExit(f"bench: the server {error}") from None
    except LoadFailed as error:
        raise SystemExit(f"bench: {error}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a request costs.")
    chores = parser.add_subparsers(dest="chore", required=True)

    run = chores.add_parser("run", help="measure everything (the default)")
    run.add_argument("--quick", action="store_true", help=f"{QUICK[0]} rounds of {QUICK[1]} s")
    run.add_argument("--rounds", type=int, help=f"rounds of each entrant (default {WHOLE[0]})")
    run.add_argument("--seconds", type=int, help=f"seconds of load a round (default {WHOLE[1]})")
    run.add_argument("--works", type=_names(EVERYTHING), default=list(EVERYTHING), help=", ".join(EVERYTHING))
    run.add_argument("--servers", type=_names(SERVERS), default=list(SERVERS), help=", ".join(SERVERS))

    for name, purpose in (
        ("show", "print a run"),
        ("report", "write a run into docs/"),
    ):
        again = chores.add_parser(name, help=f"{purpose} again, by default the newest whole one")
        again.add_argument("file", nargs="?", help="a file of bench/results/")

    countable = [work.key for work in WORKS.values() if profiling.is_countable(work)]
    for name, purpose, works in (
        ("profile", "sample with perf", list(WORKS)),
        ("instructions", "count with callgrind", countable),
    ):
        look = chores.add_parser(name, help=f"{purpose} where a request's time goes")
        look.add_argument("--server", choices=list(SERVERS), default="bicorn")
        look.add_argument("--work", choices=works, default="hello")
        look.add_argument("--seconds", type=int, default=5)

    two = chores.add_parser("pair", help="compare two servers, or two checkouts, in short bursts by turns")
    two.add_argument("one", help="a server, or server@checkout, where a checkout is a clone whose `make` has been run")
    two.add_argument("other", help="the same")
    two.add_argument("--work", choices=pair.WORKS, default="hello")
    two.add_argument("--bursts", type=int, default=pair.BURSTS, help=f"of each (default {pair.BURSTS})")
    two.add_argument("--seconds", type=float, default=pair.BURST_S, help=f"a burst (default {pair.BURST_S})")
    chores.add_parser("setup", help="make .venv-bench with the peers")
    return parser


def _names(known: Collection[str]) -> Callable[[str], list[str]]:
    """A comma-separated choice of known names or patterns of them, in their own order."""

    def parse(text: str) -> list[str]:
        asked = text.split(",")
        unknown = [pattern for pattern in asked if not fnmatch.filter(known, pattern)]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [name for name in known if any(fnmatch.fnmatch(name, pattern) for pattern in asked)]

    return parse


def _run(options: argparse.Namespace) -> None:
    troubles = peers.ensure()
    rounds_asked, seconds = QUICK if options.quick else WHOLE
    plan = Plan(options.rounds or rounds_asked, options.seconds or seconds, machine.cores())
    run = Run(_now(), _mode(options), plan.rounds, plan.seconds, machine.describe(), troubles)
    works = [WORKS[key] for key in options.works if key != DISTRIBUTION]
    print(f"bench: this takes about {estimate.minutes(works, options.servers, plan)} min", flush=True)
    try:
        for work in works:
            _measure(run, work, options.servers, plan)
        if DISTRIBUTION in options.works:
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
                run.failures.append(Failure(DISTRIBUTION, name, str(error)))


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


def _pair(options: argparse.Namespace) -> None:
    one, other = pair.server(options.one), pair.server(options.other)
    print(pair.measure(WORKS[options.work], (one, other), options.bursts, options.seconds, machine.cores()))


def _setup(_: argparse.Namespace) -> None:
    for trouble in peers.ensure():
        print(f"bench: {trouble}")


def _mode(options: argparse.Namespace) -> str:
    if options.works != list(EVERYTHING) or options.servers != list(SERVERS):
        return "partial"
    shorter = options.quick or (options.rounds or WHOLE[0]) < WHOLE[0] or (options.seconds or WHOLE[1]) < WHOLE[1]
    return "quick" if shorter else "whole"


def _now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


_CHORES: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "run": _run,
    "show": _show,
    "report": _report,
    "profile": _profile,
    "instructions": _instructions,
    "pair": _pair,
    "setup": _setup,
}

if __name__ == "__main__":
    main(sys.argv[1:])
