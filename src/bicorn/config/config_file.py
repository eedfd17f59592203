"""The configuration file: which one, what it says, and on which line.

Owns       the lookup, the execution of the file as the module `__config__`, and the warning about misspelt names.
Never      converts a value.
Invariant  an error raised by the file reaches the user with the file's own traceback and none of our frames.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType, TracebackType
from typing import Any, Final

from bicorn.config.setting import Setting
from bicorn.config.sources import DEFAULT, Given, Layer, Source
from bicorn.config.spelling import nearest_setting
from bicorn.errors import ConfigError

DEFAULT_FILES: Final = ("bicorn.conf.py", "gunicorn.conf.py")
MODULE_NAME: Final = "__config__"

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Location:
    """A configuration: the path of a file, or the name of a module, as the user wrote it."""

    text: str
    source: Source

    @property
    def module(self) -> str | None:
        """The module of `python:MODULE`."""
        return self.text.removeprefix("python:") if self.text.startswith("python:") else None

    @property
    def path(self) -> str:
        """The path of `PATH` or `file:PATH`."""
        return self.text.removeprefix("file:")


@dataclass
class Names:
    """What the text of a configuration file says about the names it holds."""

    lines: dict[str, list[int]] = field(default_factory=dict)
    imported: set[str] = field(default_factory=set)
    read: set[str] = field(default_factory=set)
    star_lines: list[int] = field(default_factory=list)

    def bind(self, name: str, line: int, *, certain: bool) -> None:
        """Note that a line binds a name; one that always runs makes earlier lines unimportant."""
        self.lines[name] = [line] if certain else [*self.lines.get(name, []), line]


def locate(given: Iterable[Given | None]) -> Location | None:
    """Find the configuration: the first that was given, else a file of the usual name in the working directory."""
    for candidate in given:
        text = str(candidate.raw).strip() if candidate is not None else ""
        if candidate is not None and text:
            return Location(text, candidate.source)
    for name in DEFAULT_FILES:
        if os.path.exists(name):
            return Location(f"./{name}", DEFAULT.noted(f"{name} in {os.getcwd()}"))
    return None


def read(location: Location, declarations: Mapping[str, Setting[Any]], warn: Warn) -> list[Given]:
    """Execute a configuration and give what it says about settings, with the line of each."""
    module, path = _import_module(location) if location.module else _execute_file(location)
    names = _names_in(path)
    label = location.text if location.module else location.path.removeprefix("./")
    given = []
    for name, raw in vars(module).items():
        if name == "config" and name in names.lines:
            warn(f"config ({_place(label, names, name)}) has no effect inside a configuration; it was not read")
        elif name in declarations:
            given.append(Given(name, raw, Source(Layer.FILE, _place(label, names, name))))
    for message in misspelt(names, label, {name: setting.cli for name, setting in declarations.items()}):
        warn(message)
    return given


def misspelt(names: Names, label: str, flags: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Warn of names that look like a setting's, but are not.

    A name that is imported, begins with an underscore, or is read again by the file is the file's own business.
    """
    for name in names.lines:
        if name.startswith("_") or name in names.imported or name in names.read:
            continue
        meant = nearest_setting(name, flags)
        if meant is not None:
            yield f"{name} ({_place(label, names, name)}) is not a setting and has no effect; did you mean {meant}?"


def _place(label: str, names: Names, name: str) -> str:
    lines = names.lines.get(name) or names.star_lines
    if not lines:
        return label
    return f"{label}, line " + " or line ".join(map(str, lines))


# --- executing -------------------------------------------------------------------------------------------------


def _execute_file(location: Location) -> tuple[ModuleType, str]:
    path = os.path.abspath(location.path)
    try:
        with open(path, "rb") as file:
            source = file.read()
    except OSError as error:
        raise ConfigError(
            f"config = {location.text!r} ({location.source}) cannot be read: {error.strerror} ({path})"
        ) from None
    loader_class = (
        importlib.machinery.SourcelessFileLoader if path.endswith(".pyc") else importlib.machinery.SourceFileLoader
    )
    loader = loader_class(MODULE_NAME, path)
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path, loader=loader)
    assert spec is not None, "a spec that is given its loader is always made"
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module
    try:
        # Compiled here and not by the loader, which would trust a .pyc written within the same second: a reload
        # right after an edit has to see the edit. It also works for names such as gunicorn-cfg.py or app.conf.
        code = loader.get_code(MODULE_NAME) if path.endswith(".pyc") else compile(source, path, "exec")
        assert code is not None, "a module in a file has code"
        exec(code, vars(module))  # noqa: S102  # a configuration file is code, by its users' wish
    except Exception as error:  # noqa: BLE001  # whatever the user's file raises
        raise _failed(location, error, path) from None
    return module, path


def _import_module(location: Location) -> tuple[ModuleType, str]:
    assert location.module is not None, "the caller has looked"
    try:
        if location.module in sys.modules:
            # As at a reload: an import would give the old values back.
            module = importlib.reload(sys.modules[location.module])
        else:
            module = importlib.import_module(location.module)
    except Exception as error:  # noqa: BLE001  # whatever the user's module raises
        raise _failed(location, error, None) from None
    return module, getattr(module, "__file__", None) or ""


def _failed(location: Location, error: Exception, path: str | None) -> ConfigError:
    lines = "".join(traceback.format_exception_only(type(error), error)).splitlines()
    # A syntax error shows its place first, indented; a long message or a note goes on after the cause.
    cause = next(line for line in lines if line and not line[0].isspace())
    tail = _user_frames(error.__traceback__, path)
    trace = "".join(traceback.format_exception(type(error), error, tail)).rstrip()
    return ConfigError(f"config = {location.text!r} ({location.source}) failed: {cause}\n\n{trace}")


def _user_frames(frames: TracebackType | None, path: str | None) -> TracebackType | None:
    """Drop the frames before the file's own: ours, and those of the import system."""
    while frames is not None:
        filename = frames.tb_frame.f_code.co_filename
        ours = filename == __file__ or "importlib" in filename
        if filename == path or not ours:
            return frames
        frames = frames.tb_next
    return None


# --- reading its text ------------------------------------------------------------------------------------------


def _names_in(path: str) -> Names:
    names = Names()
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return names  # A compiled file has no text. Its settings then have a file, and no line.
    for node in tree.body:
        _note_statement(node, names, certain=True)
    for inner in ast.walk(tree):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Load):
            names.read.add(inner.id)
    return names


def _note_statement(node: ast.stmt, names: Names, *, certain: bool) -> None:
    """Note the names that a statement of the module binds; those inside functions and classes are not its own."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        names.bind(node.name, node.lineno, certain=certain)
    elif isinstance(node, (ast.Import, ast.ImportFrom)):
        _note_import(node, names, certain=certain)
    elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if not isinstance(node, ast.AnnAssign) or node.value is not None:
            for target in targets:
                _note_target(target, names, certain=certain and not isinstance(node, ast.AugAssign))
    else:
        _note_block(node, names)


def _note_target(target: ast.expr, names: Names, *, certain: bool) -> None:
    for inner in ast.walk(target):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            names.bind(inner.id, inner.lineno, certain=certain)


def _note_block(node: ast.stmt, names: Names) -> None:
    """Note what the blocks of an if, for, while, with or try bind: it may run or not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            _note_statement(child, names, certain=False)
        elif isinstance(child, (ast.ExceptHandler, ast.match_case)):
            for inner in child.body:
                _note_statement(inner, names, certain=False)


def _note_import(node: ast.Import | ast.ImportFrom, names: Names, *, certain: bool) -> None:
    for alias in node.names:
        if alias.name == "*":
            names.star_lines = [node.lineno]
            continue
        name = alias.asname or alias.name.partition(".")[0]
        names.bind(name, node.lineno, certain=certain)
        names.imported.add(name)
