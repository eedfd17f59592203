"""The frozen result, and what Gunicorn's users read from it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

import pytest

from bicorn.config import Setting, Settings
from bicorn.errors import ConfigError

Load = Callable[..., Settings]


def test_a_setting_is_its_declaration_on_the_class_and_its_value_on_an_instance(load: Load) -> None:
    assert isinstance(Settings.timeout, Setting)
    assert Settings.timeout.name == "timeout"
    assert load().timeout == 30


def test_settings_cannot_be_changed(load: Load) -> None:
    settings = load()
    for name in ("timeout", "anything", "values"):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(settings, name, 1)
    with pytest.raises(AttributeError, match="frozen"):
        Settings.timeout.__set__(settings, 1)
    with pytest.raises(TypeError):
        settings.values["timeout"] = 1  # type: ignore[index]  # that it is refused is the point


def test_replace_gives_others_and_leaves_these(load: Load) -> None:
    settings = load("run:app")
    other = settings.replace(timeout="0x10", bind=":1")
    assert (other.timeout, other.bind, other.app_uri) == (16, [":1"], "run:app")
    assert str(other.source_of("timeout")) == "Settings.replace()"
    assert settings.timeout == 30
    with pytest.raises(ConfigError, match="not the name of a setting"):
        settings.replace(tiemout=1)
    with pytest.raises(ConfigError, match=r"timeout = 'x' \(Settings.replace\(\)\)"):
        settings.replace(timeout="x")


def test_a_value_is_default_when_nobody_gave_another(load: Load) -> None:
    settings = load("-t", "30", "-w", "2", files={"bicorn.conf.py": "def pre_request(worker, req): ..."})
    assert settings.is_default("timeout")
    assert settings.is_default("post_request")
    assert not settings.is_default("workers")
    assert not settings.is_default("pre_request")


def test_a_default_list_is_nobodys_shared_state(load: Load) -> None:
    load().bind.append("oops")
    assert load().bind == ["127.0.0.1:8000"]


def test_every_value_is_explained_with_its_source(load: Load) -> None:
    lines = load("-t", "5", files={"gunicorn.conf.py": "\nworkers = 2"}).explain().splitlines()
    names = [line.partition("=")[0].strip() for line in lines]
    assert names == sorted(Settings.declarations())
    described = {name: line.partition("=")[2].split() for name, line in zip(names, lines, strict=True)}
    assert described["timeout"] == ["5", "#", "--timeout"]
    assert described["workers"] == ["2", "#", "gunicorn.conf.py,", "line", "2"]
    assert described["backlog"] == ["2048", "#", "default"]
    assert described["config"][:3] == ["./gunicorn.conf.py", "#", "default"]
    assert described["on_exit"] == ["<_on_exit()>", "#", "default"]


def test_str_is_every_value(load: Load) -> None:
    assert "timeout                            = 30" in str(load()).splitlines()


def test_what_worker_classes_written_for_gunicorn_read(load: Load) -> None:
    settings = load("-b", ":81", "-b", "unix:x", "-e", "A=1=2", "-e", "B=", "-u", "5", "-g", "6", HOME="/home")
    assert settings.address == [("", 81), "x"]
    assert settings.env == {"A": "1=2", "B": ""}
    assert settings.env_orig == {"HOME": "/home"}
    assert (settings.uid, settings.gid) == (5, 6)
    assert settings.is_ssl is False
    assert settings.ssl_options["certfile"] is None
    assert "ciphers" in settings.ssl_options
    assert settings.settings["backlog"].value == settings.settings["backlog"].get() == 2048
    assert settings.settings["bind"].default == ["127.0.0.1:8000"]
    assert settings.paste_global_conf == {}


def test_networks_leave_out_the_star(load: Load) -> None:
    settings = load("--forwarded-allow-ips", "*,10.0.0.0/8", "--proxy-allow-from", "::1")
    assert settings.forwarded_allow_networks() == [ipaddress.ip_network("10.0.0.0/8")]
    assert settings.proxy_allow_networks() == [ipaddress.ip_network("::1")]


def test_paste_variables_may_hold_escaped_signs(load: Load) -> None:
    settings = load().replace(raw_paste_global_conf=["a\\=b=c\\=d", "e=f=g"])
    assert settings.paste_global_conf == {"a=b": "c=d", "e": "f=g"}


def test_the_default_pre_request_logs_the_request(load: Load) -> None:
    lines: list[str] = []

    class Log:
        def debug(self, message: str, *args: object) -> None:
            lines.append(message % args)

    class Worker:
        log = Log()

    class Request:
        method = "GET"
        path = "/x"

    load().pre_request(Worker(), Request())
    assert lines == ["GET /x"]


def test_the_default_ssl_context_is_what_the_factory_makes(load: Load) -> None:
    assert load().ssl_context(None, lambda: "context") == "context"


def test_the_other_default_hooks_do_nothing(load: Load) -> None:
    settings = load()
    for name, declaration in settings.declarations().items():
        if declaration.section.endswith("Hooks") and name not in ("pre_request", "ssl_context"):
            count = declaration.kind.name.count(",") + 1
            assert settings.values[name](*[None] * count) is None  # type: ignore[operator]  # a hook can be called
