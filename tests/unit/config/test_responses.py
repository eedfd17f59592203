"""The settings that are neither Gunicorn's nor limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bicorn.config import Settings
from bicorn.errors import ConfigError

Load = Callable[..., Settings]


@pytest.mark.parametrize(("text", "value"), [("", ""), ("shop", "shop"), (" a/1 (b) ", "a/1 (b)")])
def test_a_server_field_is_printable(load: Load, text: str, value: str) -> None:
    assert load("--server-header", text).server_header == value


@pytest.mark.parametrize("text", ["a\r\nX: 1", "a\nb", "\x00", "é"])
def test_nothing_else_gets_into_a_response(load: Load, text: str) -> None:
    with pytest.raises(ConfigError, match=r"server_header = .* it has to be printable ASCII"):
        load("--server-header", text)


@pytest.mark.parametrize(("variable", "value"), [("1", False), ("yes", False), ("0", True), ("no", True), ("", True)])
def test_the_namespace_is_turned_off_by_a_variable(load: Load, variable: str, value: bool) -> None:
    assert load(BICORN_NO_GUNICORN_NAMESPACE=variable).gunicorn_namespace is value


def test_the_namespace_is_turned_off_by_a_flag(load: Load) -> None:
    assert load("--no-gunicorn-namespace").gunicorn_namespace is False
