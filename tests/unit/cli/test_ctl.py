"""The command line of bicornctl, and what it and `bicorn` do when nobody reads their output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bicorn.cli.ctl import main

#: A chore that needs no server, and says in one line what it did.
CHORE = [sys.executable, "-m", "bicorn.cli.ctl", "adopt", "--undo", "--bin-dir"]


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300"])
def test_a_timeout_that_is_none_is_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["status", "--timeout", seconds])
    assert ended.value.code == 2
    assert f"--timeout: has to be more than 0 and at most 1000000, not {seconds}" in capsys.readouterr().err


@pytest.mark.parametrize("command", [CHORE, [sys.executable, "-m", "bicorn", "--print-config", "--chdir"]])
def test_a_reader_that_has_enough_is_no_reason_for_words(tmp_path: Path, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run([*command, tmp_path], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_output_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([*CHORE, tmp_path], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("bicornctl: No space left on device\n")
