"""`gunicorn.workers.workertmp`, for worker classes that name the type of `worker.tmp`.

It is a view of shared memory and no file, so it has no fileno().
"""

import platform

from bicorn.workers.base import Heartbeat as WorkerTmp

PLATFORM = platform.system()
IS_CYGWIN = PLATFORM.startswith("CYGWIN")

__all__ = ["IS_CYGWIN", "PLATFORM", "WorkerTmp"]
