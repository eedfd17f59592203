"""The settings of a server, all of them, frozen.

Owns       `Settings`: the value and the source of every declaration, and what Gunicorn's users read besides.
Never      changes after it is made; `replace` makes another.
Invariant  every declared setting has a value and a source.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

from bicorn.config.addresses import Address, parse_address
from bicorn.config.options.compatibility import CompatibilityOptions
from bicorn.config.options.config_file import ConfigFileOptions
from bicorn.config.options.control import ControlOptions
from bicorn.config.options.debugging import DebuggingOptions
from bicorn.config.options.dirty import DirtyOptions
from bicorn.config.options.hooks import DirtyHookOptions, HookOptions
from bicorn.config.options.http2 import HTTP2Options
from bicorn.config.options.lifecycle import LifecycleOptions
from bicorn.config.options.limits import LimitOptions
from bicorn.config.options.logs import LoggingOptions
from bicorn.config.options.mechanics import LeniencyOptions, ProcessOptions, ProxyOptions
from bicorn.config.options.observation import ObservationOptions
from bicorn.config.options.process_naming import ProcessNamingOptions
from bicorn.config.options.responses import ResponseOptions
from bicorn.config.options.security import SecurityOptions
from bicorn.config.options.server_socket import ServerSocketOptions
from bicorn.config.options.tls import TLSOptions
from bicorn.config.options.websocket import WebSocketOptions
from bicorn.config.options.worker_processes import WorkerProcessesOptions
from bicorn.config.setting import Setting
from bicorn.config.sources import CODE, Layer, Source
from bicorn.errors import ConfigError

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"


@dataclass(frozen=True)
class SettingView:
    """One setting as `cfg.settings[name]` shows it to worker classes and hooks written for Gunicorn."""

    name: str
    section: str
    value: object
    default: object

    def get(self) -> object:
        """Give the value."""
        return self.value


class Settings(
    ConfigFileOptions,
    ServerSocketOptions,
    WorkerProcessesOptions,
    LifecycleOptions,
    SecurityOptions,
    LimitOptions,
    WebSocketOptions,
    ObservationOptions,
    DebuggingOptions,
    ProcessOptions,
    ProxyOptions,
    LeniencyOptions,
    LoggingOptions,
    ProcessNamingOptions,
    HookOptions,
    TLSOptions,
    HTTP2Options,
    DirtyOptions,
    DirtyHookOptions,
    ControlOptions,
    ResponseOptions,
    CompatibilityOptions,
):
    """Every setting as an attribute, frozen; `Settings.timeout` is the declaration, `settings.timeout` its value."""

    values: Mapping[str, object]
    sources: Mapping[str, Source]
    env_orig: Mapping[str, str]
    app_argument: str | None

    def __init__(
        self,
        values: Mapping[str, object],
        sources: Mapping[str, Source],
        environ: Mapping[str, str],
        app_argument: str | None = None,
    ) -> None:
        frozen = {
            "values": MappingProxyType(dict(values)),
            "sources": MappingProxyType(dict(sources)),
            "env_orig": MappingProxyType(dict(environ)),
            "app_argument": app_argument,
        }
        for name, value in frozen.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: settings are read by many and changed by nobody."""
        raise AttributeError(f"settings are frozen: use settings.replace({name}=...)")

    @classmethod
    def declarations(cls) -> Mapping[str, Setting[Any]]:
        """Give every declaration by its name, section by section."""
        return _DECLARATIONS

    @classmethod
    def made(
        cls,
        values: Mapping[str, object],
        sources: Mapping[str, Source],
        environ: Mapping[str, str],
        app_argument: str | None,
    ) -> Settings:
        """Make settings of this class; a subclass whose constructor takes something else says how."""
        return cls(values, sources, environ, app_argument)

    # --- where values come from ---

    def source_of(self, name: str) -> Source:
        """Say where the value of a setting came from."""
        return self.sources[name]

    def is_default(self, name: str) -> bool:
        """Say if a setting has its default, because nobody gave a value or somebody gave the same."""
        if self.sources[name].layer is Layer.DEFAULT:
            return True
        return bool(self.values[name] == self.declarations()[name].default())

    def is_given(self, name: str) -> bool:
        """Say if somebody gave a setting a value, be it the default's."""
        return self.sources[name].layer is not Layer.DEFAULT

    def explain(self) -> str:
        """Give every setting with its value and its source, as `--print-config` prints them."""
        names = sorted(self.values)
        declarations = self.declarations()
        name_width = max(map(len, names))
        shown = {name: declarations[name].show(self.values[name]) for name in names}
        # Short values line up their sources; one long value must not push all of them off the screen.
        value_width = max(len(text) for text in shown.values() if len(text) <= 40)
        return "\n".join(
            f"{name:{name_width}} = {shown[name]:{value_width}}   # {self.sources[name]}" for name in names
        )

    def __str__(self) -> str:
        """Give every setting with its value, one a line."""
        width = max(map(len, self.values))
        declarations = self.declarations()
        return "\n".join(
            f"{name:{width}} = {declarations[name].show(self.values[name])}" for name in sorted(self.values)
        )

    def replace(self, **raw_values: object) -> Settings:
        """Give other settings with some values changed, each converted as if a file had given it."""
        values, sources = dict(self.values), dict(self.sources)
        for name, raw in raw_values.items():
            if name not in self.declarations():
                raise ConfigError(f"{name} (Settings.replace()) is not the name of a setting")
            values[name] = self.declarations()[name].read(raw, CODE)
            sources[name] = CODE
        return self.made(values, sources, self.env_orig, self.app_argument)

    # --- what Gunicorn's Config offers besides the values ---

    @property
    def settings(self) -> Mapping[str, SettingView]:
        """Every setting with its section and default, as worker classes written for Gunicorn look them up."""
        return {
            name: SettingView(name, setting.section, self.values[name], setting.default())
            for name, setting in self.declarations().items()
        }

    @property
    def app_uri(self) -> str | None:
        """The application: the PasteDeploy file's, else that of the command line, else `wsgi_app`."""
        if self.paste is not None:
            return self.paste
        return self.app_argument if self.app_argument is not None else self.wsgi_app

    def require_app_uri(self) -> str:
        """Give the application, or say how to name one."""
        if self.app_uri is None:
            raise ConfigError(
                "No application module specified: name it last on the command line (bicorn module:app), "
                "or set wsgi_app in the configuration file"
            )
        return self.app_uri

    @property
    def worker_class_str(self) -> str:
        """The name of the worker class, for the log."""
        worker_class = self.worker_class
        if isinstance(worker_class, type):
            return worker_class.__name__
        return "gthread" if _is_sync(worker_class) and self.threads > 1 else worker_class

    @property
    def address(self) -> list[Address]:
        """The addresses of `bind`, read."""
        return [parse_address(bind) for bind in self.bind]

    @property
    def uid(self) -> int:
        """The user id of the workers."""
        return self.user

    @property
    def gid(self) -> int:
        """The group id of the workers."""
        return self.group

    @property
    def is_ssl(self) -> bool:
        """Whether connections are TLS."""
        return bool(self.certfile or self.keyfile)

    @property
    def ssl_options(self) -> dict[str, object]:
        """The settings of TLS."""
        return {name: self.values[name] for name, setting in self.declarations().items() if setting.section == "SSL"}

    @property
    def env(self) -> dict[str, str]:
        """The variables of `raw_env`."""
        pairs = (text.partition("=") for text in self.raw_env)
        return {name: value for name, _, value in pairs}

    @property
    def paste_global_conf(self) -> dict[str, str]:
        """The variables of `raw_paste_global_conf`; a backslash before = makes it part of the key or value."""
        pairs = (re.split(r"(?<!\\)=", text, maxsplit=1) for text in self.raw_paste_global_conf)
        return {pair[0].replace("\\=", "="): pair[-1].replace("\\=", "=") for pair in pairs}

    def forwarded_allow_networks(self) -> list[Network]:
        """The networks of `forwarded_allow_ips`, without *."""
        return [ipaddress.ip_network(word) for word in self.forwarded_allow_ips if word != "*"]

    def proxy_allow_networks(self) -> list[Network]:
        """The networks of `proxy_allow_ips`, without *."""
        return [ipaddress.ip_network(word) for word in self.proxy_allow_ips if word != "*"]


def _is_sync(worker_class: str) -> bool:
    return worker_class == "sync" or worker_class.endswith("SyncWorker")


def _collect(options: type) -> dict[str, Setting[Any]]:
    return {name: value for name, value in vars(options).items() if isinstance(value, Setting)}


_DECLARATIONS: Mapping[str, Setting[Any]] = MappingProxyType(
    {name: setting for section in Settings.__bases__ for name, setting in _collect(section).items()}
)
