"""The alias finder: inside this process `import gunicorn` gives `bicorn.compat.gunicorn`.

Owns       one finder on sys.meta_path, and the entries of sys.modules that it made.
Never      writes to site-packages, and never acts in a process that did not ask for it.
Invariant  while it is installed no module of the real Gunicorn can be imported, so no class of one is ever mixed with
           classes of the other; a module has one object, under both of its names.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Final

from bicorn.config.options.compatibility import NOT_ON
from bicorn.config.sources import Layer, Source

if TYPE_CHECKING:
    from bicorn.config import Settings

THEIRS: Final = "gunicorn"
OURS: Final = "bicorn.compat.gunicorn"
VARIABLE: Final = "BICORN_NO_GUNICORN_NAMESPACE"
LATER: Final = "arrives with a later version of Bicorn"
#: Modules that Gunicorn has and this version has not, each with the reason.
ABSENT: Final[Mapping[str, str]] = {
    "gunicorn.workers.base_async": "requests are read by native code, also in gunicorn.workers.ggevent",
    "gunicorn.instrument": f"statsd {LATER}",
    "gunicorn.dirty": f"the pool of task processes {LATER}",
    "gunicorn.debug": f"a trace of every line that runs {LATER}",
    "gunicorn.http": "requests are read by native code that serves every worker class of Bicorn; a worker class that "
    "wants Gunicorn's own parser has to bring one",
    "gunicorn.http2": f"HTTP/2 {LATER}",
    "gunicorn.uwsgi": f"the uwsgi protocol {LATER}",
    "gunicorn.asgi": "connections are handled by native code; see bicorn.workers.asgi for the worker",
    "gunicorn.ctl": f"the control interface {LATER}",
}


class AliasFinder(MetaPathFinder):
    """Answers for `gunicorn` and everything below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the spec of an alias, None for names that are not Gunicorn's, ModuleNotFoundError for what is absent."""
        if fullname != THEIRS and not fullname.startswith(THEIRS + "."):
            return None
        name = OURS + fullname.removeprefix(THEIRS)
        # Not left to the next finder: it could only fail, or find the real one and mix the two.
        found = importlib.util.find_spec(name)
        if found is None:
            raise ModuleNotFoundError(_why_absent(fullname), name=fullname)
        return ModuleSpec(fullname, AliasLoader(name), origin=found.origin)


class AliasLoader(Loader):
    """Gives the module of ours instead of making one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module of ours."""
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def get_code(self, fullname: str) -> CodeType | None:
        """Give the code of the module of ours, for `-m gunicorn.app.wsgiapp`."""
        spec = importlib.util.find_spec(self._name)
        loader = spec.loader if spec is not None else None
        return loader.get_code(self._name) if isinstance(loader, InspectLoader) else None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own spec back: the import system has just put the alias's in its place."""
        module.__spec__ = self._spec


def install() -> None:
    """Put the finder in; modules of the real Gunicorn that were imported before are forgotten."""
    if any(isinstance(finder, AliasFinder) for finder in sys.meta_path):
        return
    _forget_modules()
    # In front of the file system, but behind finders that others have put in front to learn of imports.
    place = sys.meta_path.index(PathFinder) if PathFinder in sys.meta_path else len(sys.meta_path)
    sys.meta_path.insert(place, AliasFinder())


def remove() -> None:
    """Take the finder out; the next `import gunicorn` gives the real one, or fails."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, AliasFinder)]
    _forget_modules()


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Tell whether the environment leaves the namespace on, before any setting can be read."""
    word = environ.get(VARIABLE, "")
    return not word or word.lower() in NOT_ON


def forget_server() -> None:
    """Undo what an earlier reading of the configuration assigned to gunicorn.SERVER."""
    module = sys.modules.get(OURS)
    if module is not None:
        vars(module).pop("SERVER", None)


def with_assigned_server(settings: Settings) -> Settings:
    """Take over what the configuration assigned to gunicorn.SERVER, unless server_header was given itself."""
    assigned = vars(sys.modules[OURS]).get("SERVER") if OURS in sys.modules else None
    if assigned is None or settings.source_of("server_header").layer is not Layer.DEFAULT:
        return settings
    source = Source(Layer.FILE, "gunicorn.SERVER")
    value = settings.declarations()["server_header"].read(assigned, source)
    return settings.made(
        {**settings.values, "server_header": value},
        {**settings.sources, "server_header": source},
        settings.env_orig,
        settings.app_argument,
    )


def _forget_modules() -> None:
    for name in [name for name in sys.modules if name == THEIRS or name.startswith(THEIRS + ".")]:
        del sys.modules[name]


def _why_absent(fullname: str) -> str:
    parts = fullname.split(".")
    for end in range(len(parts), 1, -1):
        reason = ABSENT.get(".".join(parts[:end]))
        if reason is not None:
            return f"{fullname} is not in Bicorn's gunicorn namespace: {reason}"
    return f"{fullname} is not in Bicorn's gunicorn namespace; see docs/reference/custom-workers.md for what is"
