"""Listeners on real sockets: reuse, and what happens to the files of unix sockets."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bicorn.config import Settings, load_settings
from bicorn.errors import BindError
from bicorn.net.listener import ATTEMPTS_MAX, Listener, close_listeners, create_listeners


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def _keep(self, msg: object, *args: object) -> None:
        self.lines.append(str(msg) % args if args else str(msg))

    critical = error = warning = info = debug = exception = _keep


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="bicorn-") as path:
        yield Path(path)


def bound_to(*binds: str) -> Settings:
    """Give settings with these addresses."""
    return load_settings([*(f"--bind={bind}" for bind in binds), "hello:app"], {})


def create(settings: Settings, existing: list[Listener] | None = None) -> list[Listener]:
    """Make listeners without waiting for any."""
    return create_listeners(settings, Lines(), existing=existing or [], pause=lambda _: False)


def test_an_address_that_stays_keeps_its_listener(directory: Path) -> None:
    before = create(bound_to("127.0.0.1:0", f"unix:{directory}/a"))
    after = create(bound_to(f"unix:{directory}/a", "[::1]:0"), before)
    assert after[0] is before[1]
    assert after[1] not in before
    close_listeners([before[0], *after], unlink=True)
    assert list(directory.iterdir()) == []


def test_what_was_made_is_closed_again_when_one_fails(directory: Path) -> None:
    (directory / "file").write_text("precious")
    with pytest.raises(BindError, match="not a socket"):
        create(bound_to(f"unix:{directory}/a", f"unix:{directory}/file"))
    assert [path.name for path in directory.iterdir()] == ["file"]


def test_the_file_of_a_successor_is_left_alone(directory: Path) -> None:
    path = directory / "a"
    (listener,) = create(bound_to(f"unix:{path}"))
    path.rename(directory / "moved")
    with socket.socket(socket.AF_UNIX) as successor:
        successor.bind(str(path))
        close_listeners([listener], unlink=True)
        assert path.exists()


def test_a_listener_is_as_good_as_its_socket() -> None:
    (listener,) = create(bound_to("127.0.0.1:0"))
    assert listener.family == socket.AF_INET
    assert str(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    assert not listener.getblocking() and not listener.get_inheritable()
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    assert repr(listener) == "<Listener closed>"


def test_an_address_in_use_is_tried_so_often_and_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        log = Lines()
        pauses: list[float] = []

        def pause(seconds: float) -> bool:
            pauses.append(seconds)
            return False

        settings = bound_to(f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(BindError, match="another process listens there"):
            create_listeners(settings, log, pause=pause)
    assert pauses == [1.0] * (ATTEMPTS_MAX - 1)
    assert sum(line.startswith("Connection in use") for line in log.lines) == ATTEMPTS_MAX


def test_a_missing_directory_is_not_waited_for(directory: Path) -> None:
    with pytest.raises(BindError, match="the directory does not exist"):
        create_listeners(bound_to(f"unix:{directory}/no/a"), Lines(), pause=lambda _: pytest.fail("it waited"))


def test_a_path_that_is_too_long_is_an_error_of_binding(directory: Path) -> None:
    with pytest.raises(BindError, match="cannot listen on unix:"):
        create(bound_to(f"unix:{directory}/{'x' * 120}"))
