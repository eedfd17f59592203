"""`bicornctl adopt` in real environments."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from bicorn.cli.adopt import BACKUP_NAME, AdoptError, adopt, default_bin_dir, is_launcher, undo_adopt
from bicorn.cli.ctl import main

OTHER = "#!/bin/sh\necho somebody else's gunicorn\n"
PYTHON = Path(sys.executable)


def listing(directory: Path) -> dict[str, tuple[str, int]]:
    return {
        path.name: (os.readlink(path) if path.is_symlink() else path.read_text(), path.lstat().st_mode)
        for path in directory.iterdir()
    }


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A directory in which another package's gunicorn stands."""
    (tmp_path / "gunicorn").write_text(OTHER)
    (tmp_path / "gunicorn").chmod(0o755)
    return tmp_path


def test_adopt_writes_an_executable_launcher_and_undo_takes_it_away(tmp_path: Path) -> None:
    assert "starts Bicorn now" in adopt(tmp_path, PYTHON, force=False)
    launcher = tmp_path / "gunicorn"
    assert is_launcher(launcher)
    assert launcher.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["gunicorn"]
    assert "is gone" in undo_adopt(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_both_can_be_repeated(tmp_path: Path) -> None:
    adopt(tmp_path, PYTHON, force=False)
    once = listing(tmp_path)
    assert "already" in adopt(tmp_path, PYTHON, force=False)
    assert "already" in adopt(tmp_path, PYTHON, force=True)
    assert listing(tmp_path) == once
    undo_adopt(tmp_path)
    assert "no" in undo_adopt(tmp_path)
    assert listing(tmp_path) == {}


def test_another_packages_launcher_is_not_touched(other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(other)
    assert main(["adopt", "--bin-dir", str(other)]) == 1
    assert "belongs to another package" in capsys.readouterr().err
    assert main(["adopt", "--undo", "--bin-dir", str(other)]) == 1
    assert "was not written by bicornctl" in capsys.readouterr().err
    assert listing(other) == before


def test_force_keeps_the_other_one_and_undo_restores_it(other: Path) -> None:
    before = listing(other)
    adopt(other, PYTHON, force=True)
    assert is_launcher(other / "gunicorn")
    assert (other / BACKUP_NAME).read_text() == OTHER
    assert "already" in adopt(other, PYTHON, force=True)
    assert (other / BACKUP_NAME).read_text() == OTHER
    undo_adopt(other)
    assert listing(other) == before


def test_a_link_is_kept_as_a_link(tmp_path: Path) -> None:
    (tmp_path / "gunicorn").symlink_to("/nowhere/gunicorn")
    with pytest.raises(AdoptError):
        adopt(tmp_path, PYTHON, force=False)
    adopt(tmp_path, PYTHON, force=True)
    undo_adopt(tmp_path)
    assert os.readlink(tmp_path / "gunicorn") == "/nowhere/gunicorn"


def test_a_link_to_a_launcher_of_ours_is_somebody_elses(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    adopt(real, PYTHON, force=False)
    (tmp_path / "gunicorn").symlink_to(real / "gunicorn")
    assert not is_launcher(tmp_path / "gunicorn")


def test_a_backup_is_never_overwritten(other: Path) -> None:
    (other / BACKUP_NAME).write_text("precious")
    with pytest.raises(AdoptError, match="exists from an earlier"):
        adopt(other, PYTHON, force=True)
    assert (other / BACKUP_NAME).read_text() == "precious"
    assert (other / "gunicorn").read_text() == OTHER


def test_a_launcher_that_gunicorn_was_installed_over_is_left_with_its_backup(other: Path) -> None:
    adopt(other, PYTHON, force=True)
    (other / "gunicorn").write_text("#!/bin/sh\necho a newer gunicorn\n")
    with pytest.raises(AdoptError, match=r"stays.*backup"):
        undo_adopt(other)


def test_a_missing_directory_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adopt", "--bin-dir", str(tmp_path / "no")]) == 1
    assert f"no directory {tmp_path / 'no'}" in capsys.readouterr().err


def test_the_commands_directory_is_where_bicornctl_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bicornctl").write_text("")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bicornctl")])
    assert default_bin_dir() == tmp_path
    monkeypatch.setattr(sys, "argv", ["/elsewhere/bicornctl"])
    assert default_bin_dir() == PYTHON.absolute().parent


def environment(directory: Path) -> Path:
    """A virtual environment that sees what this one sees; its bin directory."""
    venv.create(directory, with_pip=False)
    lib = next((directory / "lib").glob("python*/site-packages"))
    # addsitedir, because an editable install of the package is itself a .pth file in one of these directories.
    paths = [path for path in sys.path if path.endswith("-packages")]
    (lib / "outer.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in paths))
    return directory / "bin"


@pytest.mark.parametrize("name", ["env", "env with 'odd' name", "a" * 150])
def test_the_launcher_starts_bicorn_in_a_real_environment(name: str, tmp_path: Path) -> None:
    bin_dir = environment(tmp_path / name)
    python = bin_dir / "python"
    command = [str(python), "-m", "bicorn.cli.ctl", "adopt"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert str(bin_dir / "gunicorn") in done.stdout
    shown = subprocess.run([bin_dir / "gunicorn", "--version"], capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, "bicorn" in shown.stdout) == (0, True), shown.stderr
    subprocess.run([*command, "--undo"], check=True, capture_output=True, timeout=60)
    assert not (bin_dir / "gunicorn").exists()


def test_without_a_command_the_usage_is_shown() -> None:
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2
