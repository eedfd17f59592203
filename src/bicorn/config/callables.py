"""The kinds of values that are code: hooks and classes.

Owns       how a hook is found, whether it can be called with what the server gives it, and how a class is named.
Never      calls a hook, or imports a class that is given by its path: that happens where it is used.
Invariant  a hook that passes here does not fail for its number of parameters later.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, Final

from bicorn.config.kind import Invalid, Kind

Hook = Callable[..., Any]  # Any: what a hook takes depends on the hook, and what it gives back is not used


def takes(function: Hook, count: int) -> bool:
    """Say if a function can be called with that many positional arguments and nothing else."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return True  # Code in C may have no signature to read: believe it.
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def find_callable(raw: object) -> Hook:
    """Take a callable as it is, or import it from "package.module.name"."""
    if isinstance(raw, str):
        module_name, _, name = raw.rpartition(".")
        if not module_name:
            raise Invalid("the name of its module is missing (module.function)")
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the user's module raises while it is imported
            raise Invalid(f"importing {module_name!r} raised {type(error).__name__}: {error}") from error
        if not hasattr(module, name):
            raise Invalid(f"module {module_name!r} has no {name!r}")
        raw = getattr(module, name)
    if not callable(raw):
        raise Invalid("it cannot be called")
    return raw


def hook(*parameters: str) -> Kind[Hook]:
    """Make the kind of a hook that is called with these positional arguments."""

    def parse(raw: object) -> Hook:
        function = find_callable(raw)
        if not takes(function, len(parameters)):
            raise Invalid("it cannot be called with its arguments")
        return function

    names = ", ".join(parameters)
    return Kind[Hook](
        name=f"callable({names})",
        allowed=f'a callable that takes ({names}), or its path "package.module.name"',
        parse=parse,
    )


def parse_post_request(raw: object) -> Hook:
    """Read the one hook that may take two, three or four arguments, and make it take four."""
    function = find_callable(raw)
    if takes(function, 4):
        return function
    if takes(function, 3):
        return lambda worker, req, environ, _resp: function(worker, req, environ)
    if takes(function, 2):
        return lambda worker, req, _environ, _resp: function(worker, req)
    raise Invalid("it cannot be called with 2, 3 or 4 positional arguments")


def parse_class(raw: object) -> str | type:
    """Read a class, its name or path, or a function without parameters that gives the class."""
    if inspect.isfunction(raw) or inspect.ismethod(raw):
        try:
            raw = raw()
        except Exception as error:  # whatever the user's function raises
            raise Invalid(f"calling it raised {type(error).__name__}: {error}") from error
    if inspect.isclass(raw):
        return raw
    if isinstance(raw, str):
        return raw.strip()
    raise Invalid


POST_REQUEST: Final = Kind[Hook](
    name="callable(worker, req, environ, resp)",
    allowed="a callable that takes (worker, req), (worker, req, environ) or (worker, req, environ, resp), "
    'or its path "package.module.name"',
    parse=parse_post_request,
)
CLASS: Final = Kind[str | type](
    name="class or its path",
    allowed="a name, a dotted path, a class, or a function without parameters that returns one",
    parse=parse_class,
    metavar="STRING",
)
