"""What to install for a feature whose package is missing.

Owns       the command that an error names.
Never      installs or imports anything.
Invariant  the command works wherever Bicorn itself came from: it names the package, with the versions that Bicorn's
           own metadata asks for, and not an extra of Bicorn's, which an index would have to know.
"""

from __future__ import annotations

import re


def install_command(package: str) -> str:
    """Give the command that installs a package in a version that Bicorn works with."""
    return f"pip install {_requirement(package)}"


def _requirement(package: str) -> str:
    for requirement in _requirements():
        specifier = requirement.partition(";")[0].strip()
        named = re.match(r"[\w.-]+", specifier)
        if named is not None and named[0].lower() == package.lower():
            return f"'{specifier}'"
    return package


def _requirements() -> list[str]:
    import importlib.metadata  # A tenth of a start, for an error.

    try:
        return importlib.metadata.requires("bicorn") or []
    except importlib.metadata.PackageNotFoundError:  # run from its source, without having been installed
        return []
