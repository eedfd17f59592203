"""Bicorn: a production application server for Python, WSGI and ASGI."""

from bicorn._core import __version__

__all__ = ["__version__"]
