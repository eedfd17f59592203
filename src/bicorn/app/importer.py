"""Loading the application that the user named, and saying why it could not be loaded.

Owns       import of the module, look-up of the name, the call of a factory, and the words of every failure.
Never      shows a frame of ours or of importlib: the first thing the user reads is the cause in their own code.
Invariant  `load_app` returns a callable or raises AppImportError; its exit code is the one Gunicorn ends with.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import ClassVar

from bicorn.app.target import DEFAULT_NAMES, Call, Target, parse_target
from bicorn.errors import AppImportError, ExitCode

_OWN_FILE = __file__
_IMPORTLIB_DIR = str(Path(importlib.__file__).parent)
_SUGGESTIONS_MAX = 3


class AppModuleError(AppImportError):
    """User code ended the load: its module is missing, or it raised.

    Gunicorn ends with 3 here, and with 4 for what it can tell without running anything; process supervisors test both.
    `files` are those of the traceback, so that a reloader can watch what has to be mended.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.WORKER_BOOT_ERROR

    def __init__(self, text: str, files: Iterable[str] = ()) -> None:
        super().__init__(text)
        self.files = tuple(files)


def load_app(uri: str) -> Callable[..., object]:
    """The application at `uri`: `module`, `module:name`, `module:dotted.name` or `module:factory(literals)`."""
    target = parse_target(uri)
    _refuse_path(target)
    module = _import(target)
    found, name = _look_up(module, target)
    app = found if target.call is None else _call_factory(found, target.call, target)
    return _checked(app, module, target, name)


def _refuse_path(target: Target) -> None:
    """A file is not a module; say so before importing `run` as a side effect of importing `run.py`."""
    stem = target.module.removesuffix(".py")
    looks_like_path = "/" in target.module or os.sep in target.module
    if not looks_like_path and not (stem != target.module and Path(target.module).exists()):
        return
    name = target.dotted or _probable_name(Path(f"{stem}.py"))
    dotted = ".".join(part for part in Path(stem).parts if part not in ("/", "."))
    advice = f"Did you mean '{dotted}:{name}'?"
    if ".." in dotted or stem.startswith("/"):
        advice = f"Try --chdir {Path(stem).parent} with '{Path(stem).name}:{name}'."
    raise AppModuleError(f"{target.uri!r} is a file's path; an application is named by its module. {advice}")


def _probable_name(path: Path) -> str:
    """`app` or `application`, whichever the file seems to define; read as text, not executed."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return DEFAULT_NAMES[-1]
    lines = [line.split("=")[0].strip() for line in text.splitlines() if "=" in line and not line[:1].isspace()]
    return next((name for name in DEFAULT_NAMES if name in lines), DEFAULT_NAMES[-1])


def _import(target: Target) -> ModuleType:
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        if _is_missing_target(error, target):
            raise AppModuleError(_missing_module_text(error, target)) from None
        raise _raised(error, target, f"while module {target.module!r} was imported") from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code raises anything
        raise _raised(error, target, f"while module {target.module!r} was imported") from None


def _is_missing_target(error: ModuleNotFoundError, target: Target) -> bool:
    """True if the named module itself is missing, rather than one that it imports."""
    parts = target.module.split(".")
    prefixes = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
    return error.name in prefixes and not user_frames(error)


def _missing_module_text(error: ModuleNotFoundError, target: Target) -> str:
    package, _, rest = target.module.rpartition(".")
    if error.name != target.module.partition(".")[0] and "is not a package" in str(error):
        return (
            f"Cannot load {target.uri!r}: {package!r} is a module, not a package. Did you mean {f'{package}:{rest}'!r}?"
        )
    lines = [f"Cannot load {target.uri!r}: there is no module {error.name!r}."]
    near = _near_modules(target.module)
    if near:
        tail = f":{target.uri.partition(':')[2]}" if ":" in target.uri else ""
        lines.append("Did you mean " + " or ".join(repr(name + tail) for name in near) + "?")
    lines.append(
        f"Looked in {Path.cwd()} and the rest of sys.path; --chdir DIRECTORY or --pythonpath DIRECTORY adds to it."
    )
    return "\n".join(lines)


def _near_modules(wanted: str) -> list[str]:
    """Modules of that name in a package of the working directory, else the one with the nearest name."""
    here = _modules_here()
    inside = [name for name in here if name.endswith(f".{wanted}")]
    return inside[:_SUGGESTIONS_MAX] or difflib.get_close_matches(wanted, here, n=1)


def _modules_here() -> list[str]:
    """Names of modules that the working directory holds, one package deep."""
    try:
        here = Path.cwd()
        files = [*here.glob("*.py"), *here.glob("*/*.py")]
    except OSError:
        return []
    names = (".".join(path.relative_to(here).with_suffix("").parts).removesuffix(".__init__") for path in files[:1000])
    return sorted(set(names))


def _look_up(module: ModuleType, target: Target) -> tuple[object, str]:
    """The object at the target's attribute path, and the name it was found under."""
    if not target.path:
        for name in DEFAULT_NAMES:
            if hasattr(module, name):
                return getattr(module, name), name
        raise AppImportError(_missing_name_text(module, target.module, " or ".join(map(repr, DEFAULT_NAMES)), target))
    found: object = module
    for depth, name in enumerate(target.path):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            if user_frames(error):  # A property or a module's __getattr__ of the user raised it.
                raise _raised(error, target, f"while {name!r} was looked up") from None
            owner = f"{target.module}:{'.'.join(target.path[:depth])}".rstrip(":")
            raise AppImportError(_missing_name_text(found, owner, repr(name), target)) from None
        except Exception as error:  # noqa: BLE001 - user code raises anything
            raise _raised(error, target, f"while {name!r} was looked up") from None
    return found, target.dotted


def _missing_name_text(owner: object, owner_name: str, wanted: str, target: Target) -> str:
    where = getattr(owner, "__file__", None)
    source = f" ({where})" if where else ""
    lines = [f"Cannot load {target.uri!r}: {owner_name!r}{source} has no attribute {wanted}."]
    names = _near_names(owner, target.path[-1] if target.path else DEFAULT_NAMES[-1])
    if names and isinstance(owner, ModuleType):
        lines.append("Did you mean " + " or ".join(repr(f"{target.module}:{name}") for name in names) + "?")
    elif names:
        lines.append("It has " + ", ".join(names) + ".")
    elif isinstance(owner, ModuleType):
        inside = [name for name in _modules_here() if re.fullmatch(rf"{re.escape(target.module)}\.(wsgi|asgi)", name)]
        lines += ["Did you mean " + " or ".join(map(repr, inside)) + "?"] if inside else []
    return "\n".join(lines)


def _near_names(owner: object, wanted: str) -> list[str]:
    """Names in `owner` that the user may have meant: callables with a near name, else those that look like an app."""
    callables = (
        {name: value for name, value in vars(owner).items() if callable(value)} if hasattr(owner, "__dict__") else {}
    )
    public = [name for name in callables if not name.startswith("_")]
    near = difflib.get_close_matches(wanted, public, n=_SUGGESTIONS_MAX)
    if not near:
        near = [name for name in public if "app" in name.lower() and not inspect.isclass(callables[name])]
    return [f"{name}()" if _is_factory(callables[name]) else name for name in near[:_SUGGESTIONS_MAX]]


def _call_factory(factory: object, call: Call, target: Target) -> object:
    if not callable(factory):
        raise AppImportError(
            f"Cannot load {target.uri!r}: {target.dotted!r} is {_kind(factory)}, which cannot be called. "
            f"If it is the application itself, write '{target.module}:{target.dotted}'."
        )
    try:
        app: object = factory(*call.args, **call.kwargs)
    except TypeError as error:
        if user_frames(error):
            raise _raised(error, target, f"while the factory {target.dotted!r} ran") from None
        raise AppImportError(_wrong_arguments_text(factory, error, target)) from None
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code raises anything
        raise _raised(error, target, f"while the factory {target.dotted!r} ran") from None
    return app


def _wrong_arguments_text(factory: Callable[..., object], error: TypeError, target: Target) -> str:
    try:
        shape = f"\nIts signature is {target.dotted}{inspect.signature(factory)}."
    except (TypeError, ValueError):
        shape = ""
    return f"TypeError: {error}\nCannot load {target.uri!r}: the factory does not take these arguments.{shape}"


def _checked(app: object, module: ModuleType, target: Target, name: str) -> Callable[..., object]:
    """`app` itself if it can be an application; otherwise the error that says what it is instead."""
    if app is None and target.call is not None:
        raise AppImportError(
            f"Cannot load {target.uri!r}: the factory {name!r} returned None. Does it lack a 'return app'?"
        )
    if inspect.iscoroutine(app):
        app.close()  # Python would warn that nobody awaited it.
        raise AppImportError(
            f"Cannot load {target.uri!r}: the factory {name!r} is asynchronous, and no loop runs yet that could await "
            f"it. For an aiohttp application write '{target.module}:{name}' and start with -k "
            "aiohttp.GunicornWebWorker; else name a factory that is not asynchronous."
        )
    if not callable(app):
        names = [near for near in _near_names(module, name) if near != name]
        hint = "".join(f"\nDid you mean {f'{target.module}:{near}'!r}?" for near in names[:1])
        what = f"the factory {name!r} returned" if target.call is not None else f"{name!r} is"
        raise AppImportError(f"Cannot load {target.uri!r}: {what} {_kind(app)}; an application must be callable.{hint}")
    if target.call is None and _is_factory(app):
        raise AppImportError(
            f"Cannot load {target.uri!r}: {name!r} takes no arguments, so it is a factory rather than an application. "
            f"Did you mean '{target.module}:{name}()'?"
        )
    return app


def _is_factory(value: object) -> bool:
    """True for a plain function that can be called with no arguments and with neither an environ nor a scope."""
    # aiohttp's worker takes a coroutine function without parameters, and calls it in its own event loop.
    if not inspect.isfunction(value) or inspect.iscoroutinefunction(value):
        return False
    signature = inspect.signature(value)
    return _binds(signature, 0) and not _binds(signature, 2) and not _binds(signature, 3)


def _binds(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _kind(value: object) -> str:
    if isinstance(value, ModuleType):
        return f"the module {value.__name__!r}"
    if value is None:
        return "None"
    article = "an" if type(value).__name__[0] in "aeiouAEIOU" else "a"
    return f"{article} {type(value).__name__}"


def _raised(error: BaseException, target: Target, moment: str) -> AppModuleError:
    """The user's own traceback, then one sentence that says what we were doing."""
    what = (
        f"it called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"{type(error).__name__} was raised"
    )
    text = f"{user_traceback(error)}\nCannot load {target.uri!r}: {what} {moment}."
    return AppModuleError(text, files_of(error))


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of `error` that are the user's: not importlib's and not this file's."""
    return _without_ours(traceback.extract_tb(error.__traceback__))


def user_traceback(error: BaseException) -> str:
    """`error` formatted as Python would, causes included, with only the user's frames."""
    report = traceback.TracebackException.from_exception(error)
    _strip(report)
    return "".join(report.format()).rstrip("\n")


def _strip(report: traceback.TracebackException) -> None:
    # TracebackException keeps causes, and the members of a group (3.11 on), as further reports with their own stacks.
    report.stack = traceback.StackSummary.from_list(_without_ours(report.stack))
    for linked in (report.__cause__, report.__context__, *(getattr(report, "exceptions", None) or ())):
        if linked is not None:
            _strip(linked)


def _without_ours(frames: Iterable[traceback.FrameSummary]) -> list[traceback.FrameSummary]:
    return [
        frame
        for frame in frames
        if frame.filename != _OWN_FILE
        and not frame.filename.startswith("<frozen importlib")
        and not frame.filename.startswith(_IMPORTLIB_DIR)
    ]


def files_of(error: BaseException) -> list[str]:
    """The user's files that a traceback goes through, and the one that could not be parsed."""
    files = [frame.filename for frame in user_frames(error)]
    if isinstance(error, SyntaxError) and error.filename:
        files.append(error.filename)
    return list(dict.fromkeys(files))
