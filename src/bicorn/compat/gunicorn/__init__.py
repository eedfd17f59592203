"""`gunicorn`, as third-party code finds it inside a Bicorn process.

Owns       the version of Gunicorn whose surface this is.
Never      holds behaviour: every module here re-exports or adapts something of Bicorn's.
Invariant  a name that is here works; what this version cannot do has no name here.

Needed by configuration files (`import gunicorn; gunicorn.SERVER = "x"`) and by code that asks for the version. What
is assigned to SERVER while the configuration is read becomes the setting server_header; see compat.namespace.
"""

from __future__ import annotations

from bicorn import __version__ as _bicorn_version

version_info = (27, 0, 1)
__version__ = ".".join(map(str, version_info))
SERVER_SOFTWARE = f"bicorn/{_bicorn_version}"


def __getattr__(name: str) -> str:
    # Not a plain constant, so that an assignment can be told from the default.
    if name == "SERVER":
        return "bicorn"
    raise AttributeError(f"module 'gunicorn' (Bicorn's) has no attribute {name!r}")
