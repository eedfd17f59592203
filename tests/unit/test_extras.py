"""The commands that errors name."""

from __future__ import annotations

import importlib.metadata
import re

import pytest

from bicorn.extras import install_command


@pytest.mark.parametrize("package", ["gevent", "eventlet", "tornado", "uvloop", "watchfiles", "PasteDeploy"])
def test_a_package_is_named_with_the_versions_that_bicorn_works_with(package: str) -> None:
    found = re.fullmatch(r"pip install '([\w-]+)>=[\d.]+'", install_command(package))
    assert found is not None
    assert found[1].lower() == package.lower()


def test_a_package_that_bicorn_does_not_know_is_named_alone() -> None:
    assert install_command("uvicorn-worker") == "pip install uvicorn-worker"


def test_without_metadata_the_package_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_installed(_: str) -> None:
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr(importlib.metadata, "requires", not_installed)
    assert install_command("gevent") == "pip install gevent"
