"""The name that somebody probably meant."""

from __future__ import annotations

import pytest

from bicorn.config import Settings
from bicorn.config.spelling import nearest_setting

FLAGS = {name: setting.cli for name, setting in Settings.declarations().items()}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(("tiemout", "timeout"), ("wokers", "workers"), ("worker", "workers"), ("log_level", "loglevel")),
        *(
            ("BIND", "bind"),
            ("Timeout", "timeout"),
            ("access_log", "accesslog"),
            ("post_wroker_init", "post_worker_init"),
        ),
        *(("max_request", "max_requests"), ("keep_alive", "keepalive"), ("preload", "preload_app")),
        *(("access_logfile", "accesslog"), ("log_file", "errorlog"), ("PRELOAD", "preload_app")),
    ],
)
def test_a_slip_is_recognised(name: str, meant: str) -> None:
    assert nearest_setting(name, FLAGS) == meant


@pytest.mark.parametrize(
    "name",
    [
        *(
            "workers",
            "max_workers",
            "cpu_count",
            "cores",
            "port",
            "host",
            "name",
            "env",
            "pid",
            "threading",
            "BASE_DIR",
        ),
        *("multiprocessing", "log_dir", "socket_path", "project", "django_settings", "on_exit_handler", "x", "server"),
    ],
)
def test_an_ordinary_name_is_left_alone(name: str) -> None:
    assert nearest_setting(name, FLAGS) is None
