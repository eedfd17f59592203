"""Log files on disks that are full."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bicorn.observe.log_file import LogFileHandler


def record(message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord("any", logging.INFO, __file__, 1, message, args, None)


def test_a_full_disk_costs_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogFileHandler("/dev/full")
    for _ in range(50):
        handler.handle(record("lost"))
    handler.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["Cannot write to the log file '/dev/full': No space left on device; lines lost: 1"]


def test_a_mistake_in_a_record_keeps_its_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogFileHandler(str(tmp_path / "log"))
    handler.handle(record("%d", "no number"))
    handler.close()
    assert "TypeError" in capsys.readouterr().err
