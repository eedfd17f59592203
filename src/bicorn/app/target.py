"""An application's address, `module:expression`, as a value.

Owns       the grammar of APP_MODULE: a module, then a dotted name, then perhaps a call with literal arguments.
Never      imports anything or touches a file.
Invariant  a Target names exactly one attribute path and at most one call; nothing in it is ever evaluated as code.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from bicorn.errors import AppImportError

#: What is looked for when only a module is given. Gunicorn's name comes first, so that no app changes its meaning.
DEFAULT_NAMES = ("application", "app")


@dataclass(frozen=True)
class Call:
    """The arguments of a factory, all of them literals."""

    args: tuple[object, ...]
    kwargs: dict[str, object]


@dataclass(frozen=True)
class Target:
    """One application's address, parsed."""

    uri: str
    module: str
    path: tuple[str, ...]  # attribute names from the module inwards; empty means DEFAULT_NAMES
    call: Call | None

    @property
    def dotted(self) -> str:
        """The attribute path as the user wrote it."""
        return ".".join(self.path)


def parse_target(uri: str) -> Target:
    """Read `module`, `module:name`, `module:dotted.name` or `module:factory(literals)`."""
    module, colon, expression = uri.partition(":")
    if not module or ("/" not in module and not all(module.split("."))):
        raise AppImportError(f"{uri!r} names no module. Write MODULE:NAME, for example 'run:app' or 'package.run:app'.")
    if not colon:
        return Target(uri, module, (), None)
    try:
        node = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise AppImportError(
            f"Cannot read {expression!r} in {uri!r}: after the colon stands a name or a call of a factory, "
            "for example 'run:app' or 'run:create_app()'."
        ) from None
    if isinstance(node, ast.Call):
        return Target(uri, module, _path(node.func, uri), _literals(node, uri))
    return Target(uri, module, _path(node, uri), None)


def _path(node: ast.expr, uri: str) -> tuple[str, ...]:
    """The names of a dotted attribute path."""
    if isinstance(node, ast.Name):
        return (node.id,)
    if isinstance(node, ast.Attribute):
        return (*_path(node.value, uri), node.attr)
    raise AppImportError(
        f"{ast.unparse(node)!r} in {uri!r} is not a name. After the colon stands a dotted name, with at most one call "
        "at its end; anything longer belongs into a function of your own."
    )


def _literals(node: ast.Call, uri: str) -> Call:
    """The arguments of a call, evaluated as literals only."""
    kwargs: dict[str, object] = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise AppImportError(f"'**' in {uri!r} is not supported: name each argument of the factory.")
        kwargs[keyword.arg] = _literal(keyword.value, uri)
    return Call(tuple(_literal(argument, uri) for argument in node.args), kwargs)


def _literal(node: ast.expr, uri: str) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise AppImportError(
            f"{ast.unparse(node)!r} in {uri!r} is not a literal. A factory is called with strings, numbers, True, "
            "False, None, and lists, tuples, dicts or sets of them."
        ) from None
