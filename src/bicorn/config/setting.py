"""What a setting is: one declaration that the command line, files, errors and the reference all come from.

Owns       `Setting`, the descriptor, and `Options`, the base of the classes that hold declarations by section.
Never      knows which settings exist.
Invariant  on an instance a setting is its value, with its type; on the class it is its declaration; it cannot be set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Generic, NoReturn, TypeVar, cast, overload

from bicorn.config.kind import Invalid, Kind
from bicorn.config.sources import Source
from bicorn.errors import ConfigError

T = TypeVar("T")

SHOWN_CHARACTERS_MAX = 200  # of a refused value in an error: enough to know it again, short enough for one line


@dataclass(frozen=True)
class EnvironmentDefault:
    """An environment variable that gives a setting its default."""

    variable: str
    convert: Callable[[str], object] = str
    empty_is_unset: bool = True


@dataclass(frozen=True)
class Absent:
    """A feature that this version does not have: a setting that asks for it is refused, never ignored."""

    feature: str
    verdict: str = "which arrives with a later version of Bicorn"
    classes: frozenset[str] = frozenset()
    """Names of worker classes that have the feature all the same."""
    unless: str | None = None
    """The name of a switch that, when it is on, makes the setting idle and so acceptable."""


class Setting(Generic[T]):
    """The declaration of one setting."""

    name: str = ""
    section: str = ""
    ours: bool = False

    def __init__(
        self,
        *,
        doc: str,
        kind: Kind[T],
        default: T | None = None,
        compute_default: Callable[[], T] | None = None,
        default_text: str | None = None,
        cli: tuple[str, ...] = (),
        environment: EnvironmentDefault | None = None,
        unit: str | None = None,
        precedent: str | None = None,
        absent: Absent | None = None,
    ) -> None:
        self.doc = doc
        self.kind = kind
        self.cli = cli
        self.environment = environment
        self.unit = unit
        self.precedent = precedent
        self.absent = absent
        self.default_text = default_text
        self._default = default
        self._compute_default = compute_default

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn the name from the attribute."""
        self.name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Setting[T]: ...
    @overload
    def __get__(self, instance: Options, owner: type) -> T: ...

    def __get__(self, instance: Options | None, owner: type) -> Setting[T] | T:
        """Give the value on an instance, the declaration on the class."""
        if instance is None:
            return self
        return cast("T", instance.values[self.name])

    def __set__(self, instance: Options, value: object) -> NoReturn:
        """Refuse: settings are read by many and changed by nobody."""
        raise AttributeError(f"settings are frozen: use settings.replace({self.name}=...)")

    @property
    def flag(self) -> str | None:
        """The flag as errors name it: the long spelling."""
        return next((name for name in self.cli if name.startswith("--")), None)

    def default(self) -> T:
        """Give the default; a list or dict is a new one each time."""
        if self._compute_default is not None:
            return self._compute_default()
        default = self._default
        if isinstance(default, (list, dict)):
            return cast("T", default.copy())
        return cast("T", default)

    def read(self, raw: object, source: Source) -> T:
        """Convert a raw value, or raise the error that names the setting, the value, its place, and what is allowed."""
        try:
            return self.kind.parse(raw)
        except Invalid as reason:
            because = f": {reason}" if str(reason) else ""
            raise ConfigError(
                f"{self.name} = {shown(raw)} ({source}) is not allowed{because}; it has to be {self.kind.allowed}"
            ) from None

    def show(self, value: object) -> str:
        """Give a value as `--print-config` prints it."""
        if callable(value):
            return called(value)
        return str(_written(value))


def called(value: object) -> str:
    """Give a callable by its name; its address would tell nobody anything."""
    return f"<{getattr(value, '__qualname__', type(value).__qualname__)}()>"


def shown(raw: object) -> str:
    """Give a value as an error shows it, cut where it is long."""
    text = called(raw) if callable(raw) else repr(_written(raw))
    return text if len(text) <= SHOWN_CHARACTERS_MAX else text[:SHOWN_CHARACTERS_MAX] + "..."


def _written(value: object) -> object:
    """Give a host with its port (statsd_host) as it is written, and anything else as it is."""
    match value:
        case (str(host), int(port)) if not isinstance(port, bool):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return value


class Options:
    """A class of declarations; its subclasses are the sections, and `Settings` inherits them all."""

    SECTION: ClassVar[str] = ""
    values: Mapping[str, object]

    def __init_subclass__(cls, *, section: str | None = None, ours: bool = False) -> None:
        """Tell the declarations of this class which section they stand in, and whose they are."""
        super().__init_subclass__()
        for declaration in vars(cls).values():
            if isinstance(declaration, Setting) and section is not None:
                declaration.section = section
                declaration.ours = ours
