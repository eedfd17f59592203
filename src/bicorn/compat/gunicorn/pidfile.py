"""`gunicorn.pidfile`, for deployment tools that read or write the file of a server."""

from bicorn.arbiter.pidfile import Pidfile

__all__ = ["Pidfile"]
