"""`gunicorn.config`: a Config that can be changed, and settings that programs declare for themselves.

Owns       KNOWN_SETTINGS, and the translation between a Setting class of Gunicorn's kind and a declaration of ours.
Never      declares a setting: those that Bicorn has come from bicorn.config, and nothing is written twice.
Invariant  a Config is a bicorn.config.Settings: the arbiter and the workers read it as they read any other.

Needed by embedding programs (Config through BaseApplication), by gunicorn_thrift and tools that read YAML (Setting,
KNOWN_SETTINGS, make_settings, validate_*), and by aiohttp (AccessLogFormat.default).
"""

from __future__ import annotations

import copy
import inspect
import os
import shlex
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from bicorn.compat.class_names import CLASS_NAMES
from bicorn.config import Setting as Declaration
from bicorn.config import Settings, Source, checks
from bicorn.config.callables import find_callable, parse_class, parse_post_request, takes
from bicorn.config.command_line import make_parser
from bicorn.config.kind import Action, Invalid, Kind
from bicorn.config.load import default_values
from bicorn.config.sources import DEFAULT, Given, Layer
from bicorn.config.values import (
    integer_between,
    integer_from_text,
    parse_bool,
    parse_comma_list,
    parse_dict,
    parse_directory,
    parse_group,
    parse_networks,
    parse_optional_text,
    parse_reload_engine,
    parse_statsd_host,
    parse_texts,
    parse_user,
    parse_watched_files,
)

if TYPE_CHECKING:
    import argparse

    # The classes of single settings are made from the declarations, at the end of this file.
    def __getattr__(name: str) -> Any: ...


PLATFORM = sys.platform
#: Every setting's class, those that programs declared after ours. Who subclasses Setting adds to it.
KNOWN_SETTINGS: list[type[Setting]] = []

# -- declaring -------------------------------------------------------------------------------------


class SettingMeta(type):
    """Adds each class of a setting to KNOWN_SETTINGS."""

    def __new__(cls, name: str, bases: tuple[type, ...], attrs: dict[str, Any]) -> SettingMeta:
        """Make the class. Its validator, and a default that is a function, must not become methods."""
        for key in ("validator", "default"):
            if key in attrs and (key == "validator" or inspect.isfunction(attrs[key])):
                attrs[key] = staticmethod(attrs[key])
        attrs.setdefault("order", len(KNOWN_SETTINGS))
        made = super().__new__(cls, name, bases, attrs)
        if any(isinstance(base, SettingMeta) for base in bases):
            made.fmt_desc(attrs.get("desc") or "")
            KNOWN_SETTINGS.append(cast("type[Setting]", made))
        return made

    def fmt_desc(cls, desc: str) -> None:
        """Take the text that describes the setting; its first line is the short form."""
        text = textwrap.dedent(desc).strip()
        cls.desc, cls.short = text, text.partition("\n")[0]


class Setting(metaclass=SettingMeta):
    """One setting: its declaration as class attributes, its value on the instance."""

    name: ClassVar[str] = ""
    section: ClassVar[str] = ""
    cli: ClassVar[list[str] | None] = None
    validator: ClassVar[Callable[[Any], Any] | None] = None
    type: ClassVar[Callable[[str], Any] | None] = None
    meta: ClassVar[str | None] = None
    action: ClassVar[str | None] = None
    default: ClassVar[Any] = None
    short: ClassVar[str] = ""
    desc: ClassVar[str] = ""
    nargs: ClassVar[Any] = None
    const: ClassVar[Any] = None
    order: ClassVar[int] = 0

    def __init__(self, config: Config | None = None) -> None:
        """With a Config this is its view of the setting, and the value stands there."""
        self._config = config
        self._value: Any = None
        if config is None and self.default is not None:
            self.set(self.default)

    @property
    def value(self) -> Any:
        """The value, converted."""
        return self._value if self._config is None else self._config.values[self.name]

    @value.setter
    def value(self, value: Any) -> None:
        self.set(value)

    def get(self) -> Any:
        """Give the value."""
        return self.value

    def set(self, val: Any) -> None:
        """Convert a value and take it."""
        validator = type(self).validator
        if self._config is not None:
            self._config.set(self.name, val)
        elif not callable(validator):
            raise TypeError(f"Invalid validator: {self.name}")
        else:
            self._value = validator(val)

    def copy(self) -> Setting:
        """Give another of the same value."""
        return copy.copy(self)

    def __lt__(self, other: Setting) -> bool:
        return self.section == other.section and self.order < other.order


def make_settings(ignore: Iterable[str] | None = None) -> dict[str, Setting]:
    """Give every setting with its default, by name."""
    return {known.name: known() for known in KNOWN_SETTINGS if known.name not in (ignore or ())}


# -- translating -----------------------------------------------------------------------------------


def _class_of(declaration: Declaration[Any], class_name: str) -> type:
    """Make the class that describes a setting of ours."""
    attributes = {
        "__doc__": declaration.doc,
        "__module__": __name__,
        "name": declaration.name,
        "section": declaration.section,
        "cli": list(declaration.cli) or None,
        "validator": declaration.kind.parse,
        "meta": declaration.kind.metavar,
        "action": declaration.kind.action,
        "default": declaration.default(),
        "desc": declaration.doc,
    }
    return SettingMeta(class_name, (Setting,), attributes)


def _declaration_of(setting: type[Setting]) -> Declaration[Any]:
    """Make a declaration of ours from a class that a program declared."""
    action = setting.action or "store"
    if action not in ("store", "append", "store_true", "store_false", "store_const"):
        raise ValueError(f"the setting {setting.name!r} has the action {action!r}, which Bicorn does not take")
    alone = {"store_true": True, "store_false": False}.get(action, setting.const)
    kind = Kind[Any](
        name="what its validator takes",
        allowed="what its validator takes",
        parse=_guarded(setting),
        metavar=setting.meta,
        action=cast("Action", "store_const" if action == "store_false" else action),
        from_text=setting.type or str,
        values="optional" if setting.nargs == "?" else "one",
        alone=None if action == "store_true" else alone,
    )
    declaration = Declaration[Any](
        doc=setting.desc or setting.name, kind=kind, default=setting().value, cli=tuple(setting.cli or ())
    )
    declaration.__set_name__(Config, setting.name)
    declaration.section = setting.section
    return declaration


def _guarded(setting: type[Setting]) -> Callable[[object], Any]:
    validator = setting.validator
    if validator is None:
        raise TypeError(f"Invalid validator: {setting.name}")

    def parse(raw: object) -> Any:
        try:
            return validator(raw)
        except (TypeError, ValueError) as error:
            raise Invalid(str(error)) from None

    return parse


# -- Config ----------------------------------------------------------------------------------------

#: Where the values come from that a program sets; below a configuration that is read on top of them.
SET: Final = Source(Layer.CODE, "cfg.set() of the program")
CHOSEN: Final = Source(Layer.ENVIRONMENT, SET.place)


class Config(Settings):
    """Settings that a program fills before the server starts."""

    usage: str | None
    prog: str

    def __init__(self, usage: str | None = None, prog: str | None = None) -> None:
        values, sources = default_values(os.environ, type(self))
        self._fill(values, sources, os.environ, None)
        self._name(usage, prog)

    @classmethod
    def made(
        cls,
        values: Mapping[str, object],
        sources: Mapping[str, Source],
        environ: Mapping[str, str],
        app_argument: str | None,
    ) -> Settings:
        """Make a Config of values that were read."""
        config = cls.__new__(cls)
        config._fill(values, sources, environ, app_argument)
        config._name(None, None)
        return config

    def _fill(
        self,
        values: Mapping[str, object],
        sources: Mapping[str, Source],
        environ: Mapping[str, str],
        app_argument: str | None,
    ) -> None:
        filled = {
            "values": dict(values),
            "sources": dict(sources),
            "env_orig": MappingProxyType(dict(environ)),
            "app_argument": app_argument,
        }
        for name, value in filled.items():
            object.__setattr__(self, name, value)

    def _name(self, usage: str | None, prog: str | None) -> None:
        object.__setattr__(self, "usage", usage)
        object.__setattr__(self, "prog", prog or Path(sys.argv[0]).name)

    @classmethod
    def declarations(cls) -> Mapping[str, Declaration[Any]]:
        """Give every declaration by its name, those of programs after ours."""
        own = Settings.declarations()
        foreign = {known.name: _declaration_of(known) for known in KNOWN_SETTINGS[len(own) :]}
        return {**own, **foreign}

    def __getattr__(self, name: str) -> Any:
        # Only asked for what is no attribute: the settings of programs, whose classes are no descriptors here.
        try:
            return vars(self)["values"][name]
        except KeyError:
            raise AttributeError(f"No configuration setting for: {name}") from None

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse to overwrite a setting; set() converts the value first."""
        if name in self.values:
            raise AttributeError(f"Invalid access! Use cfg.set({name!r}, ...)")
        object.__setattr__(self, name, value)

    def set(self, name: str, value: object) -> None:
        """Convert a value and take it for the setting of that name."""
        declarations = self.declarations()
        if name not in declarations:
            raise AttributeError(f"No configuration setting for: {name}")
        declaration = declarations[name]
        is_default = value is None and declaration.kind.none_is_default
        values, sources = cast("dict[str, object]", self.values), cast("dict[str, Source]", self.sources)
        values[name] = declaration.default() if is_default else declaration.read(value, SET)
        sources[name] = DEFAULT if is_default else SET
        if name == "default_proc_name" and sources["proc_name"] is DEFAULT:
            values["proc_name"] = values[name]

    def chosen(self) -> Iterator[Given]:
        """Give what a program has set, for a configuration that is read on top of it."""
        for name, source in self.sources.items():
            if source is SET:
                yield Given(name, self.values[name], CHOSEN)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Every setting as an object with value, default, get() and set(), by name."""
        return {known.name: known(self) for known in KNOWN_SETTINGS}

    def validate(self) -> None:
        """Raise ConfigError for values that do not go together, and for what this version does not have."""
        checks.check(self)

    def parser(self) -> argparse.ArgumentParser:
        """Make the parser of the command line."""
        parser = make_parser(self.declarations(), self.prog)
        parser.usage = self.usage or parser.usage
        return parser

    def get_cmd_args_from_env(self) -> list[str]:
        """Give the arguments that stand in GUNICORN_CMD_ARGS."""
        return shlex.split(self.env_orig.get("GUNICORN_CMD_ARGS", ""))


def get_default_config_file() -> str | None:
    """Give the path of ./gunicorn.conf.py, if it is there."""
    path = Path.cwd() / "gunicorn.conf.py"
    return str(path) if path.exists() else None


# -- validators, for settings that programs declare ------------------------------------------------


def _or_none(parse: Callable[[object], Any]) -> Callable[[Any], Any]:
    """None stays None, as Gunicorn's validators leave it."""

    def validate(val: Any) -> Any:
        return None if val is None else parse(val)

    return validate


def auto_int(_: object, x: str) -> object:
    """Read a number as a mode is written: "022" is octal."""
    return integer_from_text(x)


def validate_callable(arity: int) -> Callable[[Any], Callable[..., Any]]:
    """Make a validator of callables that take so many arguments; -1 takes any."""

    def validate(val: Any) -> Callable[..., Any]:
        function = find_callable(val)
        if arity != -1 and not takes(function, arity):
            raise TypeError(f"Value must have an arity of: {arity}")
        return function

    return validate


validate_bool = _or_none(parse_bool)
validate_dict = parse_dict
validate_pos_int = integer_between(0)
validate_string = parse_optional_text
validate_file_exists = _or_none(lambda val: parse_watched_files(val)[0])
validate_list_string = parse_texts
validate_list_of_files_or_patterns = parse_watched_files
validate_string_to_list = parse_comma_list
validate_string_to_addr_list = parse_networks
validate_class = _or_none(parse_class)
validate_user = parse_user
validate_group = parse_group
validate_post_request = parse_post_request
validate_chdir = parse_directory
validate_statsd_address = parse_statsd_host
validate_reload_engine = parse_reload_engine


def _publish() -> None:
    """Make the class of each setting of ours, under Gunicorn's name for it where it has one."""
    for name, declaration in Settings.declarations().items():
        class_name = CLASS_NAMES.get(name) or "".join(part.title() for part in name.split("_"))
        globals()[class_name] = _class_of(declaration, class_name)


_publish()
