"""Makes .venv-bench, the environment that the peers run from, beside the .venv of Bicorn.

Owns       .venv-bench and the system packages that building a peer needs.
Never      touches .venv: it only reads from it which frameworks and loops Bicorn will be measured with.
Invariant  one peer that cannot be installed costs its own rows and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench import machine
from bench.servers import BICORN_PYTHON, PEERS_PYTHON, ROOT

REQUIREMENTS = ROOT / "bench" / "requirements.txt"

# bjoern wants libev's header, uwsgi a C compiler and Python's headers; wrk is the load.
_DEBIAN_PACKAGES = {
    "wrk": Path("/usr/bin/wrk"),
    "libev-dev": Path("/usr/include/ev.h"),
    "build-essential": Path("/usr/bin/cc"),
}


def ensure() -> list[str]:
    """Makes what is missing and says, a line each, what could not be made."""
    troubles = _ensure_packages()
    if not PEERS_PYTHON.exists():
        subprocess.run([_base_python(), "-m", "venv", str(PEERS_PYTHON.parent.parent)], check=True)
    versions = machine.installed(PEERS_PYTHON)
    for requirement in _requirements():
        name, _, version = requirement.partition("==")
        if versions.get(name.lower()) != version:
            troubles += _install(requirement)
    return troubles


def _requirements() -> list[str]:
    """The pins of requirements.txt, with the frameworks at the versions that Bicorn's side has."""
    return _with_versions_of(machine.installed(BICORN_PYTHON), REQUIREMENTS.read_text().splitlines())


def _with_versions_of(versions: Mapping[str, str], lines: Sequence[str]) -> list[str]:
    requirements = []
    for line in lines:
        name = line.partition("==")[0].strip()
        if not name or name.startswith("#"):
            continue
        framework = name in machine.FRAMEWORKS and name in versions
        requirements.append(f"{name}=={versions[name]}" if framework else line.strip())
    return requirements


def _install(requirement: str) -> list[str]:
    print(f"bench: installing {requirement} into .venv-bench", flush=True)
    pip = [
        str(PEERS_PYTHON),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    done = subprocess.run([*pip, requirement], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return []
    last = next(
        (line for line in reversed(done.stderr.splitlines()) if line.strip()),
        "no reason given",
    )
    return [f"{requirement} could not be installed, so it has no rows: {last.strip()}"]


def _ensure_packages() -> list[str]:
    missing = [name for name, proof in _DEBIAN_PACKAGES.items() if not proof.exists()]
    if not missing:
        return []
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print(
            f"bench: installing {', '.join(missing)} from the system's packages",
            flush=True,
        )
        subprocess.run(["apt-get", "update", "-qq"], check=False)
        done = subprocess.run(["apt-get", "install", "-y", "-qq", *missing], check=False)
        if done.returncode == 0:
            return []
    return [f"missing system packages: run `apt-get install {' '.join(missing)}` for all rows"]


def _base_python() -> str:
    """The interpreter that Bicorn's environment was made from, so that both sides run the same CPython."""
    asker = str(BICORN_PYTHON) if BICORN_PYTHON.exists() else sys.executable
    answer = subprocess.run(
        [
            asker,
            "-c",
            "import sys; print(getattr(sys, '_base_executable', sys.executable))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()
