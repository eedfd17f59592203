"""A user's projects, each test with a copy of its own, and an environment in which Bicorn was adopted.

Of what the guide says only the port is changed, to 0, so that tests can run at the same time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from guide.commands import Guide, Project
from harness.server import DEADLINE_S

PROJECTS = Path(__file__).parent / "projects"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="session")
def adopted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of commands, as of an environment, in which `bicornctl adopt` was run."""
    directory = tmp_path_factory.mktemp("environment") / "bin"
    directory.mkdir()
    adopt = [str(BIN / "bicornctl"), "adopt", "--bin-dir", str(directory)]
    subprocess.run(adopt, check=True, stdout=subprocess.DEVNULL, timeout=DEADLINE_S)
    return directory


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Django project with its database."""
    directory = tmp_path_factory.mktemp("django") / "project"
    shutil.copytree(PROJECTS / "django_project", directory)
    migrate = [sys.executable, "manage.py", "migrate", "--verbosity", "0"]
    subprocess.run(migrate, cwd=directory, check=True, timeout=DEADLINE_S * 3)
    return directory


@pytest.fixture
def flask_project(tmp_path: Path) -> Project:
    """A copy of the Flask project."""
    return Project(_copy(PROJECTS / "flask_project", tmp_path), "run:app", "views.py")


@pytest.fixture
def django_project(tmp_path: Path, migrated: Path) -> Project:
    """A copy of the Django project."""
    return Project(_copy(migrated, tmp_path), "project.wsgi", "visits/views.py")


def _copy(source: Path, parent: Path) -> Path:
    directory = Path(shutil.copytree(source, parent / "project"))
    config = directory / "gunicorn-cfg.py"
    config.write_text(config.read_text().replace(":8000", ":0"))
    return directory


@pytest.fixture(params=["bicorn-flask", "bicorn-django", "gunicorn-flask"])
def guide(request: pytest.FixtureRequest, adopted: Path) -> Iterator[Guide]:
    """The guide's user: with `bicorn`, or with the adopted `gunicorn`, on one of the projects."""
    command, framework = request.param.split("-")
    project = request.getfixturevalue(f"{framework}_project")
    # The real Gunicorn stands in the environment of the tests: the adopted one has to be found first.
    path = os.pathsep.join([str(adopted), str(BIN), os.environ["PATH"]])
    made = Guide(project, command, path)
    yield made
    made.close()
