"""Where a run took place: the processor, the kernel, the interpreter, the versions, the build.

Owns       the choice of cores and the description that goes into every result file.
Never      changes a setting of the machine.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.servers import BICORN_PYTHON, PEERS_PYTHON, ROOT

# Run inside each environment. Bicorn says of itself how it was built, if this version can.
_DESCRIBE: Final = """
import importlib.metadata, json, platform, sysconfig
build = None
try:
    from bicorn import _core
    build = _core.build_info() if hasattr(_core, "build_info") else None
except ImportError:
    pass
print(json.dumps({
    "python": platform.python_implementation() + " " + platform.python_version(),
    "compiler": platform.python_compiler(),
    "optimised": "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or ""),
    "bicorn_build": build,
    "versions": {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()},
}, default=str))
"""

# What a reader of the report may want to know; the rest of each environment is noise there.
_SERVERS: Final = ("bicorn", "bjoern", "fastwsgi", "fastpysgi", "granian", "uwsgi", "waitress", "gunicorn")
_ASGI_SERVERS: Final = ("uvicorn", "httptools", "websockets", "wsproto", "hypercorn")

# Both sides run these at the same versions.
FRAMEWORKS: Final = ("flask", "django", "fastapi", "starlette", "pydantic", "gevent", "tornado", "uvloop")
_REPORTED: Final = frozenset({*_SERVERS, *_ASGI_SERVERS, *FRAMEWORKS, "eventlet"})

# Some algorithms pace with timers, which every answer pays for, also on the loopback.
_CONGESTION_CONTROL: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")


@dataclass(frozen=True)
class Cores:
    """The server has one core to itself, the load another."""

    server: int
    load: int


@dataclass(frozen=True)
class Environment:
    """One virtual environment, as its own interpreter describes it."""

    python: str
    compiler: str
    optimised: bool  # Profile-guided, as distributions build it.
    versions: dict[str, str]
    bicorn_build: str | None


@dataclass(frozen=True)
class Machine:
    processor: str
    cores_usable: int
    memory_mib: int
    kernel: str
    system: str
    congestion_control: str
    wrk: str
    commit: str
    bicorn: Environment | None
    peers: Environment | None


def cores() -> Cores:
    """The first two cores this process may use."""
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("bench: needs two cores, one for the server and one for wrk; this process may use one")
    return Cores(server=usable[0], load=usable[1])


def describe() -> Machine:
    return Machine(
        processor=_processor(),
        cores_usable=len(os.sched_getaffinity(0)),
        memory_mib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        kernel=platform.release(),
        system=_system(),
        congestion_control=_CONGESTION_CONTROL.read_text().strip(),
        wrk=_first_line(["wrk", "--version"]).partition(" [")[0],
        commit=_commit(),
        bicorn=environment(BICORN_PYTHON),
        peers=environment(PEERS_PYTHON),
    )


def environment(python: Path) -> Environment | None:
    """What this interpreter has installed, or None if there is no such environment yet."""
    if not python.exists():
        return None
    found = _describe(python)
    build = found["bicorn_build"]
    return Environment(
        python=found["python"],
        compiler=found["compiler"],
        optimised=found["optimised"],
        versions={name: v for name, v in found["versions"].items() if name in _REPORTED},
        bicorn_build=None if build is None else json.dumps(build),
    )


def installed(python: Path) -> dict[str, str]:
    """The version of everything that an environment holds, by the distribution's name in lower case."""
    return dict(_describe(python)["versions"]) if python.exists() else {}


def _describe(python: Path) -> dict[str, Any]:
    """What _DESCRIBE prints; its values are text but for `versions` and `optimised`."""
    answer = subprocess.run([python, "-c", _DESCRIBE], capture_output=True, text=True, check=True, cwd="/")
    found: dict[str, Any] = json.loads(answer.stdout)
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return platform.system()


def _commit() -> str:
    commit = _first_line(["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"])
    changed = _first_line(
        [
            "git",
            "-C",
            str(ROOT),
            "status",
            "--porcelain",
            "--",
            "native",
            "src",
            "bench",
        ]
    )
    return f"{commit} with uncommitted changes" if changed else commit


def _first_line(command: Sequence[str]) -> str:
    """The first line of what a command prints; wrk prints its version and exits 1."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return (done.stdout or done.stderr).partition("\n")[0].strip()
