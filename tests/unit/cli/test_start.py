"""What a start costs."""

from __future__ import annotations

import subprocess
import sys


def test_a_start_imports_nothing_that_only_few_need() -> None:
    heavy = {"asyncio", "concurrent.futures", "email", "importlib.metadata", "ssl"}
    code = "import sys, bicorn.cli.main, bicorn.workers.sync, bicorn.workers.threads; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    bare = subprocess.run(
        [sys.executable, "-c", "import sys; print(*sys.modules)"], capture_output=True, text=True, check=True
    )
    assert heavy & (set(loaded) - set(bare.stdout.split())) == set()
