"""`gunicorn.arbiter`: uvicorn's workers take WORKER_BOOT_ERROR from it, embedding programs subclass or patch the class.

It is the class that runs the server, so that patches take effect and isinstance() holds.
"""

from bicorn.arbiter.arbiter import Arbiter

__all__ = ["Arbiter"]
