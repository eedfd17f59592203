"""capture_output, in processes of its own because it moves descriptors 1 and 2."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PRELUDE = """
import os, sys
from dataclasses import replace
from bicorn.observe.log import Logger
from harness.logs import LogValues
cfg = LogValues(errorlog="error.log", capture_output=True)
log = Logger(cfg)
def say(text):
    print(text, flush=True)
    os.write(2, b"raw " + text.encode() + b"\\n")
    os.system("echo child " + text)
"""


def run(script: str, directory: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{PRELUDE}{script}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=directory, capture_output=True, text=True, check=True, timeout=30
    )


def test_what_the_process_and_its_children_print_goes_to_the_error_log(tmp_path: Path) -> None:
    done = run("say('one'); log.info('a record')", tmp_path)
    shown = (tmp_path / "error.log").read_text()
    assert "one\nraw one\nchild one\n" in shown
    assert "[INFO] a record" in shown
    assert (done.stdout, done.stderr) == ("", "")


def test_captured_output_follows_a_rotation(tmp_path: Path) -> None:
    run("say('one'); os.rename('error.log', 'old.log'); say('late'); log.reopen_files(); say('two')", tmp_path)
    assert "raw late" in (tmp_path / "old.log").read_text()
    assert (tmp_path / "error.log").read_text() == "two\nraw two\nchild two\n"


def test_a_reload_may_move_or_end_the_capture(tmp_path: Path) -> None:
    done = run(
        "log.setup(replace(cfg, errorlog='second.log')); say('two');"
        "log.setup(replace(cfg, capture_output=False)); say('three')",
        tmp_path,
    )
    assert (tmp_path / "error.log").read_text() == ""
    assert (tmp_path / "second.log").read_text() == "two\nraw two\nchild two\n"
    assert (done.stdout, done.stderr) == ("three\nchild three\n", "raw three\n")


def test_nothing_is_captured_when_the_error_log_is_stderr(tmp_path: Path) -> None:
    done = run("log.setup(LogValues(capture_output=True)); say('x')", tmp_path)
    assert (done.stdout, done.stderr) == ("x\nchild x\n", "raw x\n")
